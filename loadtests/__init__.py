"""Measures the service: the benchmark against FunASR (`bench`), and load over HTTP (`locustfile`)."""
