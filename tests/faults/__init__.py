"""The behaviour of the real server under faults: one test module for each kind of fault.

program             the command `serve` with a backend that fails on command
service             one such server as a process: its metrics, its health and its resources
background_clients  clients that send valid requests during a fault and check the answers
test_*              the faults
report              runs them and writes the observations into docs/reliability.md: `python -m tests.faults.report`
"""
