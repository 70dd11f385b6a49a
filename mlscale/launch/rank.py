"""A flag for processes that the launcher started as a rank. Imports nothing: the command line reads it, too."""

_is_rank = False


def mark_as_rank() -> None:
    """Mark this process as a rank."""
    global _is_rank
    _is_rank = True


def is_rank_process() -> bool:
    """Return True if this process is a rank."""
    return _is_rank
