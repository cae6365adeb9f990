"""The HTTP face of a server."""
