"""The numeric forms a graph can have."""
