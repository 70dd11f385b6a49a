"""The run folder, and what keeps secrets out of it.

Import from the modules: an error in a config needs masking alone, and does not wait for snapshots and run folders.
"""
