"""`python -m mlscale`."""

import sys

from mlscale.cli import main

if __name__ == "__main__":
    sys.exit(main())
