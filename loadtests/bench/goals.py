"""The performance goals on a CPU, and whether a report meets them."""

from __future__ import annotations

from loadtests.bench.tables import Goal, Report, Row, Spread

_UTTERANCE = {
    "fp32": {1: 2.0, 5: 1.5, 10: 1.55, 30: 1.9, 60: 1.9},
    "int8": {1: 2.8, 5: 2.5, 10: 2.5, 30: 2.9},
}
_COLD = {"fp32": 10.0, "int8": 20.0}
_MEMORY = {"fp32": 2.0, "int8": 4.0}


def evaluate(report: Report) -> list[Goal]:
    """Compare a report of the large model with the goals."""
    goals = []
    for column, by_length in _UTTERANCE.items():
        goals += [
            _ratio(report, f"utterance-{seconds}", column, f"utterance of {seconds} s, times as fast", needed)
            for seconds, needed in by_length.items()
        ]
        goals.append(_ratio(report, "cold", column, "cold start, times as fast", _COLD[column]))
        goals.append(
            _ratio(report, "memory-server", column, "peak memory of the server, times as small", _MEMORY[column])
        )
        goals.append(_at_most(report, "frame-share", column, "frame mode, in times of utterance mode", 1.05))
        goals.append(_at_most(report, "added-p50", column, "added to the model at P50, seconds", 0.005))
        goals.append(_at_most(report, "added-p99", column, "added to the model at P99, seconds", 0.015))
        goals.append(_growth(report, column))
    goals.append(_at_most(report, "long-memory", "fp32", "peak memory for five minutes, MB", 2000))
    goals.append(_ratio(report, "embedded", "fp32", "requests per second of the embedded model, times as many", 3.0))
    goals += _agreement(report)
    return goals


def _agreement(report: Report) -> list[Goal]:
    # How much INT8 changes scores depends on trained weights, so the embedded model is used, which is trained.
    return [
        _at_most(report, "large-difference", "fp32", "largest difference of a score", 1e-4),
        _at_least(report, "large-kappa", "fp32", "kappa of the labels", 1.0),
        _at_least(report, "large-frames", "fp32", "correlation of the frame scores", 0.992),
        _at_most(report, "tiny-difference", "int8", "largest difference of a score, embedded model", 0.01),
        _at_least(report, "tiny-same", "int8", "share of clips with the same label, embedded model", 0.99),
    ]


def _growth(report: Report, column: str) -> Goal:
    """P99 of 20 callers against that of 5: linear growth is four times."""
    many, few = (_found(report.row(f"p99-{callers}"), column) for callers in (20, 5))
    found = many.value / few.value if many and few else None
    return Goal(f"{_NAMES[column]}: P99 of 20 callers, in times of that of 5", 4.0, found, at_least=False)


_NAMES = {"fp32": "FP32", "int8": "INT8"}


def _ratio(report: Report, key: str, column: str, name: str, needed: float) -> Goal:
    row = report.row(key)
    ratio = row.ratio(column, "funasr") if row else None
    return Goal(f"{_NAMES[column]}: {name}", needed, ratio.value if ratio else None, at_least=True)


def _at_most(report: Report, key: str, column: str, name: str, needed: float) -> Goal:
    spread = _found(report.row(key), column)
    return Goal(f"{_NAMES[column]}: {name}", needed, spread.value if spread else None, at_least=False)


def _at_least(report: Report, key: str, column: str, name: str, needed: float) -> Goal:
    spread = _found(report.row(key), column)
    return Goal(f"{_NAMES[column]}: {name}", needed, spread.value if spread else None, at_least=True)


def _found(row: Row | None, column: str) -> Spread | None:
    return row.spread(column) if row else None
