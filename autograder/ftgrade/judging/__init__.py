"""Judge a submission: how problems are written, the oracle, the report; it may import intake and sandbox."""
