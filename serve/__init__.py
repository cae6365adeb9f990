"""Answers and measurements: the server of an engine and the latency harness."""
