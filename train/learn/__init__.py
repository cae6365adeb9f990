"""The loop, its step, and everything a step needs."""
