"""Runs the capacity test."""

import sys

from loadtests.capacity.capacity import main

if __name__ == "__main__":
    sys.exit(main())
