"""The body for /predict that is made from a CSV, and the picture of the answer."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.plot import MOST_PANELS, parse_time, parse_times, plot_forecast
from cli.rows import body_from_csv
from flts.errors import RejectedError
from flts.times import TimeFormat


def write(folder: Path, text: str) -> Path:
    path = folder / "rows.csv"
    path.write_text(text, encoding="utf-8")
    return path


class TestRows:
    def test_the_last_rows_are_a_body(self, tmp_path: Path) -> None:
        path = write(tmp_path, "time,down,up\n" + "".join(f"2024-01-01 00:{m:02d}:00,{m},{m}.5\n" for m in range(60)))

        assert body_from_csv(path, rows=2) == {
            "index_col": "time",
            "data": {
                "time": ["2024-01-01 00:58:00", "2024-01-01 00:59:00"],
                "down": [58.0, 59.0],
                "up": [58.5, 59.5],
            },
        }

    def test_marks_separators_epochs_and_empty_cells_are_understood(self, tmp_path: Path) -> None:
        path = write(tmp_path, "\ufeffTs;a;b\r\n1704067200;1e3;\r\n1704067260;NaN;2\r\n\r\n")

        assert body_from_csv(path, rows=10)["data"] == {
            "Ts": [1704067200, 1704067260],
            "a": [1000.0, None],
            "b": [None, 2.0],
        }

    @pytest.mark.parametrize(
        ("text", "code"),
        [
            ("a,b\n1,2\n", "no_time_column"),
            ("time,date,a\n1,2,3\n", "two_time_columns"),
            ("time,a\n", "no_rows"),
            ("", "empty_file"),
            ("time,a\n1,2,3\n", "ragged_rows"),
            ("time,a\n1,hello\n", "not_a_number"),
            ("time,a\n1,inf\n", "not_a_number"),
            ("time,a\n1,2\n2,3,4\n3,4\n", "ragged_rows"),
        ],
    )
    def test_what_is_no_series_is_refused(self, tmp_path: Path, text: str, code: str) -> None:
        with pytest.raises(RejectedError) as caught:
            body_from_csv(write(tmp_path, text), rows=5)

        assert caught.value.code == code

    def test_rows_at_the_end_without_a_value_are_the_future(self, tmp_path: Path) -> None:
        path = write(tmp_path, "date,a,b\n2024-01-01,1,2\n2024-01-02,3,-\n2024-01-03,,n/a\n2024-01-04,,\n")

        assert body_from_csv(path, rows=3)["data"] == {"date": ["2024-01-02"], "a": [3.0], "b": [None]}

    def test_a_column_can_be_left_out(self, tmp_path: Path) -> None:
        path = write(tmp_path, "time,note,a\n1,hello,2\n")

        assert list(body_from_csv(path, rows=5, ignore=["note"])["data"]) == ["time", "a"]


def request(rows: int = 200, targets: int = 1) -> dict[str, Any]:
    data: dict[str, list[Any]] = {"time": [1_704_067_200 + 120 * row for row in range(rows)]}
    for target in range(targets):
        data[f"target_{target}"] = [1e8 * (2 + math.sin(row / 10)) for row in range(rows)]
    return {"index_col": "time", "data": data}


def answer(steps: int = 60, targets: int = 1, *, bounds: bool = True) -> dict[str, Any]:
    rows = []
    for step in range(steps):
        row: dict[str, Any] = {"ts": 1_704_067_200 + 120 * (200 + step)}
        for target in range(targets):
            mean = 1e8 * (2 + math.sin((200 + step) / 10))
            row |= {
                f"target_{target}": mean,
                f"target_{target}_lower": mean - 2e7 if bounds else None,
                f"target_{target}_upper": mean + 2e7 if bounds else None,
            }
        rows.append(row)
    return {"identifier": "PobleSec", "model_type": "GRU", "run_id": "a" * 32, "predictions": rows}


def size_of(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


class TestPlot:
    def test_a_picture_is_written(self, tmp_path: Path) -> None:
        path = plot_forecast(request(), answer(), tmp_path / "deep" / "forecast.png")

        assert size_of(path) == (1300, 520)

    def test_one_panel_a_target_up_to_four(self, tmp_path: Path) -> None:
        heights = [
            size_of(plot_forecast(request(targets=n), answer(targets=n), tmp_path / f"{n}.png"))[1] for n in (1, 4, 5)
        ]

        assert heights[0] < heights[1] == heights[2]
        assert MOST_PANELS == 4

    def test_it_names_measurement_forecast_interval_time_and_target(self, tmp_path: Path) -> None:
        words = plot_forecast(request(), answer(), tmp_path / "forecast.svg").read_text()

        for word in (
            "measured",
            "forecast",
            "90 % interval",
            "time (UTC)",
            "target_0",
            "PobleSec: 60 steps ahead by GRU",
        ):
            assert f"<!-- {word} -->" in words

    def test_missing_bounds_and_cells_are_left_open(self, tmp_path: Path) -> None:
        body = request()
        body["data"]["target_0"][5:20] = [None] * 15

        words = plot_forecast(body, answer(bounds=False), tmp_path / "forecast.svg").read_text()

        assert "90 % interval" not in words

    @pytest.mark.parametrize(("calibrated", "marked"), [(1, True), (24, True), (60, False), (61, False), (0, False)])
    def test_the_interval_beyond_its_calibration_is_paler(self, tmp_path: Path, calibrated: int, marked: bool) -> None:
        shown = {**answer(), "calibrated_steps": calibrated}

        words = plot_forecast(request(), shown, tmp_path / "forecast.svg").read_text()

        assert ("<!-- not calibrated -->" in words) == marked
        assert "<!-- 90 % interval -->" in words

    def test_quantiles_are_thin_lines_with_one_entry_in_the_legend(self, tmp_path: Path) -> None:
        shown = {**answer(), "quantiles": [0.1, 0.9]}
        for row in shown["predictions"]:
            row |= {f"target_{at}_q{level}": level for at in range(MOST_PANELS) for level in (0.1, 0.9)}

        words = plot_forecast(request(), shown, tmp_path / "forecast.svg").read_text()

        assert words.count("<!-- quantiles -->") == 1

    def test_without_context_the_forecast_stands_alone(self, tmp_path: Path) -> None:
        words = plot_forecast({}, answer(), tmp_path / "forecast.svg").read_text()

        assert "<!-- measured -->" not in words

    def test_an_unknown_target_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="sideways: not a target of this forecast; it has target_0"):
            plot_forecast(request(), answer(), tmp_path / "x.png", targets=["sideways"])

    def test_times_are_utc_whatever_their_form(self) -> None:
        forms = (1_704_067_200, "2024-01-01T00:00:00Z", "2024-01-01 00:00:00", "2024-01-01T01:00:00+01:00")

        assert len({parse_time(form) for form in forms}) == 1
        assert np.isfinite(parse_time(0).timestamp())


@pytest.mark.parametrize(
    ("form", "values", "first"),
    [
        (TimeFormat("YYYY-MM"), ["1960-01", "1960-02"], "1960-01-01 00:00"),
        (TimeFormat("epoch ms"), [1704067200000, 1704067260000], "2024-01-01 00:00"),
        (TimeFormat("DD.MM.YYYY HH:mm", "Europe/Berlin"), ["01.07.2024 12:00", "01.07.2024 13:00"], "2024-07-01 12:00"),
        (TimeFormat("DD.MM.YYYY HH:mm", "Europe/Berlin"), ["2024-07-01T10:00:00Z"], "2024-07-01 12:00"),
        (None, [1704067200], "2024-01-01 00:00"),
    ],
)
def test_times_of_an_answer_are_read_in_its_form(form: TimeFormat | None, values: list[Any], first: str) -> None:
    assert f"{parse_times(values, form)[0]:%Y-%m-%d %H:%M}" == first
