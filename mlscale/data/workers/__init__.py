"""Processes that run a user's Python code on samples."""
