"""What bounds a run, and what would help, measured."""
