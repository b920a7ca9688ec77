"""A file that does not continue a data set does not replace it by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateway import GatewayUnderTest, csv_text, make_gateway


@pytest.fixture
def gateway(tmp_path: Path) -> GatewayUnderTest:
    made = make_gateway(tmp_path)
    assert upload(made, csv_text(300)) == (202, None)
    return made


def upload(gateway: GatewayUnderTest, train: bytes, *, query: str = "", **fields: str) -> tuple[int, str | None]:
    answer = gateway.client().post(f"/datasets/x{query}", files={"train": ("t.csv", train)}, data=fields)
    error = answer.json().get("error") or {}
    return answer.status_code, error.get("message")


def renamed(train: bytes) -> bytes:
    return train.replace(b"down", b"left", 1)


@pytest.mark.parametrize(
    ("train", "says"),
    [
        (renamed(csv_text(300)), "lacks the columns down and adds the columns left"),
        (csv_text(300, step_seconds=60), "has a step of 1 min instead of 2 min"),
        (csv_text(149), "has 149 rows instead of 300"),
    ],
)
def test_other_columns_another_step_or_far_fewer_rows_are_refused_until_they_are_meant(
    gateway: GatewayUnderTest, train: bytes, says: str
) -> None:
    runs = gateway.run_store.runs.of("x")

    status, message = upload(gateway, train)

    assert status == 409
    assert says in str(message)
    assert "--replace" in str(message)
    assert gateway.run_store.runs.of("x") == runs
    assert upload(gateway, train, replace="true") == (202, None)
    assert upload(gateway, train) == (202, None)  # it is the data set now


def test_replace_is_also_read_from_the_address(gateway: GatewayUnderTest) -> None:
    assert upload(gateway, renamed(csv_text(300)), query="?replace=true") == (202, None)


@pytest.mark.parametrize("train", [csv_text(300), csv_text(150), csv_text(900), csv_text(300, seed=4)])
def test_the_same_or_more_of_the_same_is_accepted(gateway: GatewayUnderTest, train: bytes) -> None:
    assert upload(gateway, train) == (202, None)
