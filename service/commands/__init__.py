"""The commands of `emotion2vec-service`, a module each, with `add_parser(commands)` and `run(options)`.

Imports that are not needed to read the command line stand inside the functions, so that each command loads only what it
needs: `serve` and `recognize` never import torch on the CPU, and `--help` answers at once.
"""

from __future__ import annotations

import argparse
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What `ArgumentParser.add_subparsers` returns, to which a command adds itself."""
