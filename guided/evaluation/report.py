"""The figures of an evaluation: rows for programs, a table for people."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from guided.evaluation.intervals import Estimate


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        measure: such as "Frechet distance".
        of: what was measured: "samples", "training pictures", "held-out pictures", or "ratio".
        features: what pictures were compared by, or who judged.
        estimate: value, deviation and interval.
        counts: pictures compared, of each set.
    """

    measure: str
    of: str
    features: str
    estimate: Estimate
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Report:
    """All figures of one evaluation, and what they are of.

    Attributes:
        rows: the figures.
        about: what decides them, in values that JSON holds.
        level: of the intervals.
    """

    rows: list[Row]
    about: dict[str, Any] = field(default_factory=dict)
    level: float = 0.95

    def value(self, measure: str, of: str = "samples", features: str | None = None) -> Estimate:
        """The figure of that name; the first, where there are several.

        Raises:
            KeyError: there is none.
        """
        for row in self.rows:
            if (row.measure, row.of) == (measure, of) and features in (None, row.features):
                return row.estimate
        raise KeyError(f"no {measure} of {of}; there are {', '.join(sorted({r.measure for r in self.rows}))}")

    def table(self) -> str:
        """A table in Markdown: a line a measure, a column for each thing measured."""
        columns = list(dict.fromkeys(row.of for row in self.rows))
        lines: dict[tuple[str, str], dict[str, Row]] = {}
        for row in self.rows:
            lines.setdefault((row.measure, row.features), {})[row.of] = row
        head = ["measure", "features or judge", *columns, "pictures"]
        text = [head, ["---"] * len(head)]
        for (measure, features), found in lines.items():
            counts = dict.fromkeys(count for row in found.values() for count in row.counts)
            cells = [shown(found[column].estimate) if column in found else "" for column in columns]
            text.append([measure, features, *cells, ", ".join(map(str, counts))])
        return "\n".join(f"| {' | '.join(cells)} |" for cells in text)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"about": self.about, "level": self.level, "rows": [asdict(row) for row in self.rows]}

    def save(self, path: str | Path) -> None:
        """The figures as a JSON file; missing folders are made."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_dict(), indent=1) + "\n")


def shown(estimate: Estimate) -> str:
    """A figure with its interval, to three digits."""
    return f"{digits(estimate.value)} ({digits(estimate.low)} .. {digits(estimate.high)})"


def digits(value: float) -> str:
    """Three significant digits, and no more than four after the point."""
    if value != value or abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{round(value, 4):.3g}"
