"""Write ``.env`` with random secrets for Compose: ``python3 -m tools.env_file [FILE]``. Existing lines are kept.

It uses only the standard library, because it runs before anything is installed. The names are those of
``.env.example``. Names that a newer version added are appended.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / ".env.example"
SECRET_BYTES = 24
PLAIN = {"AWS_ACCESS_KEY_ID": "flts"}  # a readable user name; random digits are appended


def main() -> int:
    """Create the file, or append the missing variables."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".env"
    there = names(target.read_text(encoding="utf-8")) if target.exists() else set()
    missing = [name for name in sorted(names(EXAMPLE.read_text(encoding="utf-8"))) if name not in there]
    if not missing:
        print(f"{target.name} is there and holds every secret; nothing was changed")
        return 0
    # The file gets mode 0600 when it is created. If only a later chmod set the mode, other users could read the file
    # before it.
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as file:
        if there and not target.read_text(encoding="utf-8").endswith("\n"):
            file.write("\n")
        file.writelines(f"{name}={random_value(name)}\n" for name in missing)
    target.chmod(0o600)
    print(f"{target.name}: {', '.join(missing)}")
    return 0


def names(text: str) -> set[str]:
    """Return the variables that a file of this form assigns."""
    lines = (line.strip() for line in text.splitlines())
    return {line.partition("=")[0].strip() for line in lines if "=" in line and not line.startswith("#")}


def random_value(name: str) -> str:
    """Return a random value that needs no quotes in a shell, in YAML or in a URL."""
    if name in PLAIN:
        return f"{PLAIN[name]}-{secrets.token_hex(4)}"
    return secrets.token_hex(SECRET_BYTES)


if __name__ == "__main__":
    raise SystemExit(main())
