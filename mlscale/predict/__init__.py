"""Batch scoring: every input once, resumable."""
