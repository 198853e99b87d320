"""The service of a station, in a process of its own: what it answers is what the model says, and what it keeps."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from station_process import StationProcess

from supersimplenet import Detector, ModelConfig, SuperSimpleNet, export_model
from supersimplenet.cli.main import main
from supersimplenet.inference.model_folder import save_model
from supersimplenet.runtime import Inspector
from supersimplenet.station.access.accounts import Accounts
from supersimplenet.station.storage.database import Ids, open_database
from supersimplenet.station.storage.recorder import insert_results
from supersimplenet.station.storage.results import find


def picture(seed: int, kind: str = "PNG", size_px: tuple[int, int] = (40, 60)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size_px, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """Two models to choose from."""
    folder = tmp_path_factory.mktemp("models")
    for seed in (1, 2):
        (folder / f"v{seed}").mkdir()
        network = SuperSimpleNet(ModelConfig(backbone="compact", image_size=(64, 64)), seed=seed).eval()
        save_model(folder / f"v{seed}", network, {})
    return folder


@pytest.fixture(scope="module")
def station(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("station") / "station"
    options = {"folder": folder, "models": models, "max_request_mib": 1, "body_timeout_s": 1.0, "queue": 16}
    with StationProcess(models / "v1", **options) as started:
        yield started


@pytest.fixture(scope="module")
def detector(models) -> Detector:
    return Detector.load(models / "v1")


def test_each_way_of_sending_gives_the_scores_of_the_model(station, detector, tmp_path):
    contents = {"a.png": picture(1), "b.jpg": picture(2, "JPEG")}
    wanted = {}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        wanted[name] = detector.predict(tmp_path / name)
    raw = [station.inspect(content, name=name) for name, content in contents.items()]
    form = station.client.post("/v1/inspect", files=[("file", item) for item in contents.items()])
    images = [{"name": name, "content": base64.b64encode(content).decode()} for name, content in contents.items()]
    as_json = station.client.post("/v1/inspect", json={"images": images})
    for results in (raw, form.json()["results"], as_json.json()["results"]):
        assert [result["name"] for result in results] == list(contents)
        for result in results:
            prediction = wanted[result["name"]]
            assert result["score_logit"] == pytest.approx(prediction.score_logit, abs=1e-4)
            assert result["verdict"] == prediction.verdict
            assert result["stored"] == "database"


def test_what_was_answered_is_found_again_with_its_pictures(station):
    content = picture(3)
    result = station.inspect(content, name="c.png", part="lid 7")
    assert station.get(f"/v1/results/{result['id']}") == result
    assert station.client.get(f"/v1/results/{result['id']}/picture").content == content
    view = Image.open(io.BytesIO(station.client.get(f"/v1/results/{result['id']}/view?side=320").content))
    assert (view.format, view.size) == ("JPEG", (60, 40))
    heat, levels = (
        Image.open(io.BytesIO(station.client.get(f"/v1/results/{result['id']}/{kind}").content))
        for kind in ("heat", "levels")
    )
    assert (heat.mode, heat.size) == ("P", (60, 40))
    assert levels.mode == "L"
    assert np.array_equal(np.asarray(levels), np.asarray(heat))  # the numbers of its colours
    assert np.ptp(np.asarray(levels)) > 0
    assert station.client.get(f"/v1/results/{result['id']}/view?side=1000").status_code == 422
    model = station.get(f"/v1/models/{result['model']}")
    assert set(model["facts"]["files"]) == {"config.yaml", "model.safetensors"}
    assert model["facts"]["version"] == station.get("/v1/version")["version"]


def test_a_picture_that_comes_twice_is_kept_once(station):
    results = [station.inspect(picture(4)) for _ in range(2)]
    assert results[0]["id"] != results[1]["id"]
    sha256 = results[0]["picture"]["sha256"]
    assert [path.name for path in (station.folder / "pictures").rglob(f"{sha256}*")] == [f"{sha256}.png"]


def test_a_repeat_with_the_same_key_has_the_result_of_the_first(station):
    before = station.get("/v1/counts")
    first, second = station.inspect(picture(5), key="part-5"), station.inspect(picture(5), key="part-5")
    assert second == first
    assert sum(station.get("/v1/counts").values()) == sum(before.values()) + 1
    two = [{"name": name, "content": base64.b64encode(picture(5)).decode()} for name in "ab"]
    answers = [
        station.client.post("/v1/inspect", json={"images": two}, headers={"Idempotency-Key": "pair"}).json()
        for _ in range(2)
    ]
    assert answers[0]["results"] == answers[1]["results"]
    with ThreadPoolExecutor(6) as pool:  # also where they come at once
        together = list(pool.map(lambda _: station.inspect(picture(6), key="part-6")["id"], range(6)))
    assert len(set(together)) == 1


def test_a_key_that_comes_again_with_another_picture_is_refused(station):
    first = station.inspect(picture(7), key="counter-1")
    headers = {"Content-Type": "image/png", "Idempotency-Key": "counter-1"}
    other = station.client.post("/v1/inspect", content=picture(8), headers=headers)
    assert other.status_code == 409
    assert other.json()["error"]["code"] == "key_reused"
    content = [base64.b64encode(picture(seed)).decode() for seed in (8, 9)]  # also where neither is known yet
    images = [{"key": "counter-2", "content": text} for text in content]
    assert station.client.post("/v1/inspect", json={"images": images}).status_code == 409
    assert station.inspect(picture(7), key="counter-1") == first


def test_search_finds_each_result_once_in_every_order(station):
    sent = [station.inspect(picture(10 + seed), part="pages")["id"] for seed in range(7)]
    for order, wanted in (("newest", sent[::-1]), ("oldest", sent), ("worst", None)):
        found, after = [], None
        while True:
            page = station.get("/v1/results", part="pages", order=order, limit=3, **({"after": after} if after else {}))
            found += page["results"]
            after = page["next"]
            if after is None:
                break
        ids = [result["id"] for result in found]
        assert ids == wanted if wanted else sorted(ids) == sorted(sent)
        if order == "worst":
            scores = [result["score_logit"] for result in found]
            assert scores == sorted(scores, reverse=True)
    first = station.get(f"/v1/results/{sent[0]}")
    assert station.get("/v1/results", part="pages", until=first["taken_at"])["results"] == []
    assert len(station.get("/v1/results", part="pages", since=first["taken_at"])["results"]) == 7


def test_a_part_has_the_verdict_of_its_worst_photograph(station):
    images = [{"part": "lid 9", "content": base64.b64encode(picture(20 + seed)).decode()} for seed in range(3)]
    answer = station.client.post("/v1/inspect", json={"images": images}).json()
    (part,) = answer["parts"]
    worst = max(answer["results"], key=lambda result: result["score_logit"])
    assert (part["verdict"], part["score_logit"]) == (worst["verdict"], worst["score_logit"])
    assert part["photographs"] == 3
    later = station.get("/v1/parts/parts/lid 9")
    assert {name: later[name] for name in part} == part
    assert [result["id"] for result in later["results"]] == [result["id"] for result in answer["results"]]


def test_a_part_has_one_verdict_from_photographs_that_came_one_after_another(station):
    failed = station.client.post("/v1/inspect", params={"part": "lid 10"}, content=b"no picture")
    assert failed.status_code == 422
    second = station.client.post("/v1/inspect", params={"part": "lid 10"}, content=picture(23)).json()
    (part,) = second["parts"]
    assert (part["photographs"], part["failed"]) == (2, 1)
    assert part["verdict"] == ("bad" if second["results"][0]["verdict"] == "bad" else None)  # one was not seen
    assert second["results"][0]["part_result"] == part
    assert [result["part_result"] for result in station.get("/v1/results", part="lid 10")["results"]] == [part, part]


def test_a_review_is_counted_taken_back_and_in_the_trail(station):
    result = station.inspect(picture(30), part="review")
    other = "bad" if result["verdict"] == "good" else "good"
    kind = "missed" if other == "bad" else "false_calls"
    path = f"/v1/results/{result['id']}/review"
    reviewed = station.client.post(path, json={"verdict": other}).json()["review"]
    assert (reviewed["verdict"], reviewed["by"]) == (other, "local")
    assert station.get("/v1/counts", part="review")[kind] == 1
    found = station.get("/v1/results", reviewed=kind.replace("_calls", "-call"), part="review")["results"]
    assert [item["id"] for item in found] == [result["id"]]
    station.client.post(path, json={"verdict": None})
    assert station.get("/v1/counts", part="review")[kind] == 0
    trail = [entry for entry in station.get("/v1/audit")["entries"] if entry["what"] == "review"]
    assert [entry["details"]["verdict"] for entry in trail[:2]] == [None, other]


def test_a_mask_that_is_drawn_comes_back_pixel_for_pixel(station):
    result = station.inspect(picture(31), part="drawn")
    address = f"/v1/results/{result['id']}"
    assert station.client.get(f"{address}/mask").status_code == 404
    marked = np.random.default_rng(5).random((40, 60)) > 0.7
    file = io.BytesIO()
    Image.fromarray(marked).save(file, "PNG")  # of one bit
    sent = station.client.put(f"{address}/mask", content=file.getvalue(), headers={"Content-Type": "image/png"})
    review = sent.json()["review"]
    assert (review["verdict"], review["defect"]) == ("bad", None)
    kept = station.client.get(f"{address}/mask")
    assert hashlib.sha256(kept.content).hexdigest() == review["mask"]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(kept.content))), np.where(marked, 255, 0))
    named = station.client.post(f"{address}/review", json={"verdict": "bad", "defect": "scratch"}).json()["review"]
    assert (named["defect"], named["mask"]) == ("scratch", review["mask"])  # the mask stays
    for content, wanted in (
        (picture(31, size_px=(40, 59)), "the mask is 40 x 59 px (height x width), its image 40 x 60 px"),
        (b"no mask", "mask: not a readable image"),
    ):
        refused = station.client.put(f"{address}/mask", content=content)
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "mask")
        assert wanted in refused.json()["error"]["message"]
    without = station.client.delete(f"{address}/mask").json()["review"]
    assert (without["verdict"], without["defect"], without["mask"]) == ("bad", "scratch", None)
    assert station.client.delete(f"{address}/mask").status_code == 404
    answers = station.get(f"{address}/answers")["answers"]
    assert [(each["who"], each["verdict"], each["defect"], each["mask"]) for each in answers] == [
        ("local", "bad", None, review["mask"]),
        ("local", "bad", "scratch", review["mask"]),
        ("local", "bad", "scratch", None),
    ]
    refused = station.client.post(f"{address}/review", json={"verdict": "good", "defect": "scratch"})
    assert refused.json()["error"]["message"] == "defect: 'scratch', but the verdict is not bad; leave it out"


@pytest.mark.slow
def test_two_people_who_differ_need_a_third(models, tmp_path):
    with StationProcess(models / "v1", folder=tmp_path / "station") as station:
        result = station.inspect(picture(32))
        path = f"/v1/results/{result['id']}/review"
        tokens = {}
        for name in ("anna", "ben", "cem"):
            command = ["station", "add-token", name, "--role=operator", f"--folder={tmp_path / 'station'}"]
            done = subprocess.run(
                [sys.executable, "-m", "supersimplenet", *command], capture_output=True, text=True, check=True
            )
            tokens[name] = {"Authorization": f"Bearer {done.stdout.strip()}"}
        said = [
            station.client.post(path, json={"verdict": verdict}, headers=tokens[name]).json()["review"]["verdict"]
            for name, verdict in (("anna", "good"), ("ben", "bad"), ("cem", "bad"))
        ]
        assert said == ["good", "disputed", "bad"]
        found = station.client.get("/v1/results?reviewed=disputed", headers=tokens["anna"]).json()["results"]
        assert found == []
        station.client.post(path, json={"verdict": None}, headers=tokens["cem"])
        found = station.client.get("/v1/results?reviewed=disputed", headers=tokens["anna"]).json()["results"]
        assert [each["id"] for each in found] == [result["id"]]


def test_what_cannot_be_read_is_said_and_the_others_are_inspected(station):
    alone = station.client.post("/v1/inspect", content=b"no picture", headers={"Content-Type": "image/png"})
    assert alone.status_code == 422
    assert "not a readable image" in alone.json()["error"]["message"]
    (row,) = station.get("/v1/results", verdict="failed", limit=1)["results"]
    assert (row["verdict"], row["score"], row["error"]["code"]) == (None, None, "unreadable")
    assert station.client.get(f"/v1/results/{row['id']}/picture").content == b"no picture"
    assert station.client.get(f"/v1/results/{row['id']}/view").status_code == 404
    assert station.get("/v1/results", order="worst", limit=1)["results"][0]["id"] == row["id"]
    assert 'verdict="failed"' in station.client.get("/v1/metrics").text
    both = station.client.post("/v1/inspect", files=[("file", ("a.png", b"none")), ("file", ("b.png", picture(31)))])
    bad, good = both.json()["results"]
    assert bad["name"] == "a.png"
    assert bad["error"]["code"] == "unreadable"
    assert good["stored"] == "database"


def test_nothing_is_recorded_of_a_try(station):
    before = station.get("/v1/counts")
    result = station.inspect(picture(32), store="false")
    assert result["stored"] is None
    assert base64.b64decode(result["heat"].partition(",")[2]).startswith(b"\x89PNG")
    assert station.get("/v1/counts") == before
    assert station.client.get(f"/v1/results/{result['id']}").status_code == 404


def test_names_lead_nowhere(station):
    name = "../../../../etc/cron.d/x\r\nSet-Cookie: a=b"
    result = station.inspect(picture(33), name=name)
    assert result["name"] == "../../../../etc/cron.d/x\\r\\nSet-Cookie: a=b"
    form = station.client.post("/v1/inspect", files={"file": ("..\\..\\x.png", picture(33))})
    assert form.json()["results"][0]["name"] == "..\\..\\x.png"
    own = {path.name for path in station.folder.iterdir()}
    sometimes = {"station.db-wal", "station.db-shm", ".lock", "library"}  # the library holds masks that were drawn
    assert own - sometimes == {"station.db", "pictures", "maps", "shown"}
    for path in ("/assets/../pages.py", "/assets/%2e%2e/pages.py", "/v1/results/..%2f..%2fstation.db/picture"):
        assert station.client.get(path).status_code == 404


@pytest.mark.parametrize("what", ["stated", "chunked", "many"])
def test_too_much_is_refused(station, what):
    if what == "stated":
        answer = station.client.post("/v1/inspect", content=bytes(2 << 20), headers={"Content-Type": "image/png"})
    elif what == "chunked":
        blocks = (bytes(1 << 16) for _ in range(32))
        answer = station.client.post("/v1/inspect", content=blocks, headers={"Content-Type": "image/png"})
    else:
        images = [{"content": base64.b64encode(picture(1)).decode()}] * 17
        answer = station.client.post("/v1/inspect", json={"images": images})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == ("too_many" if what == "many" else "too_large")


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"", "image/png", 422),
        (b"{", "application/json", 422),
        (b'{"images": 3}', "application/json", 422),
        (b'{"images": [{"content": 3}]}', "application/json", 422),
        (b'{"images": []}', "application/json", 422),
        (b'{"images": [{"content": "YQ==", "name": 3}]}', "application/json", 422),
        (b"[" * 100_000, "application/json", 422),
        (b"x", "multipart/form-data", 422),
        (b"x", "multipart/form-data; boundary=a", 422),
        (b"x", "text/html", 415),
    ],
)
def test_a_body_of_another_form_is_refused(station, content, kind, status):
    answer = station.client.post("/v1/inspect", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"images": [', "not readable as JSON (Expecting value: line 1 column 13 (char 12)); wanted {"),
        ("[1]", "the body is not an object; wanted {"),
        ("{}", "images is missing; wanted {"),
        ('{"images": "YQ=="}', "images is not a list; wanted {"),
        ('{"images": [], "part": "lid 7"}', "the body: no field part; wanted {"),
        ('{"images": ["YQ=="]}', "image 1 is not an object; wanted {"),
        ('{"images": [{"name": "a.png"}]}', 'image 1 ("a.png"): content is missing; wanted {'),
        ('{"images": [{"content": 3}]}', "image 1: content is not a text; wanted {"),
        ('{"images": [{"content": "YQ==", "part": 3}]}', "image 1: part is not a text; wanted {"),
        ('{"images": [{"content": "YQ==", "prat": "3"}]}', "image 1: no field prat; did you mean part?; wanted {"),
        (
            '{"images": [{"content": "YQ=="}, {"name": "b.png", "content": "part_017.png"}]}',
            'image 2 ("b.png"): content is not base64: A-Z, a-z, 0-9, + and /, without line ends; wanted {',
        ),
        (
            '{"images": [{"name": "c\\u202e.png", "content": "data:image/png;base64,YQ=="}]}',
            "image 1 (\"c\\u202e.png\"): content is a data URL; send only what follows 'base64,'; wanted {",
        ),
    ],
)
def test_json_that_is_wrong_says_where_and_why(station, body, said):
    answer = station.client.post("/v1/inspect", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "json"
    assert answer.json()["error"]["message"].startswith(said)


def test_who_sends_slowly_is_ended(station):
    host, port = station.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as slow:
        head = "POST /v1/inspect HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 100\r\n\r\n"
        slow.sendall(head.encode() + b"x")
        assert slow.recv(1000).startswith(b"HTTP/1.1 408")


def test_wrong_questions_are_refused(station):
    for path, status in (
        ("/v1/results?since=yesterday", 422),
        ("/v1/results?limit=100000", 422),
        ("/v1/results?verdict=fine", 422),
        ("/v1/results?after=nothing", 404),
        ("/v1/results/0" * 3, 404),
        ("/v1/results/%00", 404),
        ("/v1/parts/parts/%00", 404),
        ("/v1/results?product=%00", 422),
        ("/v1/results?verdict=good&verdict=bad", 422),
    ):
        answer = station.client.get(path)
        assert answer.status_code == status, (path, answer.text)
        assert answer.json()["error"]["message"]


def test_every_route_refuses_a_parameter_that_it_does_not_have(station):
    paths = station.get("/v1/openapi.json")["paths"]
    calls = [(method, path) for path, methods in paths.items() for method in methods]
    assert len(calls) >= 30
    for method, path in calls:
        answer = station.client.request(method, re.sub(r"\{\w+\}", "x", path), params={"sicne": "x"})
        assert answer.status_code == 422, (method, path)
        assert answer.json()["error"]["message"].startswith("query: sicne: no such parameter"), (method, path)
    for name in ("results", "counts", "results.csv", "results.parquet", "results.zip"):
        message = station.client.get(f"/v1/{name}?verdit=bad").json()["error"]["message"]
        assert message.startswith("query: verdit: no such parameter; did you mean verdict?; this address takes ")
    assert (
        " model, order, part, product, reviewed, since"
        in station.client.get("/v1/results?x").json()["error"]["message"]
    )


def test_the_plus_of_a_zone_that_came_as_a_space_is_explained(station):
    result = station.inspect(picture(34), part="zone")
    at = datetime.fromisoformat(result["taken_at"].replace("Z", "+00:00"))
    same = at.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat()
    assert station.get("/v1/results", part="zone", since=same)["results"] == [result]
    assert station.get("/v1/results", part="zone", until=same)["results"] == []
    for name in ("since", "until"):
        answer = station.client.get(f"/v1/results?part=zone&{name}={same}")
        assert answer.status_code == 422
        said = answer.json()["error"]["message"]
        assert said.startswith(
            f"query.{name}: a space before the zone; in an address + means a space, so write + as %2B"
        )
    without = at.replace(tzinfo=None).isoformat(" ")  # UTC, as docs/station.md says
    assert station.get("/v1/results", part="zone", since=without)["results"] == [result]


def test_a_product_or_model_that_never_was_is_said(station):
    result = station.inspect(picture(35))
    engine = open_database(f"sqlite:///{station.folder / 'station.db'}")
    record = find(engine, result["id"]) | {"id": Ids().new(1), "taken_at": 1, "product": "lids"}  # of earlier days
    insert_results(engine, [record])
    engine.dispose()
    for name in ("results", "counts", "results.csv", "results.parquet", "results.zip"):
        for asked, code, said in (
            ("product=lid", "product", "no product 'lid'; did you mean lids?; known are lids, parts"),
            (
                "product=lids&model=0193",
                "model",
                "no model '0193'; wanted an id of 64 digits as in results and /v1/models",
            ),
        ):
            answer = station.client.get(f"/v1/{name}?{asked}")
            assert (answer.status_code, answer.json()["error"]) == (404, {"code": code, "message": said}), name
    for product in ("parts", "lids"):
        wanted = {"product": product, "model": result["model"]}
        assert station.get("/v1/results", **wanted, since="2100-01-01T00:00:00Z")["results"] == []
        assert len(station.get("/v1/results", **wanted, limit=1)["results"]) == 1


def test_exports_hold_what_was_found(station, tmp_path):
    sent = [station.inspect(picture(40 + seed), part="=cmd()", name="=1+1") for seed in range(3)]
    rows = list(csv.DictReader(io.StringIO(station.client.get("/v1/results.csv?part=%3Dcmd()").text)))
    assert [row["id"] for row in rows] == [result["id"] for result in sent]
    assert {row["part"] for row in rows} == {"'=cmd()"}
    assert [float(row["score_logit"]) for row in rows] == [result["score_logit"] for result in sent]
    table = pq.read_table(io.BytesIO(station.client.get("/v1/results.parquet?part=%3Dcmd()").content)).to_pylist()
    assert [row["id"] for row in table] == [result["id"] for result in sent]
    assert {row["part"] for row in table} == {"=cmd()"}
    archive = zipfile.ZipFile(io.BytesIO(station.client.get("/v1/results.zip?part=%3Dcmd()").content))
    names = {f"{result['verdict']}/{result['id']}.png" for result in sent}
    assert set(archive.namelist()) == names | {"results.csv"}
    assert archive.read(sorted(names)[0]) in {picture(40 + seed) for seed in range(3)}


def test_events_bring_new_results_and_those_that_were_missed(station):
    first = station.inspect(picture(50), part="events")
    missed = station.inspect(picture(51), part="events")
    seen: list[dict] = []
    begun, done = threading.Event(), threading.Event()

    def watch() -> None:
        headers = {"Last-Event-ID": first["id"]}
        with httpx.stream("GET", f"{station.address}/v1/events", headers=headers, timeout=30) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {") and line != "data: {}":
                    seen.append(json.loads(line.removeprefix("data: ")))
                    begun.set()
                if len(seen) == 2:
                    done.set()
                    return

    thread = threading.Thread(target=watch)
    thread.start()
    assert begun.wait(30)
    new = station.inspect(picture(52), part="events")
    assert done.wait(30)
    thread.join()
    assert [result["id"] for result in seen] == [missed["id"], new["id"]]


def test_a_change_of_model_loses_no_request(station):
    stop = threading.Event()
    answers: list[dict] = []

    def send(seed: int) -> None:
        with httpx.Client(base_url=station.address, timeout=60) as client:
            while not stop.is_set():
                answer = client.post("/v1/inspect", content=picture(seed), headers={"Content-Type": "image/png"})
                assert answer.status_code == 200, answer.text
                answers.append(answer.json()["results"][0])

    assert station.get("/v1/models/available") == ["v1", "v2"]
    assert station.client.put("/v1/products/parts/model", json={"name": "../v2"}).status_code == 422
    before = station.get("/v1/models")[0]["id"]
    with ThreadPoolExecutor(4) as pool:
        sending = [pool.submit(send, seed) for seed in range(4)]
        time.sleep(0.5)
        changed = station.client.put("/v1/products/parts/model", json={"name": "v2"})
        time.sleep(0.5)
        stop.set()
        for future in sending:
            future.result()
    assert changed.status_code == 200, changed.text
    assert {answer["model"] for answer in answers} == {before, changed.json()["id"]}
    assert station.inspect(picture(1))["model"] == changed.json()["id"]
    assert station.client.put("/v1/products/parts/model", json={"name": "v1"}).json()["id"] == before


def test_a_full_queue_answers_busy_and_records_what_it_took(models, tmp_path):
    with StationProcess(models / "v1", folder=tmp_path / "station", queue=2) as station:

        def send(seed: int) -> httpx.Response:
            return httpx.post(
                f"{station.address}/v1/inspect",
                content=picture(seed, size_px=(800, 800)),
                headers={"Content-Type": "image/png"},
                timeout=60,
            )

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(send, range(48)))
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 503}
        refused = next(answer for answer in answers if answer.status_code == 503)
        assert refused.headers["Retry-After"] == "1"
        counts = station.get("/v1/counts")
        assert counts["good"] + counts["bad"] == statuses.count(200)
        assert station.get("/v1/ready") == {"ready": True}


def test_a_stop_finishes_what_was_taken(models, tmp_path):
    station = StationProcess(models / "v1", folder=tmp_path / "station")
    with ThreadPoolExecutor(8) as pool:
        sending = [pool.submit(station.inspect, picture(seed, size_px=(600, 600))) for seed in range(8)]
        while station.get("/v1/status")["in_work"] == 0 and not all(future.done() for future in sending):
            time.sleep(0.001)
        station.process.terminate()
        # those that fail were not taken: the station listens no more
        unanswered = [isinstance(future.exception(), httpx.TransportError) for future in sending]
        answered = [future.result()["id"] for future, failed in zip(sending, unanswered, strict=True) if not failed]
    assert station.process.wait(60) == 0
    station.process.stdout.close()
    station.client.close()
    assert answered
    with StationProcess(models / "v1", folder=tmp_path / "station") as again:
        found = {result["id"] for result in again.get("/v1/results", limit=100)["results"]}
    assert found >= set(answered)


@pytest.mark.slow
def test_two_stations_share_no_folder_and_no_port(station, models, tmp_path):
    with pytest.raises(AssertionError, match="another process is writing here"):
        StationProcess(models / "v1", folder=station.folder)
    with pytest.raises(AssertionError, match=r"cannot be listened at \(Address already in use\)"):
        StationProcess(models / "v1", folder=tmp_path / "other", port=station.options["port"])


def test_an_address_that_cannot_be_listened_at_is_a_wrong_call(station, models, tmp_path, capsys):
    call = ["serve", "--model", str(models / "v1"), "--folder", str(tmp_path / "other")]
    port = station.options["port"]
    for options, said in (
        (
            ["--port", str(port)],
            f"port: {port} of 127.0.0.1 cannot be listened at (Address already in use); choose another --port, or stop "
            "what has it",
        ),
        (
            ["--host", "203.0.113.1"],  # of an example, and nobody's
            "host: 203.0.113.1 cannot be listened at (Cannot assign requested address); wanted an address or name of "
            "this computer, or 0.0.0.0 for all its addresses",
        ),
        (
            ["--host", "a" * 64],
            f"host: {'a' * 64} cannot be listened at (not a name of a computer); wanted an address or name of this "
            "computer, or 0.0.0.0 for all its addresses",
        ),
    ):
        assert main([*call, *options]) == 2
        assert capsys.readouterr().err == f"supersimplenet serve: {said}\n"


@pytest.mark.slow
def test_the_printed_address_can_be_opened(models, tmp_path):
    (tmp_path / "station").mkdir()
    engine = open_database(f"sqlite:///{tmp_path / 'station' / 'station.db'}")
    Accounts(engine).add_user("anna", "admin", "long enough", by="local")
    engine.dispose()
    with serving(models, tmp_path / "station", "--host", "0.0.0.0") as (process, line):
        address = re.fullmatch(r"the station: (http://.*:\d+), on all addresses of this computer\n", line)[1]
        assert urlsplit(address).hostname in (socket.gethostname().lower(), "localhost")
        assert httpx.get(f"{address}/v1/live").json() == {"live": True}
        process.terminate()
        assert process.wait(60) == 0
        assert process.stderr.read().splitlines()[-1] == "stopped; nothing was in work"


@pytest.mark.slow
def test_a_stop_says_what_was_finished(models, tmp_path):
    content = io.BytesIO()
    Image.new("RGB", (5000, 5000)).save(content, "PNG")  # takes longer to read than a stop to arrive
    with serving(models, tmp_path / "station") as (process, line), ThreadPoolExecutor(1) as pool:
        address = line.removeprefix("the station: ").strip()
        headers = {"Content-Type": "image/png"}
        sending = pool.submit(
            httpx.post, f"{address}/v1/inspect", content=content.getvalue(), headers=headers, timeout=60
        )
        while httpx.get(f"{address}/v1/status").json()["in_work"] == 0:
            assert not sending.done(), sending.result().text
        process.send_signal(signal.SIGINT)
        assert sending.result().json()["results"][0]["stored"] == "database"
        assert process.wait(60) == 0
        assert process.stderr.read().splitlines()[-1] == "stopped; finished first: 1 picture in work"


@contextmanager
def serving(models: Path, folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the command on a port of its own; yield its process and its first line."""
    command = [sys.executable, "-m", "supersimplenet", "serve", "--model", str(models / "v1"), "--folder", str(folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "--port", "0", *options], **pipes) as process:
        try:
            yield process, process.stdout.readline()
        finally:
            process.kill()


def test_a_certificate_and_key_that_are_swapped_are_refused_at_once(models, tmp_path):
    for name in ("a.pem", "b.pem"):
        (tmp_path / name).write_text("no PEM")
    options = {"folder": tmp_path / "station", "certificate": tmp_path / "a.pem", "key": tmp_path / "b.pem"}
    with pytest.raises(AssertionError, match=r"a\.pem and b\.pem are no certificate and its private key"):
        StationProcess(models / "v1", **options)


@pytest.mark.slow
def test_tls_hides_cookies_and_asks_for_itself_again(models, tmp_path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command += f" -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    options = {"folder": tmp_path / "station", "certificate": certificate, "key": key}
    with StationProcess(models / "v1", **options) as station:
        assert station.address.startswith("https://")
        assert station.inspect(picture(80))["stored"] == "database"
        user = {"name": "chief", "role": "admin", "password": "long enough"}
        station.client.post("/v1/users", json=user)
        login = station.client.post("/v1/login", json={"name": "chief", "password": "long enough"})
    cookie = login.headers["Set-Cookie"]
    assert cookie.startswith(f"__Host-station-{station.options['port']}=")
    assert {"HttpOnly", "Secure", "SameSite=strict"} <= set(cookie.split("; "))
    assert login.headers["Strict-Transport-Security"] == "max-age=31536000"


@pytest.mark.slow
def test_an_exported_file_is_served_without_torch(models, tmp_path):
    file = tmp_path / "parts.onnx"
    export_model(models / "v1", file, file_format="onnx")
    content = picture(60)
    (tmp_path / "a.png").write_bytes(content)
    wanted = Inspector.load(file).predict(tmp_path / "a.png")
    with StationProcess(file, folder=tmp_path / "station") as station:
        result = station.inspect(content)
        mapped = Path(f"/proc/{station.process.pid}/maps").read_text()
    assert result["score_logit"] == pytest.approx(wanted.score_logit, abs=1e-5)
    assert "onnxruntime" in mapped
    assert "libtorch" not in mapped


def test_the_calls_of_the_guide_work_as_they_stand(models, tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "station.md").read_text(encoding="utf-8")
    calls = re.findall(r"^(?:curl|printf) .*$", page, re.MULTILINE)
    assert len(calls) >= 14
    (tmp_path / "models").mkdir()
    shutil.copytree(models / "v2", tmp_path / "models" / "parts-2")
    for name in ("part_017.png", "part_018.png"):
        (tmp_path / name).write_bytes(picture(70))
    login = {"name": "anna", "password": "long enough"}
    (tmp_path / "login.json").write_text(json.dumps(login))
    answers = {}
    with StationProcess(models / "v1", folder=tmp_path / "station", models=tmp_path / "models") as station:
        last = None
        for call in calls:
            if call.endswith("/v1/login"):  # from here on with users
                (last,) = station.get("/v1/results", limit=1)["results"]
                station.client.post("/v1/users", json={**login, "role": "admin"}).raise_for_status()
            line = call.replace("http://127.0.0.1:8700", station.address)
            if last is not None:
                line = line.replace("/ID/", f"/{last['id']}/").replace(
                    "CSRF'", f"{answers.get('/v1/me', {}).get('csrf')}'"
                )
            done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (line, done.stderr)
            path = call.rstrip("'").partition(":8700")[2]
            answers[path] = json.loads(done.stdout) if done.stdout else None
    (result,) = answers["/v1/inspect"]["results"]
    assert (result["name"], result["part"]) == ("part_017.png", "lid 17")
    assert result["picture"]["sha256"] == hashlib.sha256(picture(70)).hexdigest()
    assert sum(answers["/v1/counts"].values()) == 4  # one picture, two in a form, one with a key
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 5
    assert answers["/v1/products/parts/model"]["path"].endswith("parts-2")
    review = next(answer for path, answer in answers.items() if path.endswith("/review"))
    assert (review["id"], review["review"]["verdict"], review["review"]["by"]) == (last["id"], "bad", "anna")
    trail = [entry["what"] for entry in answers["/v1/audit?limit=100"]["entries"]]
    assert trail == ["review", "log in", "add user", "model"]


@pytest.mark.slow
def test_the_service_keeps_to_its_own_description(models, tmp_path):
    with StationProcess(models / "v1", folder=tmp_path / "station", models=models) as station:
        user = {"name": "chief", "role": "admin", "password": "long enough"}
        assert station.client.post("/v1/users", json=user).status_code == 201
        login = {name: user[name] for name in ("name", "password")}
        csrf = station.client.post("/v1/login", json=login).json()["csrf"]
        body, headers = {"name": "check", "role": "admin"}, {"X-CSRF-Token": csrf}
        token = station.client.post("/v1/tokens", json=body, headers=headers).json()["token"]
        command = ["run", f"{station.address}/v1/openapi.json", "-H", f"Authorization: Bearer {token}"]
        command += ["--phases", "examples,coverage,fuzzing", "--max-examples", "25", "--seed", "1"]
        command += ["-c", "all", "--exclude-checks", "positive_data_acceptance,allow_header_conformance"]
        command += ["--exclude-path", "/v1/events", "--exclude-path", "/v1/tokens/{name}", "--continue-on-failure"]
        done = subprocess.run(
            [Path(sys.executable).with_name("schemathesis"), *command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-8000:]
        assert station.get("/v1/live") == {"live": True}
