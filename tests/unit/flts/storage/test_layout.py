from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flts.contracts.ids import IDENTIFIER_PATTERN
from flts.storage import layout
from flts.storage.keys import check_key
from flts.storage.layout import Key

ROOT = Path(__file__).resolve().parents[4]
RUN = "0197f000-0000-7000-8000-000000000001"
EVENT = "5b2c0000-0000-5000-8000-000000000002"
MODEL = "f" * 32
GOLDEN = {
    "PROBE": (("x",), "_probe/x"),
    "UPLOAD": (("PobleSec", "ab12", "train"), "PobleSec/ab12/train.csv"),
    "INCOMING": (("PobleSec", "test"), "_incoming/PobleSec/test.csv"),
    "TRAIN_ROWS": (("PobleSec", "cd34"), "PobleSec/cd34/processed_data.parquet"),
    "TRAIN_META": (("PobleSec", "cd34"), "PobleSec/cd34/processed_data.meta.json"),
    "TEST_ROWS": (("PobleSec", "cd34"), "PobleSec/cd34/test_processed_data.parquet"),
    "TEST_META": (("PobleSec", "cd34"), "PobleSec/cd34/test_processed_data.meta.json"),
    "HISTORY": (("PobleSec", "cd34"), "PobleSec/cd34/history.rows"),
    "RAW_TEST_ROWS": (("PobleSec", "cd34"), "PobleSec/cd34/raw_test_data.parquet"),
    "MODEL": (("PobleSec", "cd34", "GRU", "ef56"), "PobleSec/cd34/GRU/ef56/model.onnx"),
    "BUNDLE": (("PobleSec", "cd34", "GRU", "ef56"), "PobleSec/cd34/GRU/ef56/bundle.json"),
    "CURRENT": (("PobleSec",), "PobleSec/current.json"),
    "CURRENT_OF_CONFIG": (("PobleSec", "cd34"), "PobleSec/cd34/current.json"),
    "FORECASTS": (("PobleSec", "2026-01-31", f"{RUN}.parquet"), f"PobleSec/date=2026-01-31/{RUN}.parquet"),
    "RUN": (("PobleSec", RUN), f"PobleSec/{RUN}/run.json"),
    "ANNOUNCED": (("PobleSec", RUN), f"PobleSec/{RUN}/announced.json"),
    "STAGE": (("PobleSec", RUN, "train-gru"), f"PobleSec/{RUN}/stages/train-gru.json"),
    "EXPECTED": (("PobleSec", RUN), f"PobleSec/{RUN}/expected.json"),
    "TRAINED": (("PobleSec", RUN, "GRU"), f"PobleSec/{RUN}/trained/GRU.json"),
    "SCOREBOARD": (("PobleSec", RUN, "ab12"), f"PobleSec/{RUN}/scoreboard-ab12.json"),
    "PROVISIONAL": (("PobleSec", RUN), f"PobleSec/{RUN}/provisional.json"),
    "REFITTED_BUNDLE": (("PobleSec", "cd34", "GRU", "ef56"), "PobleSec/cd34/GRU/ef56/refit/bundle.json"),
    "REFIT": (("PobleSec", RUN), f"PobleSec/{RUN}/refit.json"),
    "DECISION": (("PobleSec", RUN), f"PobleSec/{RUN}/decision.json"),
    "OUTCOME": (("PobleSec", RUN), f"PobleSec/{RUN}/outcome.json"),
    "INFERENCE": (("PobleSec", RUN), f"PobleSec/{RUN}/inference.json"),
    "FORECAST": (("PobleSec", RUN), f"PobleSec/{RUN}/forecast.json"),
    "ATTEMPT": (("PobleSec", RUN, "train-gru", EVENT, "3"), f"PobleSec/{RUN}/attempts/train-gru/{EVENT}-3.json"),
    "JOB": (("PobleSec", "ab12"), "PobleSec/jobs/ab12.json"),
    "INDEX_MARK": ((RUN, "PobleSec"), f"_index/{RUN}/PobleSec"),
    "OPEN_MARK": ((RUN, "PobleSec"), f"_open/{RUN}/PobleSec"),
    "FORECAST_MARK": ((RUN, "PobleSec"), f"_forecasts/{RUN}/PobleSec"),
    "LEASE": (("janitor-round",), "_leases/janitor-round.json"),
    "DELETED": (("PobleSec",), "_deleted/PobleSec.json"),
    "OPERATION": (("_all", RUN), f"_operations/_all/{RUN}.json"),
    "IDEMPOTENCY": (("ab12",), "_idempotency/ab12.json"),
    "REPLAY": (("train-gru", "0-17-ab12"), "_dead-letters/train-gru/replayed/0-17-ab12.json"),
    "SPOOLED_RUN": ((MODEL,), f"_spool/{MODEL}.json"),
    "SPOOLED_ADDITION": ((MODEL, "0123456789ab"), f"_spool/{MODEL}-0123456789ab.json"),
    "SPOOLED_CHAMPION": (("PobleSec",), "_spool/champion-PobleSec.json"),
    "SPOOLED_FORGET": (("PobleSec",), "_spool/forget-PobleSec.json"),
    "SPOOLED": (("forget-PobleSec",), "_spool/forget-PobleSec.json"),
    "SPOOL_REJECTED": (("champion-PobleSec",), "_spool_rejected/champion-PobleSec.json"),
}
KEYS = {name: key for name, key in vars(layout).items() if isinstance(key, Key)}
PARTS = {
    "identifier": st.from_regex(IDENTIFIER_PATTERN, fullmatch=True),
    "part": st.sampled_from(["train", "test"]),
    "number": st.integers(1, 99).map(str),
}
OTHERS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_=.]{0,40}", fullmatch=True)


@pytest.mark.parametrize("name", sorted(KEYS))
def test_a_key_is_the_one_that_stores_of_earlier_releases_have(name: str) -> None:
    values, expected = GOLDEN[name]

    assert KEYS[name](*values) == expected


def test_every_key_of_an_earlier_release_is_still_known() -> None:
    assert sorted(KEYS) == sorted(GOLDEN)


@given(name=st.sampled_from(sorted(KEYS)), data=st.data())
def test_a_key_says_what_it_was_made_of(name: str, data: st.DataObject) -> None:
    key = KEYS[name]
    values = {part: data.draw(PARTS.get(part, OTHERS), label=part) for part in key.parts}

    made = key(*values.values())

    assert key.parse(made) == values
    assert check_key(made) == made
    assert all(made.startswith(key.prefix(*list(values.values())[:count])) for count in range(len(values)))


def test_a_key_of_another_form_says_nothing() -> None:
    assert layout.CURRENT.parse("PobleSec/cd34/current.json") is None
    assert layout.UPLOAD.parse("_incoming/PobleSec/train.csv") is None
    assert layout.UPLOAD.parse("PobleSec/ab12/other.csv") is None


def test_a_missing_part_makes_no_key() -> None:
    with pytest.raises(ValueError, match="shorter"):
        layout.CURRENT_OF_CONFIG("PobleSec")


def test_what_lies_beside_and_below_is_found() -> None:
    assert layout.below("PobleSec", RUN) == f"PobleSec/{RUN}/"
    assert layout.beside("a/b/bundle.json", "model.onnx") == "a/b/model.onnx"
    assert layout.run_of(f"PobleSec/{RUN}/attempts/g/e-1.json") == RUN
    assert layout.config_of("PobleSec/cd34/GRU/ef56/model.onnx") == "cd34"
    assert layout.bundle_folder_of("PobleSec/cd34/GRU/ef56/model.onnx") == "PobleSec/cd34/GRU/ef56"
    assert layout.bundle_folder_of("PobleSec/cd34/processed_data.parquet") is None
    assert layout.day_of("PobleSec/date=2026-01-31/x.jsonl") == date(2026, 1, 31)
    assert layout.day_of("PobleSec/date=2026-02-31/x.jsonl") is None
    assert layout.day_of("PobleSec/x.jsonl") is None


def literals() -> Iterator[str]:
    """Yield the parts of each key that are fixed names, such as ``/stages/`` and ``_index/``."""
    for key in KEYS.values():
        for piece in re.split(r"{\w+}", key.form):
            if "/" in piece and len(piece) > 1:
                yield piece


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the strings of a module without docstrings, with ``*`` for the computed parts of an f-string."""
    tree = ast.parse(path.read_text())
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if id(node) in docs | inside:
            continue
        if isinstance(node, ast.JoinedStr):
            pieces = (part.value if isinstance(part, ast.Constant) else "*" for part in node.values)
            yield node.lineno, "".join(map(str, pieces))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def test_no_other_module_makes_a_key_by_hand() -> None:
    known = "|".join(sorted(map(re.escape, set(literals()))))
    by_hand = re.compile(rf"[^\s]*(?:{known}|^\*/$)[^\s]*")
    folders = ("flts", "cli", "embedded", "*_container")
    products = [path for folder in folders for path in ROOT.glob(f"{folder}/**/*.py")]

    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in products
        # The search leaves out two files: layout.py defines the keys, and filesystem.py handles paths of any form.
        if path.name not in {"layout.py", "filesystem.py"}
        for line, text in texts(path)
        if by_hand.fullmatch(text)
    ]

    assert found == []
