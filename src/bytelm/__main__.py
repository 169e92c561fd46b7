"""`python -m bytelm` is `bytelm`."""

import sys

from bytelm.cli import main

if __name__ == "__main__":
    sys.exit(main())
