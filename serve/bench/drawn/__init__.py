"""How results of stages are drawn."""
