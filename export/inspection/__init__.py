"""What an artifact is, what this machine can do with it, and programs that use it without this project."""
