"""Weights in and out: our checkpoint, the table of published ones, and other projects' files."""
