"""A flag for processes that the launcher started as a rank. Imports nothing: the command line reads it, too."""

_here = False


def enter() -> None:
    """Mark this process as a rank."""
    global _here
    _here = True


def here() -> bool:
    """Return True if this process is a rank."""
    return _here
