"""After its decision a run's model is fitted again on all rows, and every replica serves this fit."""

from __future__ import annotations

from typing import Any

from flts.bundle.load import fetch_bundle
from flts.contracts.claim_check import ClaimCheck
from tests.eventually import eventually
from tests.pipeline import Pipeline


def test_a_promoted_model_is_fitted_again_and_served(stack: Pipeline, seasonal: dict[str, Any]) -> None:
    decision, run_id = seasonal["decision"], seasonal["pipeline_run_id"]

    run = stack.wait_refitted(run_id)

    assert (run["outcome"], run["decision"]) == ("promoted", decision), "the run had ended before"
    refit = run["champion_stages"]["refitted"]
    assert refit["reasons"][0].startswith("refitted: fitted again on all rows")
    claims = [ClaimCheck.model_validate(one["bundle"]) for one in (decision, refit)]
    assert claims[1].object_key == claims[0].object_key.replace("bundle.json", "refit/bundle.json")
    judged, refitted = (fetch_bundle(stack.objects, claim)[0] for claim in claims)
    assert (refitted.fit, refitted.train_hash) == ("refitted", judged.train_hash)
    stages = {stage["stage"]: stage for stage in run["stages"]}
    assert (stages["refit"]["status"], stages["refit"]["model_type"]) == ("done", decision["model_type"])

    served = stack.champion("seasonal")
    assert served is not None
    assert (served["run_id"], served["score"]) == (decision["run_id"], decision["score"])
    assert len(stack.forecast(stack.question("seasonal"))["predictions"]) == 6


def test_the_test_rows_are_forecast_by_the_judged_model(stack: Pipeline, seasonal: dict[str, Any]) -> None:
    name = (seasonal["identifier"], seasonal["pipeline_run_id"])
    stack.wait_refitted(name[1])

    forecast = eventually(lambda: stack.run_store.forecasts.read(*name), "the test rows are forecast", timeout=60)

    # The error of the judged Prophet, whose score eval measured on the same rows one step ahead.
    [row] = [one for one in seasonal["scoreboard"]["candidates"] if one["model_type"] == "PROPHET"]
    [step] = [one for one in row["table"] if one["target"] == "load" and one["step"] == 1]
    assert abs(forecast["metrics"]["load"]["1"]["rmse"] / step["rmse_raw"] - 1) < 0.05
