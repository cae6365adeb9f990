"""Which models a server has, in which versions."""
