"""Run every check of form: ``python -m tools.lint``. All of them run, then the worst result counts."""

from __future__ import annotations

import subprocess
import sys

COMMANDS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("importlinter.cli", "lint"),
    ("tools.configuration", "--check"),
)


def main() -> int:
    """Return 0 when all checks pass."""
    worst = 0
    for module, *arguments in COMMANDS:
        print(f"$ python -m {module} {' '.join(arguments)}", flush=True)
        code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
        command = [sys.executable, "-c", code] if module == "importlinter.cli" else [sys.executable, "-m", module, *arguments]
        worst = max(worst, subprocess.run(command, check=False).returncode)
    return worst


if __name__ == "__main__":
    raise SystemExit(main())
