"""Several processes, and the signals that stop one."""
