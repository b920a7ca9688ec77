"""The form of a data set's files is stored where requests cannot be written so anyway."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flts.errors import RejectedError
from flts.forecasting.file_form import FileForm
from flts.times import TimeFormat

PLAIN = FileForm("time", TimeFormat("YYYY-MM-DD HH:mm:ss"))


@pytest.mark.parametrize(
    "pattern", ["YYYY-MM-DD", "YYYY-MM-DDTHH:mm", "YYYY-MM-DDTHH:mm:ssZ", "YYYY-MM-DDTHH:mm:ss+00:00", "epoch"]
)
def test_iso_and_epoch_seconds_are_plain(pattern: str) -> None:
    assert replace(PLAIN, time_format=TimeFormat(pattern)).is_plain


@pytest.mark.parametrize(
    "form",
    [
        replace(PLAIN, time_format=TimeFormat("DD/MM/YYYY")),
        replace(PLAIN, time_format=TimeFormat("YYYY-MM")),
        replace(PLAIN, time_format=TimeFormat("YYYY-MM-DDTHH:mm:ss.SSS")),
        replace(PLAIN, time_format=TimeFormat("YYYY-MM-DD", "Europe/Berlin")),
        replace(PLAIN, time_format=TimeFormat("YYYY-MM-DDTHH:mm:ss+00:00", offset_seconds=7200)),
        replace(PLAIN, time_format=TimeFormat("epoch ms")),
        replace(PLAIN, decimal=","),
        replace(PLAIN, thousands="space"),
        replace(PLAIN, missing=("x",)),
    ],
)
def test_another_form_is_not_plain_and_survives_json(form: FileForm) -> None:
    assert not form.is_plain
    assert FileForm.from_dict(form.to_dict()) == form


@pytest.mark.parametrize(
    "change",
    [{"time_column": 1}, {"decimal": None}, {"missing": [1]}, {"time_format": {"pattern": "?"}}, {"missing": 3}],
)
def test_a_stored_form_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(RejectedError) as refused:
        FileForm.from_dict({**PLAIN.to_dict(), **change})

    assert (refused.value.code, refused.value.field) == ("bad_recipe", "form")
