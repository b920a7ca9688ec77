"""The exact text that the command line prints."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from cli import render
from cli.client import RunEvent
from cli.follow import PlainLines, apply_event
from cli.text import duration, number, table
from tests.gateway import horizon_scoreboard, scoreboard

RUN = "0199d3f4-0000-7000-8000-000000000001"
VIEW: dict[str, Any] = {
    "pipeline_run_id": RUN,
    "identifier": "PobleSec",
    "state": "finished",
    "outcome": "promoted",
    "outcome_details": {"outcome": "promoted", "at": "2024-01-01T00:00:40.000Z"},
    "created_at": "2024-01-01T00:00:00Z",
    "elapsed_seconds": 40.0,
    "stages": [
        {
            "stage": "upload",
            "status": "done",
            "start": "2024-01-01T00:00:00Z",
            "end": "2024-01-01T00:00:02Z",
            "seconds": 2.0,
        },
        {
            "stage": "train-gru",
            "status": "done",
            "start": "2024-01-01T00:00:04Z",
            "end": "2024-01-01T00:00:34Z",
            "seconds": 30.0,
        },
        {
            "stage": "train-lstm",
            "status": "done",
            "reused": True,
            "start": "2024-01-01T00:00:04Z",
            "end": "2024-01-01T00:00:24Z",
            "seconds": 20.0,
        },
        {
            "stage": "eval",
            "status": "started",
            "start": "2024-01-01T00:00:34Z",
            "end": None,
            "seconds": 6.0,
        },
    ],
    "progress": {
        "train-gru": {"stage": "train-gru", "state": "training", "epoch": 10, "epochs": 10, "loss": 0.012345},
        "nonml-prophet": {"stage": "nonml-prophet", "state": "training", "detail": "down", "elapsed": 75.2},
    },
    "scoreboard": scoreboard("PobleSec", RUN),
    "decision": {"decision": "promoted", "model_type": "GRU", "reasons": ["best_score: GRU scores 0.02"]},
}


def text(lines: list[str]) -> str:
    return "\n".join(lines)


def test_progress_is_a_table_of_stages() -> None:
    shown = render.run_progress(VIEW, now=datetime(2024, 1, 1, 0, 0, 44, tzinfo=UTC))

    assert (
        text(shown)
        == f"""\
run {RUN} on PobleSec: promoted, 40.0 s
stage          state          epoch     loss     elapsed
-------------  -------------  -----  -------  ----------
upload         done                                2.0 s
train-gru      done           10/10  0.01235      30.0 s
train-lstm     done (reused)                      20.0 s
eval           started                            10.0 s
nonml-prophet  training                       1 min 15 s"""
    )


def test_the_scoreboard_shows_the_best_first_with_reference_rows_and_the_gate() -> None:
    assert (
        text(render.scoreboard_table(VIEW))
        == """\
   model            score     RMSE      MAE      MSE   skill  coverage  trained in  gate
-  -------------  -------  -------  -------  -------  ------  --------  ----------  --------
*  GRU            0.02000  0.02000  0.01000  0.00040  +0.500      0.88  1 min 11 s  promoted
   LSTM (reused)  0.02500  0.02500  0.01250  0.00063  +0.375      0.75      12.5 s  passed
   ridge          0.03000  0.03000  0.01500  0.00090  +0.250         -              baseline
   persistence    0.04000  0.04000  0.02000  0.00160  +0.000         -              baseline
   PROPHET        0.05000  0.05000  0.02500  0.00250  -0.250      0.90       3.2 s  no_skill
score = 0.5 RMSE + 0.3 MAE + 0.2 MSE, scaled, mean over 2 target(s), step(s) ahead: 1; \
3,972 forecasts on 3,982 held-out rows; lower is better"""
    )


DAY = [(1, 1), (2, 3), (4, 7), (8, 15), (16, 24), (1, 24)]
WEEK = [(1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, 63), (64, 127), (128, 168), (1, 24), (1, 168)]


def test_a_scoreboard_over_the_horizon_shows_blocks_of_steps_and_the_best_baseline() -> None:
    board = horizon_scoreboard(horizon=24, blocks=DAY)

    assert (
        text(render.scoreboard_table({"scoreboard": board}))
        == """\
   model           score   skill     1   2-3  8-15  16-24  gate
-  --------------  -----  ------  ----  ----  ----  -----  ------------------
*  GRU             0.800  +0.500  0.80  0.81  0.83   0.84  promoted
   LSTM            0.820  +0.480  0.82  0.83  0.85   0.86  passed
   LINEAR          0.970  +0.350  0.97  0.98  1.00   1.01  skill_within_noise
   seasonal-naive  1.000  +0.300  1.00  1.01  1.03   1.04  best baseline
   ARIMA           1.100  +0.200  1.10  1.11  1.13   1.14  worse_block
   PROPHET         1.500  +0.100  1.50  1.51  1.53   1.54  no_skill
   persistence     1.600  +0.000  1.60  1.61  1.63   1.64  baseline
   HOLT            2.000  -0.250  2.00  2.01  2.03   2.04  no_skill
   mean            2.500  -0.500  2.50  2.51  2.53   2.54  baseline
score: mean error at steps 1 to 24, in units of the error of seasonal-naive at
  the same step; 1 = best baseline, lower is better; error = 0.5 RMSE + 0.3 MAE
  + 0.2 MSE, scaled
1, 2-3, 8-15, 16-24: the score of these steps
skill: share of the error of persistence that is saved
2 target(s), 3,972 forecasts on 3,982 held-out rows"""
    )


def test_a_scoreboard_of_one_step_has_no_blocks() -> None:
    lines = render.scoreboard_table({"scoreboard": horizon_scoreboard(horizon=1, blocks=[(1, 1)])})

    assert lines[0].split() == ["model", "score", "skill", "RMSE", "coverage", "gate"]
    assert lines[2].split() == ["*", "GRU", "0.800", "+0.500", "0.10000", "0.88", "promoted"]
    assert "mean error at step 1," in text(lines)
    assert "of these steps" not in text(lines)


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (60, ""),
        (80, "skill 1 128-168"),
        (97, "skill 1 2-3 128-168 1-24"),
        (98, "skill 1 2-3 64-127 128-168 1-24"),
        (200, "skill 1 2-3 4-7 8-15 16-31 32-63 64-127 128-168 1-24 RMSE MAE MSE coverage trained in"),
    ],
)
def test_blocks_in_the_middle_of_a_long_horizon_are_left_out_until_the_table_fits(width: int, columns: str) -> None:
    board = horizon_scoreboard(horizon=168, blocks=WEEK)
    board["champion"] = {**board["candidates"][1], "model_type": "SEASONAL_NAIVE", "reasons": []}

    lines = render.scoreboard_table({"scoreboard": board}, width=width)

    assert lines[0].split() == ["model", "score", *columns.split(), "gate"]
    assert max(map(len, lines)) <= width


def test_a_served_baseline_is_marked_with_the_reason() -> None:
    board = horizon_scoreboard(horizon=24, blocks=DAY, winner="SEASONAL_NAIVE")
    reason = "no model passes the gate, so the best baseline is served: SEASONAL_NAIVE"
    decision = {"decision": "promoted", "model_type": "SEASONAL_NAIVE", "reasons": [f"baseline: {reason}"]}
    view = {"scoreboard": board, "decision": decision}

    [marked] = [line for line in render.scoreboard_table(view) if line.startswith("*")]
    assert marked.split()[1] == "seasonal-naive"
    assert marked.endswith("promoted baseline")
    assert render.decision_lines(view)[:3] == [
        "promoted: SEASONAL_NAIVE (baseline)",
        f"  - {reason}",
        "  - PROPHET: no_skill of PROPHET",
    ]


def test_a_block_or_a_run_without_a_score_has_a_dash() -> None:
    board = horizon_scoreboard(horizon=24, blocks=DAY)
    board["candidates"][0]["blocks"][1] = None
    board["candidates"][1] = {"model_type": "LSTM", "passed": False, "reasons": [], "status": "missing"}

    lines = render.scoreboard_table({"scoreboard": board})
    assert lines[2].split()[4:6] == ["0.80", "-"]
    assert next(line for line in lines if "LSTM" in line).split()[1:7] == ["-"] * 6

    nothing = {**board, "best_baseline": None, "blocks": [], "candidates": [board["candidates"][1]], "references": []}
    lines = render.scoreboard_table({"scoreboard": nothing})
    assert lines[2].split() == ["LSTM", *["-"] * 6, "not", "passed"]
    assert lines[3] == "no model was scored"


def test_scored_steps_that_are_not_all_of_the_horizon_are_named() -> None:
    board = {**horizon_scoreboard(horizon=24, blocks=DAY), "score_horizons": [1, 12, 24]}

    assert "mean error at steps 1, 12, 24, in units" in text(render.scoreboard_table({"scoreboard": board}))


@pytest.mark.parametrize(
    ("seasons", "shown"),
    [
        ([24, 168], "held-out rows; seasons: 24, 168 steps in the training rows"),
        ([], "held-out rows; no season found in the training rows"),
        (None, "held-out rows"),
    ],
)
def test_the_seasons_of_the_training_rows_are_named(seasons: list[int] | None, shown: str) -> None:
    board = horizon_scoreboard(horizon=24, blocks=DAY) | ({} if seasons is None else {"seasons": seasons})

    assert " ".join(text(render.scoreboard_table({"scoreboard": board})).split()).endswith(shown)


def test_targets_are_shown_one_by_one_in_their_own_unit() -> None:
    assert (
        text(render.target_table(VIEW))
        == """\
RMSE per target in its own unit, 1 step(s) ahead
target  LSTM  GRU  PROPHET  persistence  ridge
------  ----  ---  -------  -----------  -----
down      25   20       50           40     30
up      0.25  0.2      0.5          0.4    0.3"""
    )
    assert text(render.target_table(VIEW, step=10)).splitlines()[-1] == (
        "down      50   40      100           80     60"
    )


def test_the_decision_names_the_gates_reasons_and_warnings() -> None:
    assert render.decision_lines(VIEW) == [
        "promoted: GRU",
        "  - GRU scores 0.02",
        "  ! LSTM: intervals cover less than promised",
        "  - PROPHET: its skill against persistence is -0.2500",
    ]


def test_many_series_are_shown_in_short() -> None:
    board = horizon_scoreboard(horizon=24, blocks=DAY)
    board["series"] = 1_000
    [won] = [row for row in board["candidates"] if row["model_type"] == board["winner"]]
    won["series"] = {"scored": 998, "better": 900, "quantiles": {"0.5": 0.7}, "worst": {"s8": 1.5, "s3": 1.25}}

    shown = " ".join(render.scoreboard_table({"scoreboard": board}))

    assert "1,000 series: better than the best baseline's mean on 900 of 998" in shown
    assert "quantiles of the score 50% 0.70; worst s8 1.50, s3 1.25" in shown
    assert "1,000 target(s)" in shown


def test_a_combination_names_the_weights_of_its_members() -> None:
    members = {"LINEAR": 0.25, "GRU": 0.75}
    board = {"candidates": [{"model_type": "COMBINATION", "members": members, "reasons": [], "warnings": []}]}

    lines = render.decision_lines({"decision": {"decision": "promoted", "model_type": "GRU"}, "scoreboard": board})
    assert lines == ["promoted: GRU", "  - COMBINATION: mean weights LINEAR 25%, GRU 75%"]


def test_only_the_baseline_that_is_served_shows_its_warnings() -> None:
    few = [{"code": "few_interval_windows", "message": "5 forecasts are behind the intervals"}]
    references = [{"model_type": name, "name": name.lower(), "warnings": few} for name in ("PERSISTENCE", "MEAN")]
    view = {**VIEW, "scoreboard": {**VIEW["scoreboard"], "references": references}}

    lines = render.decision_lines({**view, "decision": {**VIEW["decision"], "model_type": "MEAN"}})

    assert lines[-1] == "  ! MEAN: 5 forecasts are behind the intervals"
    assert len([line for line in lines if "behind the intervals" in line]) == 1
    assert "behind the intervals" not in "".join(render.decision_lines(view))


def test_the_decision_stands_between_the_runs_provisional_and_refitted_champion() -> None:
    provisional = {"decision": "promoted", "model_type": "LINEAR", "reasons": ["best_score: it scores 0.9"]}
    refitted = {"decision": "refused", "model_type": "GRU", "reasons": ["refit_lost: the refit has twice the loss"]}
    view = {**VIEW, "champion_stages": {"refitted": refitted, "provisional": provisional}}

    assert render.decision_lines(view) == [
        "provisional: LINEAR",
        "  - it scores 0.9",
        *render.decision_lines(VIEW),
        "refitted: refused",
        "  - the refit has twice the loss",
    ]
    assert render.decision_lines({"champion_stages": {"provisional": provisional}})[-1] == "not decided yet"


def test_a_champion_that_is_not_decided_is_listed_with_its_stage() -> None:
    for stage, shown in (("provisional", "GRU (provisional)"), ("refitted", "GRU (refitted)"), ("decided", "GRU  ")):
        champion = {"identifier": "x", "model_type": "GRU", "score": 0.5, "stage": stage, "loaded": True}

        assert f"  {shown}" in render.models_table({"models": [champion]})[2]
        assert f"  {shown}" in render.datasets_table([{"identifier": "x", "runs": 1, "champion": champion}])[2]


def test_a_champion_that_is_a_baseline_is_marked_in_the_lists() -> None:
    champion = {"identifier": "x", "model_type": "MEAN", "stage": "provisional", "baseline": "it is the first"}

    assert "  MEAN (provisional, baseline)  " in render.models_table({"models": [champion]})[2]
    assert "  MEAN (provisional, baseline)  " in render.datasets_table([{"identifier": "x", "champion": champion}])[2]


def test_a_run_that_a_newer_one_overtook_is_not_shown_as_promoted() -> None:
    reasons = ["winner: GRU scores 0.02", "newer_run: a newer run was decided first, its champion stays"]
    view = {**VIEW, "outcome": "superseded", "outcome_details": {"outcome": "superseded", "reasons": reasons}}

    assert render.decision_lines(view)[:3] == [
        "superseded: GRU",
        "  - GRU scores 0.02",
        "  - a newer run was decided first, its champion stays",
    ]
    table = render.scoreboard_table(view)
    assert [line.split()[-1] for line in table if line.startswith("*")] == ["superseded"]
    assert "promoted" not in text(table)


def test_a_rejected_run_says_why() -> None:
    view = {"outcome": "rejected", "outcome_details": {"reason": "column x\nis text"}, "scoreboard": None}

    assert render.decision_lines(view) == ["rejected: column x is text"]
    assert render.scoreboard_table(view) == ["there is no scoreboard yet"]


def test_a_champion_has_its_row() -> None:
    board = scoreboard("x", RUN)
    board["decision"] = "kept"
    board["champion"] = {"model_type": "GRU", "score": 0.019, "rmse": 0.019, "reasons": []}

    lines = render.scoreboard_table({"scoreboard": board})

    assert lines[2].split() == [
        *("GRU", "(champion)", "0.01900", "0.01900", "-", "-", "-", "-", "champion", "before", "this", "run"),
    ]
    assert not any(line.startswith("*") for line in lines)


def test_the_stage_table_says_how_much_of_the_time_it_explains() -> None:
    assert (
        text(render.stage_table(VIEW))
        == """\
stage       status   began after    took
----------  -------  -----------  ------
upload      done           0.0 s   2.0 s
train-gru   done           4.0 s  30.0 s
train-lstm  done           4.0 s  20.0 s
eval        started       34.0 s   6.0 s
from upload to outcome 40.0 s, of which the stages explain 80%"""
    )


def test_what_happens_after_the_outcome_explains_nothing_of_the_time_before() -> None:
    late = {"stage": "forecast", "start": "2024-01-01T00:01:00Z", "end": "2024-01-01T00:01:30Z", "seconds": 30.0}

    assert render.explained_share({**VIEW, "stages": [*VIEW["stages"], late]}) == pytest.approx(0.8)
    assert render.explained_share({**VIEW, "outcome_details": None}) is None


ANSWER: dict[str, Any] = {
    "identifier": "PobleSec",
    "run_id": "abcdef0123456789abcdef0123456789",
    "model_type": "GRU",
    "predictions": [
        {
            "ts": f"2024-01-01T00:{minute:02d}:00Z",
            "down": 1e8 + minute,
            "down_lower": 9e7,
            "down_upper": 1.1e8,
            "up": 0.5,
            "up_lower": None,
            "up_upper": None,
        }
        for minute in range(20)
    ],
}


def test_a_forecast_is_a_table_with_intervals() -> None:
    shown = render.forecast_table({**ANSWER, "predictions": ANSWER["predictions"][:2]})

    assert (
        text(shown)
        == """\
GRU (run id abcdef01) on PobleSec
step  ts                           down                  down 90 %   up  up 90 %
----  --------------------  -----------  -------------------------  ---  -------
   1  2024-01-01T00:00:00Z  100,000,000  90,000,000 .. 110,000,000  0.5        -
   2  2024-01-01T00:01:00Z  100,000,001  90,000,000 .. 110,000,000  0.5        -"""
    )


def test_quantiles_have_a_table_per_target_in_place_of_the_intervals() -> None:
    row = {"ts": "2024-01-01T00:00:00Z", "down": 2.0, "down_lower": 1.0, "down_upper": 3.5, "up": 0.5}
    found = {"down_q0.1": 1.25, "down_q0.9": 3.0, "up_q0.1": None, "up_q0.9": None}
    answer = {**ANSWER, "quantiles": [0.1, 0.9], "predictions": [{**row, **found}]}

    shown = render.forecast_table(answer)

    assert (
        text(shown)
        == """\
GRU (run id abcdef01) on PobleSec
step  ts                    down  q0.1  q0.9
----  --------------------  ----  ----  ----
   1  2024-01-01T00:00:00Z     2  1.25     3
step  ts                     up  q0.1  q0.9
----  --------------------  ---  ----  ----
   1  2024-01-01T00:00:00Z  0.5     -     -"""
    )
    assert render.forecast_targets(answer) == ["down", "up"]


def test_many_quantiles_are_divided_into_tables_of_80_columns() -> None:
    levels = [at / 20 for at in range(1, 20)]
    row = {"ts": "2024-01-01T00:00:00Z", "a": 1e5} | {f"a_q{level!r}": 100_000 + level for level in levels}

    shown = render.forecast_table({"quantiles": levels, "predictions": [row] * 2})

    assert max(map(len, shown)) <= 80
    headers = [name for line in shown if line.startswith("step") for name in line.split()[3:]]
    assert headers == [f"q{level!r}" for level in levels]


def test_a_target_that_is_held_at_its_last_value_is_marked() -> None:
    shown = render.forecast_table({**ANSWER, "held_targets": ["up"]})

    assert shown[-1] == "  ! up never changed in the training rows and has changed since: its last value is held"
    assert render.forecast_table({**ANSWER, "held_targets": ["up"]}, targets=["down"])[-1] != shown[-1]


def test_steps_beyond_the_calibrated_ones_are_marked() -> None:
    shown = render.forecast_table({**ANSWER, "calibrated_steps": 3}, targets=["up"], most_rows=6)

    assert [line.split()[:2] for line in shown[3:7]] == [
        ["1", "2024-01-01T00:00:00Z"],
        *([str(at), f"2024-01-01T00:0{at - 1}:00Z"] for at in (2, 3)),
        ["~", "4"],
    ]
    assert shown[-1] == "~ beyond the 3 step(s) that the intervals are calibrated for"
    for calibrated in (None, 0, 20, 30):
        assert "~" not in text(render.forecast_table({**ANSWER, "calibrated_steps": calibrated}))


def test_a_forecast_by_a_baseline_says_why() -> None:
    shown = render.forecast_table({**ANSWER, "baseline": "no model passes the gate"})

    assert shown[-1] == "  ! no model passes the gate"


def test_a_long_forecast_shows_its_ends_and_only_the_targets_asked_for() -> None:
    shown = render.forecast_table(ANSWER, targets=["up"], most_rows=6)

    assert [line.split()[0] for line in shown[3:]] == ["1", "2", "3", "4", "...", "19", "20"]
    assert "down" not in text(shown[1:])


def test_targets_that_end_like_bounds_are_targets_all_the_same() -> None:
    answer = {"predictions": [{"ts": 0, "a": 1, "a_lower": 0, "a_upper": 2, "b_upper": 3}]}

    assert render.forecast_targets(answer) == ["a", "b_upper"]
    assert render.forecast_targets({"predictions": []}) == []


def test_runs_data_sets_and_models_are_listed() -> None:
    run = {
        "pipeline_run_id": RUN,
        "identifier": "PobleSec",
        "cause": "upload",
        "outcome": None,
        "state": "running",
        "elapsed_seconds": 75.0,
        "created_at": "2024-01-01T00:00:00.123Z",
    }
    assert (
        text(render.runs_table([run]))
        == f"""\
run                                   data set  cause   state    model  score        took  started (UTC)
------------------------------------  --------  ------  -------  -----  -----  ----------  -------------------
{RUN}  PobleSec  upload  running  -          -  1 min 15 s  2024-01-01 00:00:00"""
    )
    assert (
        text(render.datasets_table([{"identifier": "x", "runs": 2, "last_run": run}]))
        == """\
data set  uploaded (UTC)  runs  last run  champion  score
--------  --------------  ----  --------  --------  -----
x         -                  2  running   -             -"""
    )
    model = {
        "identifier": "x",
        "model_type": "GRU",
        "score": 0.02,
        "run_id": "abcdef012345",
        "loaded": True,
        "promoted": "2024-01-02T03:04:05Z",
    }
    served = {**model, "identifier": "y", "model_type": "MEAN", "horizon_steps": 24, "baseline": "nothing\npasses"}
    assert (
        text(render.models_table({"models": [model, served], "default": "x"}))
        == """\
   data set  model              score  horizon  run id    since (UTC)          state
-  --------  ---------------  -------  -------  --------  -------------------  ------
*  x         GRU              0.02000        -  abcdef01  2024-01-02 03:04:05  served
   y         MEAN (baseline)  0.02000       24  abcdef01  2024-01-02 03:04:05  served
* answers requests that name no data set
  - y: nothing passes"""
    )


def test_models_show_the_columns_that_a_forecast_needs() -> None:
    shop = {"identifier": "shop", "future_columns": ["promotion", "price"]}

    lines = render.models_table({"models": [shop, {"identifier": "other", "future_columns": []}]})

    assert lines[4:] == ["  - shop: a forecast needs future values of promotion, price"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (render.runs_table([]), "flts upload"),
        (render.datasets_table([]), "flts upload"),
        (render.models_table({"models": []}), "no champion yet"),
    ],
)
def test_nothing_says_what_to_do(lines: list[str], words: str) -> None:
    assert words in lines[0]


def test_an_upload_is_described() -> None:
    part = {
        "rows": 15927,
        "start": "2018-02-05T23:40:00Z",
        "end": "2018-02-28T02:32:00Z",
        "gap_count": 2,
        "missing_share": {"down": 0.0, "up": 0.0123},
    }
    answer = {
        "pipeline_run_id": RUN,
        "identifier": "x",
        "announced": False,
        "report": {
            "train": part,
            "test": None,
            "columns": ["down", "up"],
            "targets": ["down"],
            "step": "2 min",
            "understood": ["times: column when (TIME_COLUMN), epoch, UTC (TIME_FORMAT, TIME_ZONE)"],
            "step_seconds": 120,
            "warnings": ["column z is dropped"],
        },
    }

    assert (
        text(render.upload_lines(answer))
        == f"""\
run {RUN} on x
  train  15,927 rows, 2018-02-05T23:40:00Z to 2018-02-28T02:32:00Z, 2 gaps, at most 1.2% of a column missing
  2 columns, step 2 min, targets: down
  measured, not forecast: up (PAST_COLUMNS, TARGETS)
  times: column when (TIME_COLUMN), epoch, UTC (TIME_FORMAT, TIME_ZONE)
  ! column z is dropped
  ! the broker does not answer yet; the run is announced as soon as it does"""
    )


def test_an_upload_shows_the_roles_of_columns_and_the_holidays() -> None:
    report = {
        "columns": ["sales", "promotion", "weather", "empty"],
        "targets": ["sales"],
        "future_columns": ["promotion"],
        "dropped_columns": {"empty": "100 % of its cells are missing"},
        "holidays": ["DE", "DE-BY"],
        "step": "1 day",
    }

    assert render.upload_lines({"report": report})[1:] == [
        "  4 columns, step 1 day, targets: sales",
        "  known ahead: promotion (FUTURE_COLUMNS)",
        "  measured, not forecast: weather (PAST_COLUMNS, TARGETS)",
        "  holidays: DE, DE-BY (HOLIDAYS)",
    ]


class TestPlainLines:
    def show(self, *events: RunEvent, step_seconds: float = 1.0) -> list[str]:
        lines: list[str] = []
        ticks = iter(range(100))
        display = PlainLines(lines.append, clock=lambda: next(ticks) * step_seconds)
        view: dict[str, Any] = {}
        for event in events:
            view = apply_event(view, event)
            display.show(event, view)
        return lines

    def progress(self, **data: Any) -> RunEvent:
        return RunEvent("progress", {"stage": "train-gru", "state": "training", "elapsed": 3.2, **data})

    def test_each_epoch_and_each_stage_is_a_line(self) -> None:
        lines = self.show(
            RunEvent("state", {"pipeline_run_id": RUN, "identifier": "x", "state": "running", "elapsed_seconds": 1}),
            RunEvent("stage", {"stage": "preprocess", "status": "done", "end": "2024", "seconds": 1.5}),
            self.progress(epoch=1, epochs=10, loss=0.5),
            self.progress(epoch=2, epochs=10, loss=0.25),
            RunEvent("stage", {"stage": "eval", "status": "failed", "end": "2024", "seconds": 1, "error": "a\nb"}),
            RunEvent("end", {"pipeline_run_id": RUN, "identifier": "x", "outcome": "kept", "elapsed_seconds": 60}),
        )

        assert lines == [
            f"run {RUN} on x: running, 1.0 s",
            "preprocess     done       1.5 s",
            "train-gru      training   epoch 1/10  loss 0.5  3.2 s",
            "train-gru      training   epoch 2/10  loss 0.25  3.2 s",
            "eval           failed     1.0 s  a b",
            f"run {RUN} on x: kept, 1 min 00 s",
        ]

    def test_what_only_repeats_itself_is_said_again_after_a_while(self) -> None:
        lines = self.show(*(self.progress(epoch=1, detail=f"batch {at}") for at in range(12)))

        assert len(lines) == 3

    def test_events_keep_the_view_up_to_date(self) -> None:
        view = apply_event({}, RunEvent("state", VIEW))
        view = apply_event(view, RunEvent("progress", {"stage": "eval", "state": "scoring"}))
        view = apply_event(view, RunEvent("stage", {"stage": "eval", "status": "done", "end": "x", "seconds": 9.0}))

        rows = {row[0]: row for row in render.progress_rows(view)}
        assert rows["eval"] == ("eval", "done", "", "", "9.0 s")
        assert rows["train-gru"][2] == "10/10"
        assert apply_event(view, RunEvent("unknown", {})) == view


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (3599, "59 min 59 s"), (7260, "2 h 01 min"), (None, "-")],
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.0123456, "0.01235"),
        (0.00001234, "1.234e-05"),
        (12345.6, "12,346"),
        (-99999999.0, "-99,999,999"),
        (1e16, "1.000e+16"),
        (None, "-"),
        (True, "-"),
    ],
)
def test_numbers(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_a_cell_cannot_break_the_table() -> None:
    assert table(["a", "b"], [["x\ny", None]]) == ["a    b", "---  -", "x y  -"]
