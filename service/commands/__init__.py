"""The commands of `emotion2vec-service`: one module for each, with `add_parser(commands)` and `run(options)`.

Imports that the command line does not need are inside the functions, so that each command loads only what it needs:
`serve` and `recognize` do not import torch on the CPU, and `--help` is fast.
"""

from __future__ import annotations

import argparse
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""The return type of `ArgumentParser.add_subparsers`."""
