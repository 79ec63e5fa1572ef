"""What the real server does when something goes wrong: one module for each kind of fault.

program     the real command with a backend that misbehaves on command
service     one such server as a process: its metrics, its health, and what it holds on to
callers     good callers, who must not notice, or must be told
test_*      the faults
report      runs them and writes what was seen into docs/reliability.md: `python -m tests.faults.report`
"""
