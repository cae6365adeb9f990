"""Pictures: where they are, what a name means, and how one becomes an input."""
