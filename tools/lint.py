"""Run all static checks: ``python -m tools.lint``. The exit code is the highest of all checks."""

from __future__ import annotations

import subprocess
import sys

COMMANDS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("importlinter",),
    ("tools.generate", "--check"),
)


def main() -> int:
    """Return 0 when all checks pass."""
    worst = 0
    for module, *arguments in COMMANDS:
        print(f"$ python -m {module} {' '.join(arguments)}", flush=True)
        command = [sys.executable, "-m", module, *arguments]
        if module == "importlinter":  # import-linter cannot be run with `python -m`
            command = [sys.executable, "-c", "import importlinter.cli as cli; cli.lint_imports_command()"]
        worst = max(worst, subprocess.run(command, check=False).returncode)
    return worst


if __name__ == "__main__":
    raise SystemExit(main())
