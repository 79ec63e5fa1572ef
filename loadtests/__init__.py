"""Benchmarks and load tests; nothing of the service imports this package, and nothing in here imports the tests."""
