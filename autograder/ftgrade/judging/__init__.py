"""How a submission is judged: a problem's words, the oracle, the report; it may import intake and sandbox."""
