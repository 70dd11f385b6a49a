"""Whether this process is a rank that the launcher started. Imports nothing: the command line asks, too."""

_here = False


def enter() -> None:
    """This process is a rank from now on."""
    global _here
    _here = True


def here() -> bool:
    """Whether it is."""
    return _here
