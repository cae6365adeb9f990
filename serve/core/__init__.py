"""One engine behind its queue; no HTTP."""
