"""``python -m supersimplenet``: the same as the command."""

import sys

from supersimplenet.cli import main

if __name__ == "__main__":
    sys.exit(main())
