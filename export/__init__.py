"""Engines from checkpoints, and the one seam that runs them."""
