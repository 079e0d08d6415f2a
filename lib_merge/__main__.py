"""`python -m lib_merge`: the command line."""

import sys

from lib_merge.cli import main

if __name__ == "__main__":
    sys.exit(main())
