"""What is handed in, from bytes and archives to cells and clean text; it may import the sandbox's channel."""
