"""What a model is: rows, modules, weights, and how a picture becomes its input. Importing it loads no framework."""

__version__ = "0.1.0"
