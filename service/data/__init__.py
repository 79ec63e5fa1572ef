"""Files that the service brings along: models, example recordings, and what `/docs` needs."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent

EXAMPLES = _HERE / "examples"
"""Recordings for the page, for tests of precision, and for a first try."""

MODELS = _HERE / "models"
"""Prepared models, each in a directory that bears its name."""
