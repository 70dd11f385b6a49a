"""Inspects data by reading it: leaks from one split to another, and differences between two versions."""
