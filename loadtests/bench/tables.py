"""The values that the benchmark measures, and their ratios."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Literal

Better = Literal["less", "more", "neither"]


@dataclass(frozen=True, slots=True)
class Spread:
    """A value, with the lowest and the highest of its rounds."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement of several implementations.

    Attributes:
        key: a stable name.
        name: what is measured, as shown.
        unit: `s`, `ms`, `MB`, another unit, or empty.
        values: by column, one value for each round; values of the same round were measured one after another.
        better: which of two values is better; this decides the direction of the ratio; `neither` has no ratio.
        pooled: by column, the value over all rounds taken together, where that is not the median of the rounds.
    """

    key: str
    name: str
    unit: str
    values: dict[str, list[float]]
    better: Better = "less"
    pooled: dict[str, float] = field(default_factory=dict)

    def spread(self, column: str) -> Spread | None:
        """The value of a column, None if it was not measured."""
        values = self.values.get(column)
        if not values:
            return None
        return Spread(self.pooled.get(column, median(values)), min(values), max(values))

    def ratio(self, column: str, baseline: str) -> Spread | None:
        """How many times as good `column` is as `baseline`, round by round."""
        values, others = self.values.get(column), self.values.get(baseline)
        if not values or not others or self.better == "neither":
            return None
        ratios = [self._times(*pair) for pair in zip(values, others, strict=True)]
        both_pooled = column in self.pooled and baseline in self.pooled
        value = self._times(self.pooled[column], self.pooled[baseline]) if both_pooled else median(ratios)
        return Spread(value, min(ratios), max(ratios))

    def _times(self, value: float, other: float) -> float:
        return other / value if self.better == "less" else value / other


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with the same columns.

    Attributes:
        key: a stable name.
        title: as shown.
        columns: headings by column.
        baselines: by column, the column that it is compared with; other columns have no ratio.
        rows: the measurements.
    """

    key: str
    title: str
    columns: dict[str, str]
    baselines: dict[str, str]
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Goal:
    """A performance goal, and the value found; `found` is None if it was not measured."""

    name: str
    needed: float
    found: float | None
    at_least: bool

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None if it was not measured."""
        if self.found is None:
            return None
        return self.found >= self.needed if self.at_least else self.found <= self.needed


@dataclass(frozen=True, slots=True)
class Report:
    """The results of one run of the benchmark.

    Attributes:
        header: the machine, versions, threads and so on, by name.
        tables: in the order in which they are shown.
        goals: the goals and the values found.
    """

    header: dict[str, str]
    tables: list[Table]
    goals: list[Goal] = field(default_factory=list)

    def row(self, key: str) -> Row | None:
        """The row with this key, None if it was not measured."""
        return next((row for table in self.tables for row in table.rows if row.key == key), None)
