"""Run folders: create, find, compare, resume, verify and remove runs.

Import from the modules: an error in a config needs masking alone, and does not wait for snapshots and run folders.
"""
