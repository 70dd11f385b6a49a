"""The fields that a config may have: files they come from, types, ranges, documentation, and the nodes of targets."""
