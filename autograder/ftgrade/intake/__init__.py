"""Turn what is handed in, bytes and archives, into cells and clean text; it may import the sandbox's channel."""
