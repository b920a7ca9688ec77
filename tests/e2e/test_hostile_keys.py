"""A thousand hostile names, sent unchanged in each path and body of the API that accepts a name."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.files_below import files_below
from tests.raw_http import FORM_TYPE, RawAnswer, form, send
from tests.reports import report
from tests.stack import RunningStack

pytestmark = pytest.mark.timeout(300)

COUNT = 1_000
SEED = 20_260_101
CANARY = b"time,a\n1,2\n# a canary that must not leave the cage\n"
PARTS = [
    *(b"..", b".", b"...", b"%2e%2e", b"%2E%2e", b"%252e%252e", b"%c0%ae%c0%ae", b"..;", b"..%00", b"..%5c"),
    *(b"%00", b"%0a", b"%0d%0aX:1", b"%2f", b"%5c", b"\\", b"%2f..%2f", b"~", b"~root", b"$HOME", b"$(id)", b"`id`"),
    *(b"%E2%80%AEvsc", b"%D8%A7", b"%EF%BB%BF", b"%ff%fe", b"%ed%a0%80", b"%F0%9F%92%A9", b"%7Bx%7D", b"{x}", b"*"),
    *(b"%20", b"+", b"%", b"%zz", b"con", b"nul", b"'", b"%22", b"%3Cscript%3E", b";", b"&", b"=", b"@", b":", b"-rf"),
    *(b"_incoming", b"_probe", b"_deleted", b"_spool", b".git", b"train.csv", b"current.json", b"file:%2f%2f"),
    *(b"a", b"PobleSec", b"%41", b"0" * 32, b"x" * 64, b"x" * 65, b"x" * 1_024, b"", b"http:%2f%2fx"),
    *(b"0199d3f4-0000-7000-8000-000000000000", b"0199d3f4-0000-7000-8000-00000000000/", b"%30199d3f4"),
]
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
Sender = Callable[[RunningStack, bytes], RawAnswer]


def names() -> Iterator[bytes]:
    """Yield each single part, then random names of one to five parts; the seed is fixed."""
    yield from PARTS
    chance = random.Random(SEED)
    for _ in range(COUNT - len(PARTS)):
        joint = chance.choice([b"/", b"/", b"", b"//", b"%2f", b"/../"])
        yield joint.join(chance.choices(PARTS, k=chance.randint(1, 5)))


def key(stack: RunningStack) -> dict[str, str]:
    return {"x-api-key": (stack.home / "api-key").read_text().strip()}


def get(template: bytes) -> Sender:
    def sender(stack: RunningStack, name: bytes) -> RawAnswer:
        return send(stack.state["gateway_url"], "GET", template % name, headers=key(stack))

    return sender


def post(template: bytes, *, body: bytes = b"") -> Sender:
    def sender(stack: RunningStack, name: bytes) -> RawAnswer:
        return send(stack.state["gateway_url"], "POST", template % name, headers=key(stack), body=body)

    return sender


def upload(stack: RunningStack, name: bytes) -> RawAnswer:
    headers = {**key(stack), "Content-Type": FORM_TYPE}
    return send(
        stack.state["gateway_url"],
        "POST",
        b"/datasets/" + name,
        headers=headers,
        body=b"".join(form("train", [CANARY])),
    )


def in_a_body(url: str, path: str) -> Sender:
    """Return a sender that puts the name into JSON as the identifier, decoded as Latin-1."""

    def sender(stack: RunningStack, name: bytes) -> RawAnswer:
        document = {"identifier": name.decode("latin-1").replace("%00", "\0").replace("%E2%80%AE", "\u202e")}
        if path == "/predict":
            document |= {"data": {}}
        headers = {**key(stack), "Content-Type": "application/json"}
        return send(stack.state[url], "POST", path, headers=headers, body=json.dumps(document).encode())

    return sender


PLACES: dict[str, Sender] = {
    "POST /upload/raw-data/{}/train.csv": post(b"/upload/raw-data/%s/train.csv", body=CANARY),
    "POST /upload/raw-data/{}": post(b"/upload/raw-data/%s", body=CANARY),
    "POST /upload/{}/x/train.csv": post(b"/upload/%s/x/train.csv", body=CANARY),
    "GET /download/raw-data/{}": get(b"/download/raw-data/%s"),
    "GET /download/{}/train.csv": get(b"/download/%s/train.csv"),
    "GET /runs/{}": get(b"/runs/%s"),
    "GET /runs/{}/events": get(b"/runs/%s/events"),
    "POST /runs/{}/cancel": post(b"/runs/%s/cancel"),
    "GET /datasets/{}/tail": get(b"/datasets/%s/tail"),
    "POST /datasets/{}": upload,
    "POST /datasets/{}/rollback": post(b"/datasets/%s/rollback"),
    "GET /runs?identifier={}": get(b"/runs?identifier=%s"),
    "POST /runs, in the body": in_a_body("gateway_url", "/runs"),
    "POST /predict, in the body": in_a_body("inference_url", "/predict"),
}
NOT_HTTP = b"Invalid HTTP request received."
"""Body of the HTTP server's answer to an invalid request line, which does not reach the application."""


def test_a_thousand_hostile_names_reach_nothing_and_break_nothing(stack: RunningStack) -> None:
    before = outside(stack)
    found: Counter[tuple[str, int]] = Counter()
    wrong: list[str] = []
    places = list(PLACES.items())

    for at, name in enumerate(names()):
        # The first len(PARTS) names consist of a single part, and the test sends each of them to every place. It sends
        # each later, generated name to one place only, because all pairs would take too long.
        chosen = places if at < len(PARTS) else [places[at % len(places)]]
        for place, sender in chosen:
            answer = sender(stack, name)
            found[place, answer.status] += 1
            if (problem := wrong_with(answer)) is not None:
                wrong.append(f"{place} with {name[:80]!r}: {answer.status} {problem}")
    report(
        "hostile names",
        [{"place": place, "status": status, "answers": n} for (place, status), n in sorted(found.items())],
    )

    assert sum(found.values()) >= COUNT
    assert not wrong, "\n".join(wrong[:20])
    assert outside(stack) == before
    assert strays(stack) == []
    with stack.gateway as client:
        assert client.get("/datasets").status_code == 200


def wrong_with(answer: RawAnswer) -> str | None:
    """Return the problem of an answer, or None: errors have the common form, and 503 is the only status above 499."""
    if answer.status >= 500 and answer.status != 503:
        return answer.body[:200].decode("latin-1")
    if answer.status == 400 and answer.body == NOT_HTTP:
        return None
    if answer.status < 400:
        return None if answer.status != 200 or b"root:" not in answer.body else "a file of the system"
    try:
        error = answer.error
    except (ValueError, AssertionError) as problem:
        return f"{problem}: {answer.body[:200]!r}"
    return None if len(json.dumps(error)) < 2_000 else "an error as long as what was sent"


def outside(stack: RunningStack) -> dict[str, list[str]]:
    """Return the uploaded file names in the store's folder and its parents, where a name with dots could lead."""
    folders = [stack.store, *list(stack.store.parents)[:-1]]
    ours = re.compile(r"train\.csv|current\.json")
    return {str(folder): sorted(path.name for path in folder.iterdir() if ours.search(path.name)) for folder in folders}


def strays(stack: RunningStack) -> list[str]:
    """Return the files with the canary that are outside of the folders for uploads with a valid name."""
    found = []
    for path in files_below(stack.home):
        if not path.is_file() or path.stat().st_size > 10 * len(CANARY) or CANARY not in path.read_bytes():
            continue
        parts = path.relative_to(stack.home).parts
        landed = parts[:2] == ("store", "raw-data") and parts[-1] in {"train.csv", "test.csv"}
        identifier = parts[3] if parts[2:3] == ("_incoming",) else parts[min(2, len(parts) - 1)]
        if not (landed and IDENTIFIER.fullmatch(identifier)):
            found.append(str(Path(*parts)))
    return found
