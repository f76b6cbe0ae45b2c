"""Which sandbox holds on this machine: found by real attempts to break out; it may import sandbox."""
