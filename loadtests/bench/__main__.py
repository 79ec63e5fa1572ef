"""Runs the benchmark."""

from loadtests.bench.benchmark import main

if __name__ == "__main__":
    main()
