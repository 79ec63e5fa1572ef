"""The ratios of a report as a bar chart."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from loadtests.bench.tables import Table

_BAR = 0.8
_INCHES_PER_ROW = 0.45


def draw(table: Table, subtitle: str, path: Path) -> None:
    """Draw the ratio of each column to its baseline, row by row, and write it as a PNG file.

    Bars are medians, or the pooled value of all rounds; the lines on them go from the lowest to the highest round.

    Args:
        table: columns without a baseline are left out, and so are rows that were not measured in both columns.
        subtitle: second line of the title.
        path: of the PNG file.
    """
    rows = [row for row in table.rows if any(row.ratio(*pair) for pair in table.baselines.items())]
    figure = Figure(figsize=(9, 1.5 + _INCHES_PER_ROW * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    height = _BAR / max(1, len(table.baselines))
    for number, (column, baseline) in enumerate(table.baselines.items()):
        for place, row in enumerate(rows):
            ratio = row.ratio(column, baseline)
            if ratio is None:
                continue
            y = place - _BAR / 2 + height * (number + 0.5)
            label = table.columns[column] if place == 0 else None
            axes.barh(y, ratio.value - 1, height, left=1, color=f"C{number}", label=label)
            axes.plot([ratio.low, ratio.high], [y, y], color="black", linewidth=1)
            axes.annotate(
                f"{ratio.value:.2f}",
                (max(ratio.value, ratio.high), y),
                (3, 0),
                va="center",
                fontsize=8,
                textcoords="offset points",
            )
    axes.axvline(1, color="black", linewidth=0.8, linestyle="dashed")
    axes.set_xscale("log")
    axes.set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("times as good as FunASR in the same round (more is better)")
    axes.set_title(f"{table.title}\n{subtitle}", fontsize=10)
    if table.baselines:
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)
