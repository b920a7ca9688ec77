"""Uploads are checked before they are stored, and stored before they are announced."""

from __future__ import annotations

import asyncio
import json
import tempfile
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from flts.contracts.events import RawData
from flts.ingest.uploads import upload_hash
from gateway_container.receive import hash_file
from tests.gateway import KEY, GatewayUnderTest, csv_text, following, make_gateway

TRAIN = csv_text(300)
TEST = csv_text(80, start=following(300), seed=1)


@pytest.fixture
def gateway(tmp_path: Path) -> GatewayUnderTest:
    return make_gateway(tmp_path)


def files(train: bytes = TRAIN, test: bytes | None = None) -> dict[str, tuple[str, bytes]]:
    given = {"train": ("../../etc/passwd", train)}
    return given if test is None else {**given, "test": ("test.csv", test)}


def digest(data: bytes, folder: Path) -> str:
    path = folder / "hashed"
    path.write_bytes(data)
    return hash_file(path).sha256


def test_an_upload_is_stored_under_its_content_and_recorded_and_announced(
    gateway: GatewayUnderTest, tmp_path: Path
) -> None:
    answer = gateway.client().post(
        "/datasets/PobleSec", files=files(test=TEST), data={"settings": '{"epochs": 5, "TARGETS": "down"}'}
    )

    assert answer.status_code == 202, answer.text
    body = answer.json()
    folder = f"PobleSec/{upload_hash(digest(TRAIN, tmp_path), digest(TEST, tmp_path))}"
    assert gateway.keys("raw-data") == [f"{folder}/test.csv", f"{folder}/train.csv"]
    assert gateway.store.get("raw-data", f"{folder}/train.csv")[0] == TRAIN
    event = gateway.broker.events[0]
    assert isinstance(event, RawData)
    assert event.pipeline_run_id == body["pipeline_run_id"]
    assert event.settings == {"EPOCHS": 5, "TARGETS": "down"}
    assert (event.train.sha256, event.train.size, event.train.rows) == (digest(TRAIN, tmp_path), len(TRAIN), 300)
    assert event.test is not None
    assert event.test.rows == 80
    assert gateway.run_store.runs.announced("PobleSec", event.pipeline_run_id)
    assert gateway.run_store.runs.read("PobleSec", event.pipeline_run_id) == event.model_dump(mode="json")
    assert gateway.run_store.stages.of("PobleSec", event.pipeline_run_id)["upload"]["status"] == "done"
    assert body["announced"] is True
    assert body["links"] == {
        "run": f"/runs/{event.pipeline_run_id}",
        "events": f"/runs/{event.pipeline_run_id}/events",
    }


def test_the_report_names_columns_step_gaps_and_missing_cells(gateway: GatewayUnderTest) -> None:
    lines = TRAIN.decode().splitlines()
    del lines[50:52]
    lines[20] = lines[20].split(",")[0] + ",,1"

    report = gateway.client().post("/datasets/x", files=files("\n".join(lines).encode())).json()["report"]

    assert report["columns"] == ["down", "up"]
    assert report["step_seconds"] == 120
    assert report["test_from"] == "split"
    assert report["train"]["gap_count"] == 1
    assert report["train"]["inserted_rows"] == 2
    assert report["train"]["missing_share"]["down"] > report["train"]["missing_share"]["up"] > 0


def test_an_upload_without_a_name_is_global(gateway: GatewayUnderTest) -> None:
    assert gateway.client().post("/datasets", files=files()).json()["identifier"] == "global"


@pytest.mark.parametrize(
    ("data", "code", "field"),
    [
        ({"settings": '{"EPOCHS": 0}'}, "bad_setting", "EPOCHS"),
        ({"settings": '{"SCALER": "wrong"}'}, "bad_setting", "SCALER"),
        ({"settings": '{"PROPHET_N_CHANGEPOINTS": -1}'}, "bad_setting", "PROPHET_N_CHANGEPOINTS"),
        ({"settings": '{"STORE_PATH": "/"}'}, "unknown_setting", "STORE_PATH"),
        ({"settings": '{"GATEWAY_API_KEY": "mine"}'}, "unknown_setting", "GATEWAY_API_KEY"),
        ({"settings": '{"EPOCHS": {"a": 1}}'}, "bad_setting", "EPOCHS"),
        ({"settings": '{"EPOCHS": 1, "epochs": 2}'}, "bad_setting", "EPOCHS"),
        ({"settings": '{"ADD_VAL": NaN}'}, "bad_settings", "settings"),
        ({"settings": "[1]"}, "bad_settings", "settings"),
        ({"settings": "{"}, "bad_settings", "settings"),
        ({"settings": json.dumps({f"E{at}": "x" * 1000 for at in range(20)})}, "bad_settings", "settings"),
        ({"settings": '{"TARGETS": "sideways"}'}, None, "TARGETS"),
        ({"force": "perhaps"}, "bad_value", "force"),
        ({"forse": "true"}, "unknown_field", "forse"),
    ],
)
def test_what_a_run_cannot_be_asked_for_is_refused_by_name_and_nothing_is_stored(
    gateway: GatewayUnderTest, data: dict[str, str], code: str | None, field: str
) -> None:
    answer = gateway.client().post("/datasets/x", files=files(), data=data)

    error = answer.json()["error"]
    assert answer.status_code == 422
    assert error["field"] == field
    assert code in {None, error["code"]}
    assert gateway.keys("raw-data") == []
    assert gateway.keys("pipeline-runs") == []
    assert gateway.broker.events == []


@pytest.mark.parametrize(
    ("train", "words"),
    [
        (b"", "empty"),
        (csv_text(2), "rows"),
        (b"a,b\n1,2\n", "no time column"),
        (b"time,note\n2024-01-01,hello\n2024-01-02,x\n", "note"),
        (TRAIN.replace(b"\n", b"\n\x00", 1), "NUL"),
    ],
)
def test_files_that_cannot_be_trained_on_are_refused_before_anything_is_stored(
    gateway: GatewayUnderTest, train: bytes, words: str
) -> None:
    answer = gateway.client().post("/datasets/x", files=files(train))

    assert answer.status_code == 422
    assert words in answer.json()["error"]["message"]
    assert gateway.keys("raw-data") == []


def test_too_few_rows_name_the_number_needed(gateway: GatewayUnderTest) -> None:
    lengths = {"settings": '{"INPUT_SEQ_LEN": 10}'}

    def upload(rows: int) -> httpx.Response:
        return gateway.client().post("/datasets/x", files=files(csv_text(rows)), data=lengths)

    error = upload(10).json()["error"]

    assert error["code"] == "too_few_rows"
    needed = max(int(word) for word in error["message"].replace(";", " ").replace(",", " ").split() if word.isdigit())
    assert upload(needed - 2).status_code == 422
    assert upload(needed * 2).status_code == 202


def test_few_rows_are_accepted_and_the_report_says_that_the_last_value_is_forecast(gateway: GatewayUnderTest) -> None:
    answer = gateway.client().post("/datasets/x", files=files(csv_text(3)))

    assert answer.status_code == 202
    assert any("a model needs more rows" in text for text in answer.json()["report"]["warnings"])
    assert gateway.client().post("/datasets/y", files=files(csv_text(2))).json()["error"]["code"] == "too_few_rows"


def test_a_column_may_be_ignored_for_one_run(gateway: GatewayUnderTest) -> None:
    train = csv_text(300, columns={"note": "hello"})

    answer = gateway.client().post("/datasets/x", files=files(train), data={"settings": '{"IGNORE_COLUMNS": ["note"]}'})

    assert answer.status_code == 202, answer.text
    assert answer.json()["settings"] == {"IGNORE_COLUMNS": "note"}


def test_the_declared_length_is_refused_before_the_body_is_read(tmp_path: Path) -> None:
    gateway = make_gateway(tmp_path, max_upload_bytes=1000)

    def endless() -> Iterator[bytes]:
        pytest.fail("the body was read")
        yield b""

    answer = gateway.client().post(
        "/datasets/x",
        content=endless(),
        headers={"content-length": str(10**10), "content-type": "multipart/form-data; boundary=b"},
    )

    assert answer.status_code == 413
    assert answer.json()["error"]["field"] == "train"
    assert "MAX_UPLOAD_BYTES" in answer.json()["error"]["message"]


@pytest.mark.parametrize("field", ["train", "test"])
def test_an_undeclared_length_is_cut_off_as_it_comes(tmp_path: Path, field: str) -> None:
    gateway = make_gateway(tmp_path, max_upload_bytes=200_000)
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="%s"; filename="x"\r\n\r\n' % field.encode()
        for _ in range(1000):
            sent += 10_000
            yield b"1" * 10_000
        yield b"\r\n--b--\r\n"

    status, answer = post_stream(gateway, "/datasets/x", body(), "multipart/form-data; boundary=b")

    assert status == 413
    assert answer["error"]["field"] == field
    assert sent <= 300_000
    assert gateway.keys("raw-data") == []


def test_rows_times_columns_are_limited(tmp_path: Path) -> None:
    gateway = make_gateway(tmp_path, max_upload_cells=400)

    error = gateway.client().post("/datasets/x", files=files()).json()["error"]

    assert error["code"] == "too_many_cells"
    assert error["field"] == "train"


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"no form at all"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="train"\r\n\r\nhalf'),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nx\r\n--b--\r\n"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="force"\r\n\r\n1\r\n--b--\r\n',
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="train"\r\nX-' + b"a" * 30_000 + b": 1\r\n\r\nx\r\n--b--\r\n",
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="train"\r\n\r\nx\r\n' * 2 + b"--b--\r\n",
        ),
    ],
)
def test_what_is_no_form_is_refused(gateway: GatewayUnderTest, content_type: str, content: bytes) -> None:
    answer = gateway.client().post("/datasets/x", content=content, headers={"content-type": content_type})

    assert answer.status_code == 422
    assert answer.json()["error"]["message"]


def test_a_sender_that_stops_sending_is_cut_off(tmp_path: Path) -> None:
    gateway = make_gateway(tmp_path, upload_idle_seconds=0.1)

    async def stalling() -> AsyncIterator[bytes]:
        yield b"--b\r\n"
        await asyncio.Event().wait()

    status, answer = post_stream(gateway, "/datasets/x", stalling(), "multipart/form-data; boundary=b")

    assert status == 408
    assert answer["error"]["code"] == "upload_stalled"


@pytest.mark.parametrize("identifier", ["..", "%2e%2e", "a b", "-x", "a" * 65, "x%00", "_incoming", "x%2Fy"])
def test_hostile_identifiers_never_reach_the_store(gateway: GatewayUnderTest, identifier: str) -> None:
    answer = gateway.client().post(f"/datasets/{identifier}", files=files())

    assert answer.status_code in {404, 405, 422}
    assert set(answer.json()) == {"error"}
    assert gateway.keys("raw-data") == []


class TestIdempotency:
    def test_the_same_key_answers_the_same_run(self, gateway: GatewayUnderTest) -> None:
        client = gateway.client()
        first = client.post("/datasets/x", files=files(), headers={"idempotency-key": "one"}).json()

        again = client.post("/datasets/x", files=files(), headers={"idempotency-key": "one"}).json()

        assert again["pipeline_run_id"] == first["pipeline_run_id"]
        assert (first["repeated"], again["repeated"]) == (False, True)
        assert gateway.run_store.runs.of("x") == [first["pipeline_run_id"]]
        assert len({event.event_id for event in gateway.broker.events}) == 1

    def test_another_key_is_another_run(self, gateway: GatewayUnderTest) -> None:
        client = gateway.client()
        ids = {
            client.post("/datasets/x", files=files(), headers={"idempotency-key": key}).json()["pipeline_run_id"]
            for key in ("one", "two")
        }

        assert len(ids) == 2

    def test_a_key_used_for_something_else_is_a_conflict(self, gateway: GatewayUnderTest) -> None:
        client = gateway.client()
        client.post("/datasets/x", files=files(), headers={"idempotency-key": "one"})

        answer = client.post("/datasets/x", files=files(csv_text(300, seed=9)), headers={"idempotency-key": "one"})

        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == "idempotency_key_reused"

    def test_a_gateway_killed_between_key_and_run_goes_on_with_the_same_run(self, gateway: GatewayUnderTest) -> None:
        client = gateway.client()
        first = client.post("/datasets/x", files=files(), headers={"idempotency-key": "one"}).json()
        gateway.run_store.runs.delete("x", first["pipeline_run_id"])

        again = client.post("/datasets/x", files=files(), headers={"idempotency-key": "one"}).json()

        assert again["pipeline_run_id"] == first["pipeline_run_id"]
        assert gateway.run_store.runs.read("x", first["pipeline_run_id"]) is not None

    def test_old_keys_are_forgotten(self, tmp_path: Path) -> None:
        gateway = make_gateway(tmp_path, idempotency_keep_days=1e-9)
        gateway.client().post("/datasets/x", files=files(), headers={"idempotency-key": "one"})
        assert gateway.keys("pipeline-runs", "_idempotency/")

        assert gateway.gateway.intake.forget_idempotency_keys() == 1

        assert gateway.keys("pipeline-runs", "_idempotency/") == []


def post_stream(
    gateway: GatewayUnderTest, path: str, body: AsyncIterator[bytes], content_type: str
) -> tuple[int, dict[str, dict[str, str]]]:
    """Post without a declared length; the test client would read the whole body first."""
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        async for chunk in body:
            return {"type": "http.request", "body": chunk, "more_body": True}
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    headers = [(b"content-type", content_type.encode()), (b"x-api-key", KEY.encode())]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "client": ("test", 1),
        "server": ("test", 80),
        "scheme": "http",
    }
    asyncio.run(gateway.app(scope, receive, send))  # type: ignore[arg-type]
    content = b"".join(message.get("body", b"") for message in sent[1:])  # type: ignore[misc]
    return int(str(sent[0]["status"])), json.loads(content)


def test_the_publisher_away_does_not_lose_the_run(gateway: GatewayUnderTest) -> None:
    gateway.broker.away = True
    body = gateway.client().post("/datasets/x", files=files()).json()
    assert body["announced"] is False

    gateway.broker.away = False
    gateway.gateway.outbox.tick()

    assert [event.pipeline_run_id for event in gateway.broker.events] == [body["pipeline_run_id"]]
    assert gateway.run_store.runs.announced("x", body["pipeline_run_id"])


def test_an_upload_leaves_no_temporary_files(
    gateway: GatewayUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    gateway.client().post("/datasets/x", files=files())
    gateway.client().post("/datasets/x", files=files(b"broken"))

    assert list(scratch.iterdir()) == []


def test_memory_stays_flat_while_a_large_file_comes_in(tmp_path: Path) -> None:
    gateway = make_gateway(tmp_path, max_upload_bytes=40_000_000)

    async def body() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield b"7" * 99_999 + b"\n"

    tracemalloc.start()
    try:
        status, answer = post_stream(gateway, "/upload/raw-data/x/train.csv", body(), "application/octet-stream")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert status == 200
    assert answer["size_bytes"] == 30_000_000  # type: ignore[comparison-overlap]
    assert peak < 8_000_000


def test_a_line_without_an_end_is_refused_before_the_rest_of_it_comes(gateway: GatewayUnderTest) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="train"; filename="x"\r\n\r\ntime,a\n1,'
        for _ in range(1000):
            sent += 100_000
            yield b"1" * 100_000

    status, answer = post_stream(gateway, "/datasets/x", body(), "multipart/form-data; boundary=b")

    assert status == 422
    assert (answer["error"]["code"], answer["error"]["field"]) == ("line_too_long", "train")
    assert sent <= 1_300_000


def test_httpx_streams_the_same_upload(gateway: GatewayUnderTest) -> None:
    """Upload as the command line does."""
    transport = httpx.ASGITransport(gateway.app)

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.post("/datasets/x", files=files(test=TEST), headers={"x-api-key": KEY})

    assert asyncio.run(send()).status_code == 202
