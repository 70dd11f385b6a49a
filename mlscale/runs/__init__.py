"""Run folders: create, find, compare, resume, verify and remove runs.

Import from the modules: an error in a config needs only masking, not the slower import of snapshots and run folders.
"""
