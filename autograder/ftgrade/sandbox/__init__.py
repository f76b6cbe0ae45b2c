"""The prison around student code: one protocol, several backends."""
