"""Code that Triton's Python backend runs: copied into a repository or an installed server, and not imported here."""
