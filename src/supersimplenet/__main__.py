"""``python -m supersimplenet``: the same as the command."""

import sys

from supersimplenet.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
