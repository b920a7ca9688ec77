"""A tail has rows that the champion knows, on its calendar, with times as the file writes them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from flts.ingest.layout import lay_out
from flts.ingest.reader import read_table
from flts.recipe_settings import RecipeSettings
from flts.settings import UploadLimits, WindowSettings
from flts.storage import layout
from preprocess_container.domain.dataset import make_dataset
from tests.calendar_files import BUSINESS_DAYS, MONTHS
from tests.gateway import GatewayUnderTest, csv_text, make_gateway


@pytest.fixture
def gateway(tmp_path: Path) -> GatewayUnderTest:
    return make_gateway(tmp_path)


def upload(gateway: GatewayUnderTest, train: bytes, **fields: str) -> None:
    answer = gateway.client().post("/datasets/x", files={"train": ("t.csv", train)}, data=fields)
    assert answer.status_code == 202, answer.text


def promote(gateway: GatewayUnderTest, train: bytes, folder: Path) -> None:
    """Write what a promotion leaves behind: the description of the data set, and the pointer to its champion."""
    path = folder / "train.csv"
    path.write_bytes(train)
    settings = RecipeSettings()
    table = read_table(path, limits=UploadLimits(), settings=settings)
    recipe = make_dataset(table, lay_out(table, None, settings), settings, WindowSettings()).recipe
    meta = {
        "raw": {"train": hashlib.sha256(train).hexdigest(), "test": None},
        "recipe": recipe.to_dict(),
        "settings": {"TARGETS": [], "SAMPLE_TRAIN_ROWS": None, "MAX_GAP_STEPS": 12},
    }
    digest = hashlib.sha256(b"config" + train).hexdigest()
    gateway.store.put("processed-data", layout.TRAIN_META("x", digest), json.dumps(meta).encode())
    gateway.store.put("model-promotion", layout.CURRENT("x"), json.dumps({"config_hash": digest}).encode())


def tail(gateway: GatewayUnderTest, rows: int) -> dict[str, list[str]]:
    answer = gateway.client().get("/datasets/x/tail", params={"rows": rows})
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"])


def test_an_upload_of_other_columns_leaves_the_champions_rows_until_it_is_promoted(
    gateway: GatewayUnderTest, tmp_path: Path
) -> None:
    first = csv_text(300)
    other = csv_text(400, seed=9).replace(b"down", b"left", 1)
    upload(gateway, first)
    promote(gateway, first, tmp_path)
    before = tail(gateway, 5)

    upload(gateway, other, replace="true")

    assert tail(gateway, 5) == before
    promote(gateway, other, tmp_path)
    assert list(tail(gateway, 5)) == ["time", "left", "up"]


def test_newer_rows_of_the_same_columns_are_gone_on_from_at_once(gateway: GatewayUnderTest, tmp_path: Path) -> None:
    first = csv_text(300)
    upload(gateway, first)
    promote(gateway, first, tmp_path)

    upload(gateway, csv_text(320))

    assert tail(gateway, 1)["time"] == [csv_text(320).decode().splitlines()[-1].split(",")[0]]


def test_a_few_rows_are_on_the_calendar_of_the_champion(gateway: GatewayUnderTest, tmp_path: Path) -> None:
    train = BUSINESS_DAYS.write(tmp_path).read_bytes()
    upload(gateway, train)
    promote(gateway, train, tmp_path)

    # The last six rows span a weekend.
    assert tail(gateway, 6)["date"] == [line.split(",")[0] for line in train.decode().splitlines()[-6:]]


def test_times_are_written_as_the_file_writes_them(gateway: GatewayUnderTest, tmp_path: Path) -> None:
    lines = MONTHS.write(tmp_path).read_text().splitlines()
    months = "\n".join(["Month,sales", *(f"{line[:7]},{line.split(',')[1]}" for line in lines[1:])]) + "\n"

    upload(gateway, months.encode())

    assert tail(gateway, 3)["Month"] == ["2022-10", "2022-11", "2022-12"]
