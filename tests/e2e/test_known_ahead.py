"""A data set with columns known ahead, a column that is only measured, and holidays: from upload to forecast."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli.__main__ import main
from tests.known_ahead import DAY, EFFECT, sales
from tests.pipeline import Pipeline

pytestmark = pytest.mark.timeout(300)
ROWS = 400
ROLES = {"FUTURE_COLUMNS": "promotion", "PAST_COLUMNS": "dice", "HOLIDAYS": "DE"}
PROMOTED = [0, 1, 0]
"""Values of the promotion at the steps of the forecast."""


@pytest.fixture(scope="module")
def shop(stack: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the decided run."""
    series = sales(ROWS)
    lines = [
        f"{_day(time):%Y-%m-%d},{sold:.3f},{promotion:.0f},{dice:.3f}"
        for time, (sold, promotion, dice) in zip(series.times.tolist(), series.values.tolist(), strict=True)
    ]
    path = tmp_path_factory.mktemp("known-ahead") / "shop.csv"
    path.write_text("\n".join(["day,sales,promotion,dice", *lines, ""]))
    return stack.wait_decided(stack.upload("shop", path, settings={"EPOCHS": 1, **ROLES}))


def test_a_forecast_uses_the_values_that_are_known_ahead(
    stack: Pipeline, shop: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shop["outcome"] == "promoted", shop["decision"]
    champion = stack.wait_served("shop", shop["decision"]["run_id"])
    assert (champion["targets"], champion["future_columns"]) == (["sales"], ["promotion"])
    question = {**stack.question("shop"), "inference_length": len(PROMOTED)}
    days = [_day(int(sales(ROWS).times[-1]) + DAY * step) for step in range(1, len(PROMOTED) + 1)]
    times = [f"{day:%Y-%m-%d}" for day in days]

    def forecast(future: dict[str, Any]) -> list[float]:
        return [row["sales"] for row in stack.forecast(question | {"future": future})["predictions"]]

    promoted, usual = forecast({"promotion": PROMOTED}), forecast({"promotion": [0, 0, 0]})
    assert [a - b for a, b in zip(promoted, usual, strict=True)] == pytest.approx([0, EFFECT, 0], abs=EFFECT / 4)
    assert forecast({"day": times[::-1], "promotion": PROMOTED[::-1]}) == promoted
    refused = stack.predict(question | {"future": {"promotion": PROMOTED[:2]}})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "missing_future")
    assert f"step 3 of 3 ({times[2]}" in refused.json()["error"]["message"]

    file = tmp_path / "next.csv"
    file.write_text("\n".join(["date,promotion", *map("{},{}".format, times, PROMOTED), ""]))
    command = ["forecast", "shop", "--horizon", "3", "--url", stack.state["gateway_url"], "--api-key", stack.api_key]
    assert main([*command, "--future", str(file)]) == 0
    assert f"{promoted[1]:.5g}" in capsys.readouterr().out
    assert main(command) == 1
    assert "--future FILE.csv sends the values of promotion" in capsys.readouterr().err


def _day(seconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
