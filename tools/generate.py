"""Write every generated document: ``python -m tools.generate [--check]``."""

from __future__ import annotations

from tools import chart, configuration, contracts, dashboards, data, trainers


def main() -> int:
    """Run each generator; return the highest exit code."""
    # The chart is last, because it reads the files that the others write.
    return max(trainers.main(), contracts.main(), configuration.main(), data.main(), dashboards.main(), chart.main())


if __name__ == "__main__":
    raise SystemExit(main())
