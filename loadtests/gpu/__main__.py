"""Runs the GPU report."""

import sys

from loadtests.gpu.gpu_report import main

if __name__ == "__main__":
    sys.exit(main())
