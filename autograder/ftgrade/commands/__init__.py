"""The command line; it may import all rooms."""
