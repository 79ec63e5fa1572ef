"""Files that the service brings along: models, example recordings, and what `/docs` needs."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent

EXAMPLES = _HERE / "examples"
"""Recordings for the page, for tests of precision, for calibrating INT8, and for a first try."""

SPEECH = _HERE / "speech"
"""Recordings of other speakers, on which `models prepare` compares INT8 with FP32."""

MODELS = _HERE / "models"
"""Prepared models, each in a directory that bears its name."""
