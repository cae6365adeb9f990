"""A network from a row: the rows, the arithmetic on them, and the modules they become."""
