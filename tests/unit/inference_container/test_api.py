"""The ASGI application without a server: status codes, bodies and limits."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from flts.bundle.format import Bundle
from flts.contracts.claim_check import ClaimCheck
from flts.forecasting.recipe import RecipeSpec
from flts.forecasting.series import Series
from flts.observability.metrics import Metrics
from inference_container.api import DISCARDED_BYTES, InferenceApi
from inference_container.cache import ChampionCache
from inference_container.champions import Champions
from inference_container.domain.batching import Batcher
from inference_container.domain.promotion import Promotion
from inference_container.forecast_log import ForecastLog
from inference_container.history_file import encode
from inference_container.predictor import Predictor
from tests.made_series import with_values
from tests.serving import clock_bundle, pointer_of, request_of, small_series, window_bundle

SERIES = small_series()
QUEUE_BYTES = 20_000


class Server:
    """An API on champions in a folder."""

    def __init__(
        self, home: Path, *, api_key: str | None = None, known: bool = True, history_enable: bool = True, now: float = 0
    ) -> None:
        self.metrics = Metrics(CollectorRegistry())
        self.cache = ChampionCache(home)
        self.champions = Champions(
            self.cache,
            self.metrics,
            default_identifier=None,
            max_loaded=3,
            max_horizon_steps=50,
            history_enable=history_enable,
        )
        if known:
            self.champions.list_changed([], ["coming"])
        self.log = ForecastLog(
            self.cache.spool, self.metrics, queue_bytes=QUEUE_BYTES, spool_bytes=10**6, period_seconds=60
        )
        self.batcher = Batcher(max_waiting=100, deadline_seconds=60)
        predictor = Predictor(
            self.champions, self.batcher, self.metrics, max_rows=200, forecast_log=self.log, clock=lambda: now
        )
        self.api = InferenceApi(predictor, self.champions, self.metrics, max_body_bytes=50_000, api_key=api_key)

    def promote(
        self,
        identifier: str,
        made: tuple[Bundle, bytes] | None = None,
        *,
        pointer: Mapping[str, Any] | None = None,
        history: Series | None = None,
        **options: Any,
    ) -> None:
        bundle, model = made or window_bundle(SERIES, identifier=identifier, **options)
        data = bundle.to_json()
        claim = ClaimCheck(
            bucket="b", object_key="x/bundle.json", size=len(data), sha256=hashlib.sha256(data).hexdigest()
        )
        promotion = Promotion.read(identifier, {**pointer_of(bundle, claim), **(pointer or {})})
        known = [each["identifier"] for each in self.champions.describe()]
        self.champions.list_changed([*known, identifier], [])
        folder = self.cache.put_bundle(promotion, data, model)
        if history is not None:
            self.cache.put_history(identifier, folder, encode(history))
        assert self.champions.fetched(identifier, folder.name)

    def ask(self, work: Callable[[httpx.AsyncClient], Awaitable[Any]], **client: Any) -> Any:
        async def main() -> Any:
            transport = httpx.ASGITransport(app=self.api)
            async with httpx.AsyncClient(transport=transport, base_url="http://inference", **client) as http:
                return await work(http)

        return asyncio.run(main())

    def predict(self, request: Any, **options: Any) -> httpx.Response:
        content = request if isinstance(request, bytes) else json.dumps(request).encode()
        answer: httpx.Response = self.ask(lambda http: http.post("/predict", content=content, **options))
        return answer

    def get(self, path: str, **options: Any) -> httpx.Response:
        answer: httpx.Response = self.ask(lambda http: http.get(path, **options))
        return answer

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("cache"))
    server.promote("tiny")
    yield server
    server.batcher.close()


def test_a_forecast_in_raw_units_with_intervals_and_times_in_the_requests_form(serving: Server) -> None:
    answer = serving.predict(request_of(SERIES, identifier="tiny", inference_length=2))

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    champion = serving.champions.load("tiny")
    expected = champion.forecaster.forecast(SERIES, 2)
    assert body["status"] == "SUCCESS"
    assert (body["identifier"], body["model_type"], body["config_hash"]) == ("tiny", "GRU", "c" * 64)
    assert body["run_id"] == champion.promotion.run_id
    assert (body["horizon_steps"], body["calibrated_steps"], body["imputed_cells"]) == (1, 30, 0)
    assert "baseline" not in body
    assert list(body["predictions"][0]) == ["ts"] + [
        f"{name}{end}" for name in ("down", "up", "load") for end in ("", "_lower", "_upper")
    ]
    second = body["predictions"][1]
    assert second["ts"] == f"{np.datetime64(int(SERIES.times[-1]) + 240, 's')}Z"
    assert expected.lower is not None
    np.testing.assert_allclose(second["load"], expected.mean[1, 2], rtol=1e-6)
    np.testing.assert_allclose(second["load_lower"], expected.lower[1, 2], rtol=1e-6)


def test_the_horizon_and_the_reason_of_a_baseline_come_from_the_pointer(tmp_path: Path) -> None:
    server = Server(tmp_path)
    reason = "no model passes the gate, so the best baseline is served: PERSISTENCE"
    server.promote("tiny", pointer={"horizon_steps": 24, "baseline": reason})

    answer = server.predict(request_of(SERIES)).json()
    [model] = server.get("/models").json()["models"]

    for shown in (answer, model):
        assert (shown["horizon_steps"], shown["baseline"]) == (24, reason)


@pytest.mark.parametrize("pointer", [{"horizon_steps": None, "baseline": None}, {"horizon_steps": 0, "baseline": 7}])
def test_a_pointer_without_a_horizon_leaves_that_of_the_bundle(tmp_path: Path, pointer: dict[str, Any]) -> None:
    server = Server(tmp_path)
    server.promote("tiny", window_bundle(SERIES, output_seq_len=3), pointer=pointer)

    answer = server.predict(request_of(SERIES)).json()
    [model] = server.get("/models").json()["models"]

    for shown in (answer, model):
        assert shown["horizon_steps"] == 3
        assert "baseline" not in shown


def test_a_champion_that_is_only_on_disk_is_listed_with_the_pointers_horizon_and_baseline(tmp_path: Path) -> None:
    server = Server(tmp_path)
    for identifier in ("a", "b", "c", "d"):
        server.promote(identifier, pointer={"horizon_steps": 24, "baseline": f"of {identifier}"})

    last = server.get("/models").json()["models"][-1]

    assert (last["loaded"], last["horizon_steps"], last["baseline"]) == (False, 24, "of d")


def test_reversing_the_columns_and_sending_more_rows_changes_nothing(serving: Server) -> None:
    plain = request_of(SERIES)
    turned = {"data": dict(reversed(plain["data"].items()))}
    longer = request_of(SERIES, slice(-60, None))

    answers = [serving.predict(request).json() for request in (plain, turned, longer)]

    assert answers[0] == answers[1] == answers[2]


def test_a_model_of_the_clock_asks_for_one_time_and_no_values(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.promote("tiny", clock_bundle(SERIES))

    body = server.predict({"data": {"ts": [int(SERIES.times[-1])]}, "inference_length": 2}).json()

    expected = server.champions.load("tiny").forecaster.forecast(SERIES, 2)
    assert [row["ts"] for row in body["predictions"]] == expected.times.tolist()
    np.testing.assert_allclose([row["down"] for row in body["predictions"]], expected.mean[:, 0])


def test_without_calibration_bounds_are_null(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.promote("tiny", calibrated=False)

    body = server.predict(request_of(SERIES)).json()

    assert body["calibrated_steps"] == 0
    assert body["predictions"][0]["up_lower"] is None
    assert body["predictions"][0]["up"] > 0


@pytest.mark.parametrize(
    ("request_", "status", "code", "field"),
    [
        (b"", 400, "bad_json", None),
        (b"{", 400, "bad_json", None),
        (request_of(SERIES, identifier="nobody"), 404, "unknown_identifier", "identifier"),
        (request_of(SERIES, identifier="no/body"), 422, "bad_identifier", "identifier"),
        (request_of(SERIES, config_hash="e" * 64), 409, "champion_changed", "config_hash"),
        (request_of(SERIES, slice(-9, None)), 422, "too_few_rows", "data"),
        (request_of(SERIES, slice(-300, None)), 422, "too_many_rows", "data"),
        (request_of(SERIES, inference_length=51), 422, "bad_horizon", "inference_length"),
        ({"data": {**request_of(SERIES)["data"], "up": ["one"] * 10}}, 422, "bad_number", "up"),
        (b" " * 50_001, 413, "too_large", "data"),
    ],
)
def test_every_refusal_is_json_that_names_its_reason(
    serving: Server, request_: Any, status: int, code: str, field: str | None
) -> None:
    before = serving.count("flts_predictions_total", outcome="rejected")

    answer = serving.predict(request_)

    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["code"], error.get("field")) == (code, field)
    assert error["message"]
    assert serving.count("flts_predictions_total", outcome="rejected") == before + 1


@pytest.mark.parametrize("encoding", ["gzip", "br", "GZIP"])
def test_nothing_unpacks_what_strangers_packed(serving: Server, encoding: str) -> None:
    before = serving.count("flts_predictions_total", outcome="rejected")

    answer = serving.predict(b"x", headers={"content-encoding": encoding})

    assert answer.status_code == 415
    error = answer.json()["error"]
    assert (error["code"], error["field"]) == ("encoded_body", "Content-Encoding")
    assert serving.count("flts_predictions_total", outcome="rejected") == before + 1


@pytest.mark.parametrize(
    ("declared", "taken"),
    [(60_000, 60_000), (10**9, 0), (None, DISCARDED_BYTES + 100_000)],
    ids=["a little too large", "far too large, declared", "endless"],
)
def test_a_sender_of_a_little_too_much_may_finish_and_an_endless_one_may_not(
    serving: Server, declared: int | None, taken: int
) -> None:
    """Assert how much the server reads; a client that still sends when its connection closes never reads the reason."""
    left = declared or 10**10
    sent = 0
    answered: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        nonlocal left, sent
        piece = min(left, 20_000)
        left, sent = left - piece, sent + piece
        return {"type": "http.request", "body": b" " * piece, "more_body": left > 0}

    async def send(message: Any) -> None:
        answered.append(message)

    headers = [] if declared is None else [(b"content-length", str(declared).encode())]
    scope = {"type": "http", "path": "/predict", "method": "POST", "headers": headers}
    asyncio.run(serving.api(scope, receive, send))

    assert answered[0]["status"] == 413
    assert taken - 60_000 <= sent <= taken + 60_000 if taken else sent == 0


def test_a_forecast_beyond_the_year_9999_is_refused(serving: Server) -> None:
    data: dict[str, list[float]] = {"ts": [253_402_300_799 - 120 * row for row in range(9, -1, -1)]}
    data.update({name: [1.0] * 10 for name in SERIES.columns})

    answer = serving.predict({"data": data})

    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad_horizon")


def test_the_right_config_hash_is_no_obstacle(serving: Server) -> None:
    assert serving.predict(request_of(SERIES, config_hash="c" * 64)).status_code == 200


@pytest.mark.parametrize("known", [True, False])
def test_before_any_champion_the_answer_is_503_no_champion_with_retry_after(tmp_path: Path, known: bool) -> None:
    server = Server(tmp_path, known=known)

    for request in (request_of(SERIES), request_of(SERIES, identifier="coming")):
        answer = server.predict(request)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "no_champion"
        assert int(answer.headers["retry-after"]) >= 1
    assert server.get("/models").json() == {"models": [], "default": None, "known": known}


def test_wrong_methods_and_paths_are_json_too(serving: Server) -> None:
    answers = {
        405: serving.get("/predict"),
        404: serving.get("/nowhere"),
    }

    for status, answer in answers.items():
        assert answer.status_code == status
        assert answer.json()["error"]["code"] in {"method_not_allowed", "not_found"}
    assert answers[405].headers["allow"] == "POST"


def test_models_lists_scores_and_what_a_request_needs(serving: Server) -> None:
    [model] = serving.get("/models").json()["models"]

    assert (model["identifier"], model["model_type"], model["score"]) == ("tiny", "GRU", 0.1)
    assert (model["rows_required"], model["step_seconds"], model["max_horizon_steps"]) == (10, 120, 50)
    assert model["targets"] == ["down", "up", "load"]
    assert (model["loaded"], model["problem"]) == (True, None)


def test_the_documentation_shows_predict(serving: Server) -> None:
    paths = serving.get("/openapi.json").json()["paths"]

    assert set(paths) == {"/predict", "/models"}
    example = paths["/predict"]["post"]["responses"]["200"]["content"]["application/json"]["example"]
    assert set(example) == {*serving.predict(request_of(SERIES)).json(), "baseline", "history_until"}
    assert serving.get("/docs").status_code == 200


def test_a_key_is_asked_for_where_one_is_set(tmp_path: Path) -> None:
    server = Server(tmp_path, api_key="a-long-key")
    server.promote("tiny")

    assert server.predict(request_of(SERIES)).status_code == 401
    assert server.predict(request_of(SERIES), headers={"x-api-key": "wrong"}).status_code == 401
    assert server.predict(request_of(SERIES), headers={"x-api-key": "a-long-key"}).status_code == 200
    assert server.get("/models").status_code == 401
    assert server.get("/docs").status_code == 200


def test_a_champion_that_is_not_in_memory_is_loaded_once_for_all_who_wait(tmp_path: Path) -> None:
    server = Server(tmp_path)
    for identifier in ("a", "b", "c", "d"):
        server.promote(identifier)
    before = server.count("flts_model_load_total", outcome="success")
    assert before == 3  # memory holds three champions, so d is not loaded
    body = json.dumps(request_of(SERIES, identifier="d")).encode()

    async def many(http: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(*(http.post("/predict", content=body) for _ in range(20)))

    answers = server.ask(many)

    assert [answer.status_code for answer in answers] == [200] * 20
    assert server.count("flts_model_load_total", outcome="success") == before + 1


def test_an_empty_request_never_returns_anothers_answer(serving: Server) -> None:
    good = json.dumps(request_of(SERIES)).encode()

    async def mixed(http: httpx.AsyncClient) -> list[httpx.Response]:
        bodies = [good, b"", b"{}", good, b'{"data": {}}'] * 10
        return await asyncio.gather(*(http.post("/predict", content=body) for body in bodies))

    statuses = [answer.status_code for answer in serving.ask(mixed)]

    assert statuses == [200, 400, 422, 200, 422] * 10


def test_a_bug_is_a_500_that_tells_nothing_and_is_counted(serving: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        msg = "secret detail"
        raise ZeroDivisionError(msg)

    monkeypatch.setattr(serving.batcher, "submit", broken)

    answer = serving.predict(request_of(SERIES))

    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["error"]["code"] == "internal"
    assert serving.count("flts_predictions_total", outcome="failed") == 1


def test_forecasts_are_logged_behind_the_request_and_a_full_queue_drops_and_counts(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.promote("tiny")

    bodies = [server.predict(request_of(SERIES, inference_length=20)).content for _ in range(4)]
    assert 3 * len(bodies[0]) < QUEUE_BYTES < 4 * len(bodies[0])
    assert server.log.flush()

    assert server.count("flts_forecast_log_dropped_total") == 1
    [batch] = server.cache.spool.rglob("*.jsonl")
    assert batch.parent.name.startswith("date=20")
    assert batch.parent.parent.name == "tiny"
    lines = [json.loads(line) for line in batch.read_text().splitlines()]
    assert len(lines) == 3
    assert len(lines[0]["predictions"]) == 20
    assert lines[0]["run_id"] == server.champions.load("tiny").promotion.run_id


def test_a_full_spool_drops_and_counts(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.promote("tiny")
    full = ForecastLog(server.cache.spool, server.metrics, queue_bytes=10**6, spool_bytes=10, period_seconds=60)
    server.log.add = full.add  # type: ignore[method-assign]
    server.predict(request_of(SERIES))

    assert not full.flush()

    assert server.count("flts_forecast_log_dropped_total") == 1


def test_without_rows_the_answer_is_that_of_the_stored_rows(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.promote("tiny", history=SERIES.rows(-30))
    until = f"{np.datetime64(int(SERIES.times[-1]), 's')}Z"

    bare = server.predict({"identifier": "tiny", "inference_length": 3}).json()
    whole = server.predict(request_of(SERIES, inference_length=3)).json()

    assert bare.pop("history_until") == until
    assert bare == whole
    [model] = server.get("/models").json()["models"]
    assert model["history_until"] == until


def test_a_few_rows_are_answered_as_with_the_rows_before_them(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.promote("tiny", history=SERIES.rows(-30, -2))

    few = server.predict(request_of(SERIES, slice(-3, None), inference_length=3))
    whole = server.predict(request_of(SERIES, inference_length=3)).json()

    assert few.status_code == 200, few.text
    assert few.json() == {**whole, "history_until": f"{np.datetime64(int(SERIES.times[-3]), 's')}Z"}


def test_enough_rows_are_answered_byte_for_byte_as_without_a_history(tmp_path: Path) -> None:
    pointer = {"run_id": "r", "pipeline_run_id": "01934a5c-0000-7000-8000-000000000001"}
    with_history, without = Server(tmp_path / "a", now=4e9), Server(tmp_path / "b")
    with_history.promote("tiny", history=SERIES.rows(-30), pointer=pointer)
    without.promote("tiny", pointer=pointer)

    for rows in (slice(-10, None), slice(-60, None), slice(-60, -40)):
        request = request_of(SERIES, rows, inference_length=3)
        assert with_history.predict(request).content == without.predict(request).content


@pytest.mark.parametrize(("late", "warned"), [(0, False), (1, True)])
def test_a_forecast_that_ends_in_the_past_has_a_warning(tmp_path: Path, late: int, warned: bool) -> None:
    end = int(SERIES.times[-1]) + 2 * 120
    server = Server(tmp_path, now=end + late)
    server.promote("tiny", history=SERIES.rows(-30))

    answer = server.predict({"inference_length": 2}).json()

    expected = (
        f"the forecast ends at {np.datetime64(end, 's')}Z, which is in the past: the stored rows end at "
        f"{answer['history_until']}; send newer rows"
    )
    assert answer.get("warning") == (expected if warned else None)


def test_a_model_of_the_clock_forecasts_from_the_last_stored_time(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.promote("tiny", clock_bundle(SERIES), history=SERIES.rows(-5))

    body = server.predict({"inference_length": 2}).json()

    expected = server.champions.load("tiny").forecaster.forecast(SERIES, 2)
    np.testing.assert_allclose([row["down"] for row in body["predictions"]], expected.mean[:, 0])
    assert body["history_until"] == f"{np.datetime64(int(SERIES.times[-1]), 's')}Z"


def test_a_target_that_is_held_takes_its_last_value_from_the_stored_rows(tmp_path: Path) -> None:
    values = SERIES.values.copy()
    values[:, 1] = 7.0
    flat = with_values(SERIES, values.copy())
    values[-1, 1] = 9.0
    moved = with_values(SERIES, values)
    server = Server(tmp_path)
    server.promote("tiny", window_bundle(flat), history=moved.rows(-30))

    body = server.predict({"inference_length": 2}).json()

    assert body["held_targets"] == ["up"]
    assert [row["up"] for row in body["predictions"]] == [9, 9]


def test_a_null_that_a_recipe_does_not_fill_is_refused_among_stored_rows_too(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.promote("tiny", spec=RecipeSpec(nans_drop_rows=True), history=SERIES.rows(-30, -1))
    request = request_of(SERIES, slice(-1, None))
    request["data"]["up"] = [None]

    assert server.predict({}).status_code == 200
    answer = server.predict(request)

    assert (answer.status_code, answer.json()["error"]["field"]) == (422, "up")


@pytest.mark.parametrize("enabled", [True, False])
def test_without_stored_rows_a_request_without_rows_is_refused_with_the_reason(tmp_path: Path, enabled: bool) -> None:
    server = Server(tmp_path, history_enable=enabled)
    server.promote("tiny", history=None if enabled else SERIES.rows(-30))

    answer = server.predict({"identifier": "tiny"})

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["field"]) == (422, "no_history", "data")
    assert ("HISTORY_ENABLE is false" in error["message"]) is not enabled
    assert "history_until" not in server.get("/models").json()["models"][0]
    assert server.predict(request_of(SERIES)).status_code == 200


def test_a_forecast_from_stored_rows_needs_the_key(tmp_path: Path) -> None:
    server = Server(tmp_path, api_key="the-key-of-forecasts")
    server.promote("tiny", history=SERIES.rows(-30))

    for headers in ({}, {"x-api-key": "another"}):
        answer = server.predict({}, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
    assert server.predict({}, headers={"x-api-key": "the-key-of-forecasts"}).status_code == 200
