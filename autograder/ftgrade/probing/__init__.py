"""Find out which sandbox holds on this machine by real escape attempts; it may import sandbox."""
