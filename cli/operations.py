"""Commands that remove objects: delete a data set, run the janitor."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from cli.causes import held_lines, removal_lines
from cli.client import GatewayClient
from cli.commands import UsageError, show, show_lines


def add_arguments(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Declare the commands and their options."""
    delete = command("delete", "Delete a data set everywhere: uploads, data, models, runs and logs")
    delete.add_argument("name")
    delete.add_argument("--yes", action="store_true", help="do it; without it only what would go is shown")
    delete.add_argument("--dry-run", action="store_true", help="show what would go, and change nothing")
    delete.add_argument("--cancel", action="store_true", help="cancel runs that are under way; else they forbid it")
    delete.add_argument("--reason", help="reason, kept with the record")

    janitor = command("janitor", "Remove what is old now, rather than at the next daily round")
    janitor.add_argument("--dry-run", action="store_true", help="show what would go and why, and change nothing")
    janitor.add_argument("--reason", help="reason, kept with the record")


def delete(client: GatewayClient, arguments: argparse.Namespace) -> int:
    """Delete a data set."""
    name = arguments.name
    if arguments.dry_run or not arguments.yes:
        plan = client.delete(name, dry_run=True)
        lines = [f"this would go of {name}:", *held_lines(plan)]
        lines += [f"under way, and in its way: {run}" for run in plan["open_runs"]]
        if arguments.dry_run:
            return show(arguments, plan, lines)
        show_lines(lines)
        msg = f"nothing was deleted; there is no way back, so say it: flts delete {name} --yes"
        raise UsageError(msg)
    answer = client.delete(name, cancel=arguments.cancel, reason=arguments.reason)
    lines = [f"deleted: {name}", *held_lines(answer), *(f"cancelled: {run}" for run in answer["cancelled"])]
    return show(arguments, answer, [*lines, f"flts why {name} shows that it was done, and why"])


def janitor(client: GatewayClient, arguments: argparse.Namespace) -> int:
    """Run the janitor, or preview its round."""
    answer = client.janitor(dry_run=arguments.dry_run, reason=arguments.reason)
    return show(arguments, answer, removal_lines(answer))


COMMANDS: dict[str, Callable[[GatewayClient, argparse.Namespace], int]] = {"delete": delete, "janitor": janitor}
