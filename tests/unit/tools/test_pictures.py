from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from PIL import Image

from tools import pictures
from tools.pictures import HORIZON_STEPS, SENT_ROWS, TARGET, Shown, draw_forecast, draw_lines, save, split_rows

ROWS = SENT_ROWS + HORIZON_STEPS
TIMES = [(datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=10 * row)).isoformat() for row in range(ROWS)]


def test_the_forecast_is_drawn_beside_the_rows_that_the_request_left_out() -> None:
    rows = {"index_col": "time", "data": {"time": TIMES, TARGET: [float(row) for row in range(ROWS)]}}

    before, after = split_rows(rows, HORIZON_STEPS)

    predictions = [{TARGET: 1.0, f"{TARGET}_lower": 0.0, f"{TARGET}_upper": 2.0}] * HORIZON_STEPS
    axis = draw_forecast(Shown([], before, after, {"model_type": "GRU", "predictions": predictions})).axes[0]
    lines = {str(line.get_label()): list(line.get_ydata()) for line in axis.lines}
    assert lines["measured"][-1] == SENT_ROWS - 1
    assert lines["measured later (held out)"] == [float(row) for row in range(SENT_ROWS, ROWS)]
    assert lines["forecast"][1:] == [1.0] * HORIZON_STEPS


def test_a_long_line_is_wrapped_as_a_terminal_wraps_it(tmp_path: Path) -> None:
    figure = draw_lines(["$ flts why sample", "", "x" * (pictures.COLUMNS + 1)])

    assert [text.get_text() for text in figure.texts] == ["$ flts why sample", "", "x" * pictures.COLUMNS, "x"]
    path = save(figure, tmp_path / "lines.png")
    with Image.open(path) as image:
        assert image.width == round(pictures.WIDTH_INCHES * pictures.DPI)
