"""Places in the repository."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

DATA = ROOT / "loadtests" / "data"
"""The published files of emotion2vec+ large, without its weights."""

RESULTS = ROOT / "loadtests" / "results"
"""Where commands write their results by default; ignored by git."""

EMODB = ROOT / "tests" / "data" / "emodb"
"""Six clips of six speakers and six emotions, 16 kHz mono."""
