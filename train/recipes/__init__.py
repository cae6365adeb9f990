"""One recipe a file, each with its source, command, hardware, wall time and result in the header."""
