"""A folder of models, in the layout of Triton, at work."""
