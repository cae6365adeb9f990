"""How things are timed."""
