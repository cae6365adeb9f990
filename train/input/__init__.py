"""From a stored picture to a batch."""
