"""`python -m mindone_diffusers`: the same as `mindone-diffusers`."""

import sys

from .commands import main

if __name__ == "__main__":
    sys.exit(main())
