"""Create the virtual environment, or bring it up to date: ``python3 -m tools.environment [load|embedded|dev]``.

It uses only the standard library and syntax that old interpreters can read, because it is the first program on a new
machine. It records a hash of ``pyproject.toml`` and ``constraints.txt``, so that a second call does nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
OLDEST = (3, 11)
EXTRAS = {
    # The extras of pyproject.toml that each environment contains.
    "load": {"load"},
    "embedded": {"embedded"},
    "dev": {"dev", "embedded", "load"},
}


def main() -> int:
    """Install one extra, unless the environment already contains it."""
    extra = sys.argv[1] if len(sys.argv) > 1 else "embedded"
    if extra not in EXTRAS:
        sys.stderr.write("usage: python3 -m tools.environment [load|embedded|dev]\n")
        return 2
    if sys.version_info < OLDEST:
        found = ".".join(str(part) for part in sys.version_info[:3])
        sys.stderr.write(
            f"FLTS needs Python {OLDEST[0]}.{OLDEST[1]} or later; `python3` is {found}. "
            "Name another with `make PYTHON=/path/to/python3.11 ...`\n"
        )
        return 1
    ROOT.joinpath(".venv.lock").touch()
    with ROOT.joinpath(".venv.lock").open("r") as lock:
        # Of two concurrent makes, the second waits here and then finds the environment current.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_current(extra):
            return 0
        return install(extra)


def fingerprint() -> str:
    """Return the hash of the two files that determine the installed packages."""
    text = b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    return hashlib.sha256(text).hexdigest()


def is_current(extra: str) -> bool:
    """Return whether this extra, or one that contains it, was installed from the current files."""
    return any(extra in EXTRAS[each] for each in installed())


def installed() -> list[str]:
    """Return the extras that were installed from the current files."""
    stamp = VENV / "flts-installed"
    if not stamp.exists():
        return []
    names, _, stamped = stamp.read_text().partition(" ")
    return names.split(",") if stamped == fingerprint() else []


def install(extra: str) -> int:
    """Create the environment and install the project with one extra and every version pinned."""
    started = time.monotonic()
    sys.stderr.write(f"Installing FLTS into {VENV.name} (once; 1 to 10 minutes, most of it torch) ...\n")
    python = VENV / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # TORCH_INDEX_URL is the index of torch's CPU build. Without it, pip installs the wheel of the default index, which
    # on Linux brings 2.7 GB of CUDA.
    index = os.environ.get("TORCH_INDEX_URL", "")  # noqa: TID251 - runs before the packages that a settings class needs are installed
    if index:
        command += ["--extra-index-url", index]
    command += ["--constraint", "constraints.txt", "--editable", f".[{extra}]"]
    result = subprocess.run(command, cwd=ROOT, check=False)
    if result.returncode:
        sys.stderr.write("The installation failed; the lines above say why. `make` tries again.\n")
        return 1
    (VENV / "flts-installed").write_text(f"{','.join([*installed(), extra])} {fingerprint()}")
    sys.stderr.write(f"Installed in {time.monotonic() - started:.0f} s.\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
