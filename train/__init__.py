"""Checkpoints from pictures: recipes, progressive learning, the loop and its record."""
