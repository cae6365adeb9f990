"""Other projects' weight files, read into plain tensors."""
