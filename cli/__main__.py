"""Run the command line: ``flts``, or ``python -m cli``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from pydantic import SecretStr

from cli import dead_letters, doctor, operations
from cli.arguments import build_parser
from cli.client import GatewayClient
from cli.commands import COMMANDS, FAILED, OK, USAGE, UsageError
from cli.settings import CliSettings
from flts.errors import FltsError

INTERRUPTED = 130
ALL_COMMANDS = COMMANDS | operations.COMMANDS | dead_letters.COMMANDS


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 1 after a failure, 2 after wrong usage, 130 after Ctrl-C.

    An error is one line on standard error.
    """
    try:
        further = (operations.add_arguments, dead_letters.add_arguments, doctor.add_arguments)
        arguments = build_parser(*further).parse_args(argv)
        settings = _settings(vars(arguments))
    except SystemExit as error:
        # argparse or CliSettings has already printed the error message.
        return error.code if isinstance(error.code, int) else USAGE
    arguments.json = getattr(arguments, "json", False)
    try:
        return _run(arguments, settings)
    except UsageError as error:
        return _complain(str(error), USAGE)
    except FltsError as error:
        field = f"{error.field}: " if error.field and error.field not in error.message else ""
        return _complain(f"{field}{error.message}", FAILED)
    except OSError as error:
        return _complain(f"{error.filename or ''}: {error.strerror or error}".removeprefix(": "), FAILED)
    except KeyboardInterrupt:
        return _complain("stopped; a run that was started goes on", INTERRUPTED)


def _run(arguments: argparse.Namespace, settings: CliSettings) -> int:
    if arguments.command == "doctor":
        # doctor runs without the client below: the gateway may be down, and doctor finds out why.
        return doctor.doctor(settings, arguments)
    with GatewayClient(
        settings.url(),
        settings.api_key(),
        timeout_seconds=settings.flts_timeout_seconds,
        reconnect_seconds=settings.flts_reconnect_seconds,
    ) as client:
        try:
            return ALL_COMMANDS[arguments.command](client, arguments)
        except BrokenPipeError:
            # The process that reads standard output has ended (`head` in `flts runs | head`). Python flushes standard
            # output at exit, which would raise a second error, so standard output now leads to /dev/null.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return OK


def _settings(given: dict[str, object]) -> CliSettings:
    settings = CliSettings.load()
    changes: dict[str, object] = {}
    if "url" in given:
        changes["flts_url"] = given["url"]
    if "api_key" in given:
        changes["flts_api_key"] = SecretStr(str(given["api_key"]))
    if "api_key_file" in given:
        # A key in the environment takes precedence over a key file. A key file given as an option must be used, so the
        # key of the environment is removed.
        changes |= {"flts_api_key_file": given["api_key_file"]}
        changes.setdefault("flts_api_key", None)
    return settings.model_copy(update=changes)


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"flts: {' '.join(message.split())}\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
