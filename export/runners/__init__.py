"""Whatever runs an artifact: one protocol, a file for each back end, and what opens the right one."""
