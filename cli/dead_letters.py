"""``flts dlq``: list dead letters, show them and replay them."""

from __future__ import annotations

import argparse
import os
import pwd
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cli.arguments import common_options
from cli.client import GatewayClient
from cli.commands import FAILED, OK, UsageError, show
from cli.text import one_line, table, utc

PAGE = 500
SHOWN_ERROR = 60
Record = Mapping[str, Any]


def add_arguments(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Declare the command and its options."""
    parser = command("dlq", "Dead letters: messages that a service gave up")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, text: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=text, description=text, parents=[common_options()])

    listed = action("list", "List the groups and their sums, or one group's dead letters, newest first")
    listed.add_argument("group", nargs="?", help="preprocess, train-gru, train-lstm, nonml-prophet, eval, ...")
    _add_choice(listed)
    listed.add_argument("--limit", type=int, default=50)
    listed.add_argument("--waiting", action="store_true", help="only those that were not replayed")

    shown = action("show", "Show a dead letter: the message, why it was given up, where it came from")
    shown.add_argument("group")
    shown.add_argument("id", help="as the list has it, 3-17")

    replay = action("replay", "Send dead letters to their group again, each once")
    replay.add_argument("group")
    replay.add_argument("ids", nargs="*", metavar="ID", help="which ones; else say --all or --error-code")
    replay.add_argument("--all", action="store_true", help="all that were not replayed, oldest first")
    _add_choice(replay)
    replay.add_argument("--limit", type=int, help="at most so many")
    replay.add_argument("--rate", type=float, help="so many a second at most; the gateway has a limit of its own")
    replay.add_argument("--again", action="store_true", help="also those that were replayed before")
    replay.add_argument("--force", action="store_true", help="also those of runs that have ended")
    replay.add_argument("--reason", help="reason, kept with the record")


def dead_letters(client: GatewayClient, arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    return ACTIONS[arguments.action](client, arguments)


def list_letters(client: GatewayClient, arguments: argparse.Namespace) -> int:
    """List groups, or one group's letters."""
    if arguments.group is None:
        groups = client.dead_letter_groups()
        return show(arguments, {"groups": groups}, [*groups_table(groups), "", *sums_table(groups)])
    page = client.dead_letters(
        arguments.group, limit=arguments.limit, waiting=arguments.waiting or None, **_choice(arguments)
    )
    lines = letters_table(page["letters"]) if page["letters"] else ["no dead letters"]
    if page["next"]:
        lines.append(f"{page['total'] - len(page['letters'])} more: --limit {page['total']}")
    return show(arguments, page, lines)


def show_letter(client: GatewayClient, arguments: argparse.Namespace) -> int:
    """Show one letter."""
    letter = client.dead_letter(arguments.group, arguments.id)
    return show(arguments, letter, letter_lines(letter))


def replay(client: GatewayClient, arguments: argparse.Namespace) -> int:
    """Replay letters; call the gateway again until no letter remains."""
    chosen = [bool(arguments.ids), arguments.all, any(_choice(arguments).values())]
    if sum(chosen) == 0 or (arguments.ids and sum(chosen) > 1):
        msg = "say which dead letters: their ids, --all, or --error-code, --identifier, --topic"
        raise UsageError(msg)
    ids = list(arguments.ids) or _ids(client, arguments)
    ids = ids[: arguments.limit]
    asked = {
        "rate": arguments.rate,
        "again": arguments.again,
        "force": arguments.force,
        "reason": arguments.reason,
        "by": _who(),
    }
    results: list[Record] = []
    while ids:
        answer = client.replay(arguments.group, {**asked, "ids": ids[:PAGE]})
        results += answer["results"]
        ids = [*answer["remaining"], *ids[PAGE:]]
        if ids:
            sys.stderr.write(f"{len(results)} done, {len(ids)} to go\n")
    counts = {name: sum(result["outcome"] == name for result in results) for name in OUTCOMES}
    answer = {"group": arguments.group, **counts, "results": results}
    show(arguments, answer, replay_lines(answer))
    return FAILED if counts["refused"] else OK


ACTIONS = {"list": list_letters, "show": show_letter, "replay": replay}
OUTCOMES = {
    "replayed": "sent again",
    "same_record": "tell of a message that was sent again just now",
    "already_replayed": "were sent again before (--again does it once more)",
    "refused": "refused",
}
COMMANDS: dict[str, Callable[[GatewayClient, argparse.Namespace], int]] = {"dlq": dead_letters}


def groups_table(groups: Sequence[Record]) -> list[str]:
    """Return one line per group: the number of its letters and of those that wait, and their reasons."""
    rows = [
        (
            group["group"],
            group["letters"],
            group["waiting"],
            utc(group["newest"]),
            ", ".join(f"{code} {count}" for code, count in group["error_codes"].items()) or None,
        )
        for group in groups
    ]
    return table(("group", "letters", "waiting", "newest", "reasons"), rows, right=("letters", "waiting"))


def sums_table(groups: Sequence[Record]) -> list[str]:
    """Return one line per topic and group: sent = done + in flight + dead letters."""
    numbers = ("sent", "done", "in_flight", "dead_letters", "lost")
    rows = [
        (each["topic"], each["group"], *(each[name] for name in numbers), "yes" if each["holds"] else "NO")
        for group in groups
        for each in group["accounts"]
    ]
    headers = ("topic", "group", "sent", "done", "in flight", "dead letters", "lost", "holds")
    return table(headers, rows, right=headers[2:7])


def letters_table(letters: Sequence[Record]) -> list[str]:
    """Return one line per letter."""
    rows = [
        (
            letter["id"],
            utc(letter["at"]),
            letter["topic"],
            letter["identifier"],
            letter["error_code"],
            letter["attempts"],
            "yes" if letter["replayed"] else "no",
            one_line(letter["error"])[:SHOWN_ERROR],
        )
        for letter in letters
    ]
    headers = ("id", "at", "topic", "identifier", "reason", "tries", "replayed", "error")
    return table(headers, rows, right=("tries",))


def letter_lines(letter: Record) -> list[str]:
    """Return one letter as lines of text."""
    lines = [
        f"dead letter {letter['id']} of {letter['group']}, {utc(letter['at'])}",
        f"from      {letter['topic']}, partition {letter['partition']}, offset {letter['offset']}",
        f"reason    {letter['error_code']}, after {letter['attempts']} tries",
        f"error     {one_line(letter['error'] or '-')}",
        f"replayed  {_replayed(letter)}",
        f"key       {_text(letter['key'])}",
    ]
    lines += [f"header    {each['name']}: {_cut(_text(each), each['size'])}" for each in letter["headers"]]
    if letter["headers_left_out"]:
        lines.append(f"          {letter['headers_left_out']} more did not fit")
    lines += ["value", f"  {_text(letter['value'])}"]
    if letter["traceback"]:
        lines += ["traceback", *(f"  {line}" for line in letter["traceback"].splitlines())]
    return lines


def replay_lines(answer: Record) -> list[str]:
    """Return the result of a replay: the counts, and the messages about single letters."""
    lines = [f"{answer[name]} {text}" for name, text in OUTCOMES.items() if answer[name] or name == "replayed"]
    handled = (result for result in answer["results"] if result["outcome"] in {"refused", "replayed"})
    return [*lines, *(f"  {each['id']}: {one_line(each['message'])}" for each in handled if each.get("message"))]


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--error-code", metavar="CODE", help="only those with this reason")
    parser.add_argument("--identifier", metavar="NAME", help="only those of this data set")
    parser.add_argument("--topic", help="only those that came from this topic")


def _choice(arguments: argparse.Namespace) -> dict[str, str | None]:
    return {name: getattr(arguments, name) for name in ("error_code", "identifier", "topic")}


def _ids(client: GatewayClient, arguments: argparse.Namespace) -> list[str]:
    """Return the ids of the chosen letters, oldest first."""

    def pages() -> Iterator[Record]:
        after = None
        while True:
            waiting = None if arguments.again else True
            page = client.dead_letters(arguments.group, limit=PAGE, after=after, waiting=waiting, **_choice(arguments))
            yield page
            after = page["next"]
            if after is None:
                return

    return [letter["id"] for page in pages() for letter in page["letters"]][::-1]


def _who() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def _text(shown: Record) -> str:
    return "-" if shown.get("text", "") is None else one_line(shown["text"]) if "text" in shown else shown["base64"]


def _cut(text: str, size: int) -> str:
    return text if len(text) <= SHOWN_ERROR * 2 else f"{text[: SHOWN_ERROR * 2]} ... ({size} bytes)"


def _replayed(letter: Record) -> str:
    if not letter["replayed"]:
        return "no"
    mark = letter["replay"] or {}
    words = ["yes", utc(mark.get("at")), f"by {mark['by']}" if mark.get("by") else "", mark.get("reason") or ""]
    return ", ".join(word for word in words if word not in {"", "-"})
