"""What people see of a run: live, on disk, in trackers."""
