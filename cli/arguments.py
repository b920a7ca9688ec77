"""The commands and their options."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

DEFAULT_HORIZON = 60  # steps of a forecast by a champion whose horizon is a single step
DEFAULT_ROWS = 200
PICTURES = (".png", ".svg", ".pdf")


AddCommands = Callable[[Callable[[str, str], argparse.ArgumentParser]], None]
"""Declares commands. Its argument creates the parser of a command from its name and help text."""


def common_options() -> argparse.ArgumentParser:
    """Return the options of every command, as a parent of the command's parser."""
    common = argparse.ArgumentParser(add_help=False)
    # The main parser and the parser of each command have these options, so an option may come before or after the
    # command. Without SUPPRESS, the command's parser would overwrite a value given before the command with a default.
    options = common.add_argument_group("every command")
    options.add_argument("--url", default=argparse.SUPPRESS, help="the gateway's address (FLTS_URL)")
    options.add_argument("--api-key", default=argparse.SUPPRESS, help="the gateway's key (FLTS_API_KEY)")
    options.add_argument("--api-key-file", type=Path, default=argparse.SUPPRESS, help="file that holds the key")
    options.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="JSON on standard output")
    return common


def build_parser(*further: AddCommands) -> argparse.ArgumentParser:
    """Return the parser of `flts`, with the commands of further modules."""
    common = common_options()
    parser = argparse.ArgumentParser(
        prog="flts", description="A CSV of measurements becomes a served, measured forecast.", parents=[common]
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, parents=[common])

    upload = command("upload", "Upload a data set and start a run on it")
    upload.add_argument("name", help="what the data set is called: its identifier")
    upload.add_argument("train", type=Path, metavar="TRAIN.csv")
    upload.add_argument("--test", type=Path, metavar="TEST.csv", help="else the last rows of TRAIN.csv are the test")
    upload.add_argument(
        "--replace",
        action="store_true",
        help="put a file with other columns or far fewer rows in the place of the last",
    )
    _add_run_options(upload)

    retrain = command("retrain", "Start a run on the newest upload of a data set")
    retrain.add_argument("name")
    retrain.add_argument("--salt", help="any text; another text computes everything afresh")
    _add_run_options(retrain)

    runs = command("runs", "List the newest runs")
    runs.add_argument("--identifier", help="only those of this data set")
    runs.add_argument("--limit", type=_positive, default=20)

    command("datasets", "List the data sets")
    command("models", "List the champions that are served")

    follow = command("follow", "Show a run live until it ends")
    follow.add_argument("run", nargs="?", help="the run's id")
    follow.add_argument("--last", action="store_true", help="the newest run")
    follow.add_argument("--identifier", help="with --last: the newest run of this data set")

    why = command("why", "Show a run's scoreboard and why it was decided so")
    why.add_argument("run", metavar="RUN|NAME", help="a run's id, or a data set for its last decided run")
    why.add_argument("--targets", action="store_true", help="each target's error, too")
    why.add_argument("--step", type=_positive, default=1, help="with --targets: steps ahead")

    forecast = command("forecast", "Ask the champion for a forecast")
    forecast.add_argument("name")
    forecast.add_argument(
        "--horizon",
        type=_positive,
        help=f"steps ahead; else the champion's horizon, {DEFAULT_HORIZON} if that is a single step",
    )
    forecast.add_argument(
        "--csv",
        type=Path,
        metavar="FILE",
        help="the rows to go on from; else the last uploaded ones, which the server has stored",
    )
    forecast.add_argument(
        "--rows",
        type=_positive,
        help=f"number of last rows to send; else none if they are stored; else {DEFAULT_ROWS} or as many as needed",
    )
    forecast.add_argument(
        "--future",
        type=Path,
        metavar="FILE",
        help="the values of the columns known ahead (FUTURE_COLUMNS), at the times of the forecast",
    )
    forecast.add_argument(
        "--ignore", action="append", default=[], metavar="COLUMN", help="leave a column of --csv and --future out"
    )
    forecast.add_argument("--target", action="append", default=[], help="show only this target; may be repeated")
    forecast.add_argument(
        "--quantiles",
        type=_levels,
        default=[],
        metavar="P,P,...",
        help="probabilities between 0 and 1, such as 0.1,0.9: show these quantiles instead of the interval",
    )
    forecast.add_argument("--plot", type=_picture, metavar="FILE.png", help="write a picture, too")

    _add_operations(command)
    for add in further:
        add(command)
    return parser


def parse_settings(pairs: list[str]) -> dict[str, str | float | bool]:
    """Return the texts of ``--set`` as settings: ``["EPOCHS=5"]`` becomes ``{"EPOCHS": 5}``.

    Raises
    ------
    ValueError
        If a text is not ``NAME=VALUE``.
    """
    settings: dict[str, str | float | bool] = {}
    for pair in pairs:
        name, mark, text = pair.partition("=")
        if not mark or not name.strip():
            msg = f"--set takes NAME=VALUE, for example EPOCHS=5; got {pair!r}"
            raise ValueError(msg)
        settings[name.strip().upper()] = _value(text.strip())
    return settings


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        msg = f"{number} is not a positive number"
        raise argparse.ArgumentTypeError(msg)
    return number


def _levels(text: str) -> list[float]:
    levels = [float(part) for part in text.split(",")]
    for level in levels:
        if not 0 < level < 1:
            msg = f"{level:g} is not between 0 and 1"
            raise argparse.ArgumentTypeError(msg)
    return levels


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in PICTURES:
        msg = f"{text}: the ending says the format, one of {', '.join(PICTURES)}"
        raise argparse.ArgumentTypeError(msg)
    return path


def _value(text: str) -> str | float | bool:
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting for this run; may be repeated"
    )
    parser.add_argument("--force", action="store_true", help="compute again what an earlier run has computed")
    _add_reason(parser)
    parser.add_argument("--follow", action="store_true", help="show the run live until it ends")


def _add_reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", help="reason, kept with the record; `flts why` shows it")


def _add_operations(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    evaluate = command("evaluate", "Judge the models of a run again, as a run of its own")
    evaluate.add_argument("run", help="the run whose models are judged again")
    evaluate.add_argument("--follow", action="store_true", help="show the run live until it ends")
    _add_reason(evaluate)

    cancel = command("cancel", "End a run without a decision")
    cancel.add_argument("run")
    _add_reason(cancel)

    rollback = command("rollback", "Make an earlier champion the current one again")
    rollback.add_argument("name")
    rollback.add_argument("--to", metavar="RUN", help="the run whose champion returns; else the one before the current")
    rollback.add_argument("--follow", action="store_true", help="show the run live until it ends")
    _add_reason(rollback)

    resume = command("resume", "Announce unfinished runs again")
    resume.add_argument("run", nargs="?", help="only this run, however short its silence")
    resume.add_argument("--older-than-seconds", type=float, help="silence that counts as stuck; 900 unless given")
    _add_reason(resume)
