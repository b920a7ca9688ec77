"""The file routes: upload to raw-data only, download from three buckets only."""

from __future__ import annotations

import bz2
from pathlib import Path

import pytest

from flts.ingest.uploads import newest_upload
from tests.gateway import GatewayUnderTest, csv_text, following, make_gateway

TRAIN = csv_text(300)
TEST = csv_text(80, start=following(300), seed=1)


@pytest.fixture
def gateway(tmp_path: Path) -> GatewayUnderTest:
    return make_gateway(tmp_path)


@pytest.mark.parametrize("form", [True, False])
def test_a_file_lands_and_starts_no_run(gateway: GatewayUnderTest, form: bool) -> None:
    arguments = {"files": {"file": ("t.csv", TRAIN)}} if form else {"content": TRAIN}

    answer = gateway.client().post("/upload/raw-data/PobleSec/train.csv", **arguments)

    assert answer.status_code == 200, answer.text
    wanted = {
        "status": "success",
        "bucket": "raw-data",
        "object_name": "PobleSec/train.csv",
        "size_bytes": len(TRAIN),
    }
    assert wanted.items() <= answer.json().items()
    assert gateway.store.get("raw-data", "_incoming/PobleSec/train.csv")[0] == TRAIN
    assert gateway.broker.events == []
    assert gateway.keys("pipeline-runs") == []


def test_both_files_become_one_upload_under_their_content(gateway: GatewayUnderTest) -> None:
    client = gateway.client()
    client.post("/upload/raw-data/PobleSec/test.csv", content=TEST)
    assert newest_upload(gateway.store, "raw-data", "PobleSec") is None

    client.post("/upload/raw-data/PobleSec/train.csv", content=TRAIN)

    upload = newest_upload(gateway.store, "raw-data", "PobleSec")
    assert upload is not None
    assert upload.test is not None
    assert gateway.store.get("raw-data", upload.train.key)[0] == TRAIN
    assert gateway.store.get("raw-data", upload.test.key)[0] == TEST


def test_a_run_on_landed_files_is_the_run_of_the_same_files_uploaded(gateway: GatewayUnderTest) -> None:
    client = gateway.client()
    client.post("/upload/raw-data/PobleSec/train.csv", content=TRAIN)
    client.post("/upload/raw-data/PobleSec/test.csv", content=TEST)

    landed = client.post("/runs", json={"identifier": "PobleSec"}).json()
    uploaded = client.post("/datasets/PobleSec", files={"train": ("a", TRAIN), "test": ("b", TEST)}).json()

    assert landed["claims"] == uploaded["claims"]
    assert landed["cause"] == "retrain"
    assert landed["pipeline_run_id"] != uploaded["pipeline_run_id"]


def test_what_was_uploaded_last_is_the_newest_even_if_it_had_been_uploaded_before(gateway: GatewayUnderTest) -> None:
    client = gateway.client()
    first = client.post("/datasets/x", files={"train": ("a", TRAIN)}).json()
    client.post("/datasets/x", files={"train": ("a", csv_text(300, seed=5))})
    client.post("/datasets/x", files={"train": ("a", TRAIN)})

    again = client.post("/runs", json={"identifier": "x"}).json()

    assert again["claims"]["train"]["sha256"] == first["claims"]["train"]["sha256"]


@pytest.mark.parametrize(
    "bucket", ["model-promotion", "model-bundles", "pipeline-runs", "processed-data", "inference-logs", "mlflow"]
)
def test_nobody_forges_what_services_write(gateway: GatewayUnderTest, bucket: str) -> None:
    answer = gateway.client().post(f"/upload/{bucket}/PobleSec/current.json", content=b"{}")

    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "bucket_not_writable"
    assert all(gateway.keys(each) == [] for each in ("model-promotion", "model-bundles", "pipeline-runs"))


@pytest.mark.parametrize(
    "key",
    [
        "PobleSec/other.csv",
        "PobleSec/deep/train.csv",
        "train.csv",
        "PobleSec/train.csv/",
        "_incoming/train.csv",
        "a%20b/train.csv",
        "%2e%2e/train.csv",
        "x/%2e%2e/%2e%2e/train.csv",
        "x%2f..%2ftrain.csv",
        "%252e%252e/train.csv",
        "x\\train.csv",
        "x%00/train.csv",
        "x%0a/train.csv",
        f"{'a' * 65}/train.csv",
        f"{'a' * 3000}/train.csv",
        "%ff%fe/train.csv",
    ],
)
def test_hostile_keys_are_refused(gateway: GatewayUnderTest, tmp_path: Path, key: str) -> None:
    for answer in (
        gateway.client().post(f"/upload/raw-data/{key}", content=b"1"),
        gateway.client().get(f"/download/raw-data/{key}"),
    ):
        assert answer.status_code in {404, 422}, answer.text
        assert set(answer.json()) == {"error"}
    assert gateway.keys("raw-data") == []
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_the_limit_holds_with_and_without_a_form(tmp_path: Path) -> None:
    client = make_gateway(tmp_path, max_upload_bytes=1000).client()
    for answer in (
        client.post("/upload/raw-data/x/train.csv", content=b"1" * 1001),
        client.post("/upload/raw-data/x/train.csv", files={"file": ("a", b"1" * 1001)}),
    ):
        assert answer.status_code == 413
        assert answer.json()["error"]["field"] == "file"
    assert client.post("/upload/raw-data/x/train.csv", content=b"1" * 1000).status_code == 200


@pytest.mark.parametrize(
    ("data", "code"),
    [(bz2.compress(TRAIN), "not_csv"), (b"%PDF-1.7" + TRAIN, "not_csv"), (b"a,b\n1,\0\n", "not_text")],
)
@pytest.mark.parametrize("form", [True, False])
def test_what_can_be_no_csv_does_not_land(gateway: GatewayUnderTest, data: bytes, code: str, form: bool) -> None:
    arguments = {"files": {"file": ("t.csv", data)}} if form else {"content": data}

    answer = gateway.client().post("/upload/raw-data/x/train.csv", **arguments)

    assert answer.status_code == 422
    assert (answer.json()["error"]["code"], answer.json()["error"]["field"]) == (code, "file")
    assert gateway.keys("raw-data") == []


def test_an_empty_file_is_refused(gateway: GatewayUnderTest) -> None:
    assert gateway.client().post("/upload/raw-data/x/train.csv", content=b"").json()["error"]["code"] == "empty_file"


@pytest.mark.parametrize("bucket", ["raw-data", "processed-data", "inference-logs"])
def test_a_download_is_the_object(gateway: GatewayUnderTest, bucket: str) -> None:
    data = bytes(range(256)) * 20_000
    gateway.store.put(bucket, "x/date=2024-01-01/part.bin", data)

    answer = gateway.client().get(f"/download/{bucket}/x/date=2024-01-01/part.bin")

    assert answer.status_code == 200
    assert answer.content == data
    assert answer.headers["content-length"] == str(len(data))
    assert answer.headers["content-disposition"] == 'attachment; filename="part.bin"'


@pytest.mark.parametrize("bucket", ["model-promotion", "model-bundles", "pipeline-runs", "mlflow", "secrets", ".flts"])
def test_other_buckets_are_nobodys_business(gateway: GatewayUnderTest, bucket: str) -> None:
    answer = gateway.client().get(f"/download/{bucket}/x/current.json")

    assert answer.status_code == 403


def test_an_object_that_is_not_there_is_a_404(gateway: GatewayUnderTest) -> None:
    answer = gateway.client().get("/download/raw-data/x/train.csv")

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "object_not_found"
