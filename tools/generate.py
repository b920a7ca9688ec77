"""Write every generated document: ``python -m tools.generate [--check]``."""

from __future__ import annotations

from tools import configuration, contracts, dashboards


def main() -> int:
    """Run each generator; return the worst result."""
    return max(contracts.main(), configuration.main(), dashboards.main())


if __name__ == "__main__":
    raise SystemExit(main())
