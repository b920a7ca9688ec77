from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from flts.bundle.format import Bundle
from flts.errors import RejectedError
from tests.linear_models import linear_bundle
from tests.training_sets import made_series


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return linear_bundle(made_series(200))[0]


def edited(bundle: Bundle, **changes: object) -> bytes:
    document = json.loads(bundle.to_json())
    document.update(changes)
    return json.dumps(document).encode()


def test_a_bundle_is_read_back_to_the_last_bit(bundle: Bundle) -> None:
    again = Bundle.from_json(bundle.to_json())

    assert again.to_json() == bundle.to_json()
    assert again.recipe.offset == bundle.recipe.offset
    assert again.intervals is not None
    assert bundle.intervals is not None
    assert np.array_equal(again.intervals.lower, bundle.intervals.lower)
    assert again.probe == bundle.probe


def test_the_text_holds_no_times_and_no_run_ids(bundle: Bundle) -> None:
    names = set(json.loads(bundle.to_json()))

    assert not {name for name in names if "time" in name or "run" in name or "created" in name}


def test_an_unknown_format_version_is_refused_by_its_number(bundle: Bundle) -> None:
    with pytest.raises(RejectedError, match="unknown format version 3") as refused:
        Bundle.from_json(edited(bundle, format_version=3))
    assert refused.value.code == "bad_bundle"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"surprise": 1}, "surprise"),
        ({"identifier": "../etc"}, "identifier"),
        ({"model_sha256": "0"}, "model_sha256"),
        ({"input_seq_len": 0}, "input_seq_len"),
        ({"rows_required": 1}, "rows_required"),
        ({"targets": ["c0"]}, "targets are not the recipe's"),
        ({"reason": "all_constant"}, "all_constant"),
        ({"recipe": {"version": 99}}, "recipe version"),
        ({"recipe": []}, "recipe"),
        ({"model_size": 2**40}, "model_size"),
        ({"probe": {"inputs": [], "outputs": []}}, "probe"),
        ({"probe": {"inputs": [[1.0]], "outputs": [[1.0]]}}, "probe"),
        ({"metrics": {"val_loss": "good"}}, "metrics"),
    ],
)
def test_a_document_that_contradicts_itself_is_refused_naming_the_part(
    bundle: Bundle, change: dict[str, object], reason: str
) -> None:
    with pytest.raises(RejectedError, match=reason) as refused:
        Bundle.from_json(edited(bundle, **change))
    assert refused.value.code == "bad_bundle"


def test_a_model_may_need_more_rows_than_its_window(bundle: Bundle) -> None:
    rows = bundle.rows_required + 5

    assert Bundle.from_json(edited(bundle, rows_required=rows)).rows_required == rows


def test_intervals_of_another_number_of_targets_are_refused(bundle: Bundle) -> None:
    intervals = {"nominal": 0.9, "steps": [1], "lower": [[-1.0]], "upper": [[1.0]]}

    with pytest.raises(RejectedError, match="interval quantiles"):
        Bundle.from_json(edited(bundle, intervals=intervals))


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"format_version": NaN}', b"PK\x03\x04", b"\x80\x04}."])
def test_what_is_no_json_document_is_refused(data: bytes) -> None:
    with pytest.raises(RejectedError) as refused:
        Bundle.from_json(data)
    assert refused.value.code == "bad_bundle"


def test_numbers_that_are_not_finite_are_neither_written_nor_read(bundle: Bundle) -> None:
    with pytest.raises(RejectedError, match="not finite"):
        replace(bundle, metrics={"val_loss": float("nan")}).to_json()
    with pytest.raises(RejectedError, match="NaN is not a finite number"):
        Bundle.from_json(edited(bundle, metrics={"val_loss": float("nan")}))
    huge = bundle.to_json().replace(b'"val_loss":0.5', b'"val_loss":1e999')
    with pytest.raises(RejectedError, match="metrics"):
        Bundle.from_json(huge)


def test_a_bundle_of_many_megabytes_is_refused_unread() -> None:
    with pytest.raises(RejectedError, match="more than"):
        Bundle.from_json(b" " * (9 * 2**20))
