"""Reads predictions that other servers have logged, by a mapping of their columns, as events."""
