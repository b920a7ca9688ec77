"""The tables of `docs/quality.md`: one row per data set, then one table per data set with a row per contender."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval_container.domain.step_scores import StepBlock
from tests.bench_forecast.measures import Measures

BEGIN, END = "<!-- begin: make bench-forecast -->", "<!-- end: make bench-forecast -->"
FLTS = "FLTS"
"""Row of the model that is served."""
MOST_LOSS = 0.02
"""Share by which the composite of the served model may exceed the best baseline's."""


@dataclass(frozen=True)
class SetReport:
    """The results of a data set: one entry for each seed."""

    name: str
    rows: int
    columns: int
    blocks: tuple[StepBlock, ...]
    origins: int
    served: tuple[str, ...]
    """Model type that each run promoted."""
    measures: dict[str, tuple[Measures, ...]]
    """By contender, `FLTS` first."""
    baselines: tuple[str, ...]
    peers: tuple[str, ...]
    errors: dict[str, str]
    """Why peers have no forecasts."""

    def mean(self, contender: str, figure: Callable[[Measures], float]) -> float:
        """Return the mean of a figure over the seeds; NaN without the contender."""
        found = self.measures.get(contender, ())
        return math.fsum(figure(each) for each in found) / len(found) if found else math.nan

    @property
    def is_worse(self) -> bool:
        """Return whether the served model is more than 2 % worse than the best baseline."""
        return not self.mean(FLTS, lambda each: each.composite) <= 1 + MOST_LOSS


def worse_than_baselines(reports: Iterable[SetReport]) -> list[str]:
    """Return the sets on which the served model is more than 2 % worse than the best baseline."""
    return [report.name for report in reports if report.is_worse]


def text_of(reports: Sequence[SetReport], heading: str) -> str:
    """Return the measured part of the page in Markdown."""
    parts = [heading, _overview(reports)]
    for report in reports:
        parts += [f"### {report.name}", _description(report), _details(report)]
        parts += [f"{name} has no forecasts: {error.rstrip('.')}." for name, error in report.errors.items()]
    return "\n\n".join(parts)


def write_between_markers(page: Path, text: str) -> None:
    """Replace the measured part of a page.

    Raises
    ------
    ValueError
        If the page has no markers.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        msg = f"{page} has no line {BEGIN} with {END} after it"
        raise ValueError(msg)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def _overview(reports: Sequence[SetReport]) -> str:
    peers = list(dict.fromkeys(name for report in reports for name in report.peers))
    header = ["data", "steps", "served", "FLTS", "best baseline", *peers, "composite", "coverage", "CPU s"]
    rows = []
    for report in reports:
        errors = [report.mean(FLTS, _mase), min(report.mean(name, _mase) for name in report.baselines)]
        errors += [report.mean(name, _mase) for name in peers]
        best = min(each for each in errors if math.isfinite(each))
        rows.append(
            [
                report.name,
                f"1..{report.blocks[-1].last}",
                _served(report.served),
                *(_bold(each, best=best) for each in errors),
                _number(report.mean(FLTS, lambda each: each.composite), 3),
                _number(report.mean(FLTS, lambda each: each.coverage)),
                _number(report.mean(FLTS, lambda each: each.cpu_seconds), 1),
            ]
        )
    return _table(header, rows)


def _description(report: SetReport) -> str:
    columns = "1 column" if report.columns == 1 else f"{report.columns} columns"
    return f"{report.rows:,} rows, {columns}; steps 1 to {report.blocks[-1].last} from {report.origins} origins."


def _details(report: SetReport) -> str:
    header = [
        "contender",
        "MASE",
        "composite",
        "coverage",
        *(f"width {block.text}" for block in report.blocks),
        "CPU s",
    ]
    rows = []
    for name in report.measures:
        widths = []
        for at in range(len(report.blocks)):
            width = report.mean(name, lambda each, at=at: each.widths[at])  # type: ignore[misc]
            share = report.mean(name, lambda each, at=at: each.coverages[at])  # type: ignore[misc]
            widths.append("-" if math.isnan(width) else f"{width:.2f} ({share:.2f})")
        rows.append(
            [
                f"{FLTS}: {_served(report.served)}" if name == FLTS else name,
                _number(report.mean(name, _mase), 3),
                _number(report.mean(name, lambda each: each.composite), 3),
                _number(report.mean(name, lambda each: each.coverage)),
                *widths,
                _number(report.mean(name, lambda each: each.cpu_seconds), 1),
            ]
        )
    return _table(header, rows)


def _mase(each: Measures) -> float:
    return each.mase


def _served(names: Sequence[str]) -> str:
    counted = Counter(names).most_common()
    return names[0] if len(counted) == 1 else ", ".join(f"{name} ({count})" for name, count in counted)


def _number(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def _bold(value: float, *, best: float) -> str:
    return f"**{_number(value)}**" if value <= 1.005 * best else _number(value)  # 1.005: equal when rounded


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
