"""Models of a station: trained from a dataset, compared, promoted and taken back, and never a state in between."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select
from station_process import StationProcess
from station_records import result
from test_station_service import picture

from supersimplenet import ModelConfig, SuperSimpleNet
from supersimplenet.cli.main import main
from supersimplenet.errors import ConfigError
from supersimplenet.inference.config import CONFIG_FILE
from supersimplenet.inference.detector import Detector
from supersimplenet.inference.model_folder import save_model
from supersimplenet.station.access import audit
from supersimplenet.station.library.intake import Incoming, take
from supersimplenet.station.library.store import LibraryStore
from supersimplenet.station.registry.promotions import in_use, promote, promotions, roll_back
from supersimplenet.station.registry.records import all_models, one_model, register, set_state
from supersimplenet.station.registry.shadow import run_shadow
from supersimplenet.station.review.answers import add_answer
from supersimplenet.station.review.opinions import Said
from supersimplenet.station.review.queue import review_queue
from supersimplenet.station.review.sampling import Sampling
from supersimplenet.station.storage.database import now_ms, open_database, writing
from supersimplenet.station.storage.pictures import PictureStore
from supersimplenet.station.storage.recorder import insert_results
from supersimplenet.station.storage.schema import SHADOWS

WITHIN_S = 60.0


@pytest.fixture
def engine(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'station.db'}")
    yield engine
    engine.dispose()


def evidence(found: int, passed: int) -> dict:
    """Of so many parts without a new mistake."""
    bounds = {name: 1 - 0.05 ** (1 / parts) for name, parts in (("missed_bound", found), ("rejected_bound", passed))}
    zero = dict.fromkeys(("newly_missed", "newly_rejected", "only_candidate_right", "only_current_right"), 0)
    return {"found": found, "passed": passed, **bounds, **zero, "p_value": 1.0}


def candidate(
    engine, station: Path, product: str = "parts", state: str = "candidate", compared: int | None = None, parts=(14, 14)
) -> int:
    found = {"reasons": ["2 new escapes"], "compared": compared, "evidence": evidence(*parts)}
    with writing(engine) as connection:
        model = register(connection, product=product, state=state, who="anna", found=found)
    model.model(station).mkdir(parents=True)
    (model.model(station) / CONFIG_FILE).write_text("")
    return model.number


def test_a_rollback_goes_back_one_model_after_the_other(engine, tmp_path):
    one, two, three = (candidate(engine, tmp_path, compared=number) for number in range(3))
    other = candidate(engine, tmp_path, product="lids")
    with writing(engine) as connection:
        for number in (one, two, other, three):
            promote(connection, tmp_path, number, who="anna", why=f"better than before {number}")
        assert in_use(connection, "parts").number == three
        assert in_use(connection, "lids").number == other
        assert roll_back(connection, tmp_path, "parts", who="ben").model == two
        promote(connection, tmp_path, three, who="anna")  # once more
        assert [roll_back(connection, tmp_path, "parts", who="ben").model for _ in range(2)] == [two, one]
        with pytest.raises(ConfigError, match="product 'parts': no earlier model to go back to"):
            roll_back(connection, tmp_path, "parts", who="ben")
        assert [(each.model, each.is_rollback) for each in promotions(connection, "parts")] == [
            (one, False),
            (two, False),
            (three, False),
            (two, True),
            (three, False),
            (two, True),
            (one, True),
        ]
        trail = [(entry.what, entry.details["model"]) for entry in audit.entries(connection)]
        assert trail[:2] == [("roll back", one), ("roll back", two)]
        assert audit.check(connection) is None


def test_what_may_not_be_promoted_is_refused_with_the_reason(engine, tmp_path):
    refused, training = (candidate(engine, tmp_path, state=state) for state in ("refused", "training"))
    gone = candidate(engine, tmp_path)
    with engine.connect() as connection:
        (one_model(connection, gone).model(tmp_path) / CONFIG_FILE).unlink()
    with writing(engine) as connection:
        for number, wanted in (
            (refused, "model 1: refused (2 new escapes); with --force it is promoted all the same"),
            (training, "model 2: training; wanted a candidate"),
            (gone, "is not there; restore it from a backup"),
            (9, "no model 9 in the registry"),
        ):
            with pytest.raises(ConfigError) as error:
                promote(connection, tmp_path, number, who="anna")
            assert wanted in str(error.value)
        assert promotions(connection) == []
        promote(connection, tmp_path, refused, who="anna", force=True)
        assert audit.entries(connection)[0].details["forced"] is True
        with pytest.raises(ConfigError, match="model 1: in use already"):
            promote(connection, tmp_path, refused, who="anna", force=True)


def test_no_candidate_comes_into_use_by_fewer_parts_than_its_margin_needs(engine, tmp_path):
    """A fifth needs 14 parts: 0.8^14 is below 5 %, 0.8^13 is not."""
    candidate(engine, tmp_path)
    few, more, other, unknown = (
        candidate(engine, tmp_path, compared=number, parts=parts)
        for number, parts in ((1, (13, 40)), (1, (14, 14)), (9, (60, 60)), (None, (60, 60)))
    )
    with writing(engine) as connection:
        promote(connection, tmp_path, 1, who="anna")  # nothing is in use before it
        for number, wanted in (
            (few, "compared by 13 bad parts that the current model finds, 0 with a new mistake: this shows only that "
             "the candidate misses at most 20.6 % of such parts; for 20.0 %, 14 without a new mistake are needed"),
            (other, "model 4: was compared with model 9, not with model 1, which is in use"),
            (unknown, "model 5: was not compared with model 1, which is in use"),
        ):  # fmt: skip
            with pytest.raises(ConfigError) as error:
                promote(connection, tmp_path, number, who="anna")
            assert wanted in str(error.value)
            assert f"registry compare {number} --folder {tmp_path}" in error.value.commands[0][1]
        with pytest.raises(ConfigError) as error:
            promote(connection, tmp_path, few, who="anna")
        assert f"registry promote {few} --margin 0.21 --folder" in error.value.commands[1][1]
        promote(connection, tmp_path, few, who="anna", margin=0.21)
        assert "forced" not in audit.entries(connection)[0].details
        roll_back(connection, tmp_path, "parts", who="anna")
        with pytest.raises(ConfigError, match="margin: 1; wanted a share above 0 and below 1"):
            promote(connection, tmp_path, more, who="anna", margin=1)
        promote(connection, tmp_path, more, who="anna")


def run(*arguments: str) -> str:
    """Run a command in a process of its own, as a person or a job does beside the station."""
    command = [sys.executable, "-m", "supersimplenet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_a_candidate_is_compared_by_golden_and_by_reviewed_parts_that_nothing_was_trained_on(engine, tmp_path):
    place = f"--folder={tmp_path}"
    for seed in (1, 2):
        network = SuperSimpleNet(ModelConfig(backbone="compact", image_size=(64, 64)), seed=seed).eval()
        save_model(tmp_path / f"v{seed}", network, {})
    assert main(["registry", "add", str(tmp_path / "v1"), "--product=parts", place]) == 0
    assert main(["registry", "compare", "1", place]) == 2  # with nothing
    assert main(["registry", "promote", "1", place]) == 0
    assert main(["registry", "add", str(tmp_path / "v2"), "--product=parts", place]) == 0
    library, pictures = LibraryStore(tmp_path), PictureStore(tmp_path)
    with writing(engine) as connection:
        for seed, (part, role) in enumerate((("a", "train"), ("b", "calibration"), ("c", "golden"))):
            incoming = Incoming(content=picture(seed), name=f"{seed}.png", label="good", part=part, role=role)
            take(connection, library, "parts", incoming)
    as_webp = io.BytesIO()
    Image.open(io.BytesIO(picture(0))).save(as_webp, "WEBP", lossless=True)
    week = 7 * 86_400_000
    contents = {  # of results: content, answers, part, age in weeks
        "trained on": (picture(0), "g", None, 0),
        "its pixels in another file": (as_webp.getvalue(), "b", None, 0),
        "another picture of a part that calibrates": (picture(10), "g", "b", 0),
        "too old": (picture(11), "g", None, 5),
        "disputed": (picture(12), "gb", None, 0),
        "good": (picture(13), "g", "x", 1),
        "another view": (picture(14), "g", "x", 1),
        "bad": (picture(15), "b", None, 3),
        "bad once more": (picture(15), "b", None, 3),
    }
    said = {"g": Said(answer="good"), "b": Said(answer="bad", defect="hole")}
    for name, (content, answers, part, weeks) in contents.items():
        sha256, kind = hashlib.sha256(content).hexdigest(), "webp" if "another file" in name else "png"
        pictures.add_picture(content, sha256)
        row = result(picture=sha256, name=name, part=part, at=now_ms() - weeks * week) | {"kind": kind}
        insert_results(engine, [row])
        with writing(engine) as connection:
            for who, answer in zip(("anna", "ben"), answers, strict=False):
                add_answer(connection, row["id"], said[answer], who=who)
    assert main(["registry", "compare", "2", place]) == 1  # it has no threshold
    with engine.connect() as connection:
        model = one_model(connection, 2)
    assert model.state == "refused"
    assert [reason for reason in model.found["reasons"] if reason.startswith("the candidate is not calibrated")]
    keys = ("compared", "golden_good", "golden_bad", "reviewed_good", "reviewed_bad", "trained_on")
    assert [model.found[key] for key in keys] == [1, 0, 0, 2, 1, 3]
    evidence = model.found["evidence"]
    assert evidence["found"] + evidence["passed"] <= 2  # two parts, one of two views


def test_a_candidate_predicts_beside_the_station_without_a_say(engine, tmp_path, capsys):
    """Pictures of the past and of the time from now on, each once, over a stop; people are asked where it differs."""
    place = f"--folder={tmp_path}"
    network = SuperSimpleNet(ModelConfig(backbone="compact", image_size=(64, 64)), seed=1).eval()
    save_model(tmp_path / "v1", network, {})
    assert main(["registry", "add", str(tmp_path / "v1"), "--product=parts", place]) == 0
    pictures = PictureStore(tmp_path)

    def inspected(seed: int, verdict: str, **row) -> dict:
        sha256 = hashlib.sha256(picture(seed)).hexdigest()
        pictures.add_picture(picture(seed), sha256)
        found = result(picture=sha256, name=f"{seed}.png", verdict=verdict) | row
        insert_results(engine, [found])
        return found

    (own,) = Detector.load(tmp_path / "v1").predict([Image.open(io.BytesIO(picture(0)))])
    opposite = "good" if own.verdict == "bad" else "bad"
    rows = [inspected(seed, own.verdict) for seed in range(3)]
    rows += [inspected(seed, opposite) for seed in range(3, 6)]
    inspected(6, own.verdict, kept=False)
    removed = inspected(7, own.verdict)
    pictures.picture(removed["picture"], "png").unlink()
    verdicts = [
        p.verdict
        for p in Detector.load(tmp_path / "v1").predict([Image.open(io.BytesIO(picture(n))) for n in range(6)])
    ]
    differing = sum(row["verdict"] != verdict for row, verdict in zip(rows, verdicts, strict=True))
    with writing(engine) as connection:
        add_answer(connection, rows[3]["id"], Said(answer=verdicts[3]), who="anna")
    assert main(["registry", "shadow", "1", place]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"another verdict on {differing / 6:.1%}".replace("%", " %") in text
    assert "right about 1 of them, the station about 0" in text
    assert "it could not predict 1 picture; not kept, so not seen: 1 picture of that time" in text
    with engine.connect() as connection:
        found = one_model(connection, 1).found["shadow"]
        assert (found["pictures"], found["failed"], found["not_kept"], found["candidate_right"]) == (6, 1, 1, 1)
        assert len(connection.execute(select(SHADOWS)).all()) == 7
        assert one_model(connection, 1).state == "candidate"
    asked = review_queue(engine, product="parts", who="ben", sampling=Sampling(share=0), within_ms=1, limit=50)
    contradicted = {
        row["id"] for row, v in zip(rows, verdicts, strict=True) if (v == "good") != (row["verdict"] == "good")
    }
    assert {each.record["id"] for each in asked if each.reason == "shadow"} == contradicted - {rows[3]["id"]}

    ended = threading.Event()
    seen = []
    at = now_ms()
    job = threading.Thread(
        target=lambda: seen.append(
            run_shadow(engine, tmp_path, 1, since=at, until=at + 600_000, ended=ended, progress=lambda _: ended.set())
        )
    )
    job.start()
    inspected(8, own.verdict)
    job.join(WITHIN_S)
    assert seen[0].pictures == 1
    with writing(engine) as connection:
        promote(connection, tmp_path, 1, who="anna")
    assert main(["registry", "shadow", "1", place]) == 2
    assert "model 1: in use, so there is nothing to compare it with" in capsys.readouterr().err


def test_a_station_takes_what_is_promoted_loses_no_picture_and_keeps_it(tmp_path):
    for seed in (1, 2):
        (tmp_path / f"v{seed}").mkdir()
        network = SuperSimpleNet(ModelConfig(backbone="compact", image_size=(64, 64)), seed=seed).eval()
        save_model(tmp_path / f"v{seed}", network, {})
    folder = tmp_path / "station"
    place = f"--folder={folder}"
    for seed in (1, 2):
        assert main(["registry", "add", str(tmp_path / f"v{seed}"), "--product=parts", place]) == 0
    answers: list[dict] = []
    station = StationProcess(tmp_path / "v1", folder=folder)
    content = picture(1)
    first = station.inspect(content)["model"]
    ended = threading.Event()

    def send() -> None:
        while not ended.is_set():
            answers.append(station.inspect(content))

    sender = threading.Thread(target=send)
    sender.start()
    assert main(["registry", "promote", "1", place]) == 0
    assert main(["registry", "promote", "2", place]) == 2  # nothing is shown of it
    assert main(["registry", "promote", "2", "--why=sees more", "--force", place]) == 0
    deadline = time.monotonic() + WITHIN_S
    while not answers or answers[-1]["model"] == first:
        assert time.monotonic() < deadline, station.log.read_text()
        time.sleep(0.05)
    ended.set()
    sender.join()
    assert [answer["verdict"] for answer in answers if answer["verdict"] is None] == []
    assert len(station.get("/v1/results", limit=500)["results"]) == len(answers) + 1
    second = answers[-1]["model"]
    station.kill()

    station.start()  # with v1 on its command line
    with station:
        assert station.inspect(content)["model"] == second
        assert main(["registry", "rollback", "--product=parts", place]) == 0
        deadline = time.monotonic() + WITHIN_S
        while station.inspect(content)["model"] != first:
            assert time.monotonic() < deadline, station.log.read_text()
            time.sleep(0.05)
        (folder / "registry" / "0002" / "model" / "model.safetensors").write_bytes(b"damaged")
        assert main(["registry", "promote", "2", "--force", place]) == 0
        while "model" not in (codes := [sign["code"] for sign in station.get("/v1/status")["signs"]]):
            assert time.monotonic() < deadline + WITHIN_S, codes
            time.sleep(0.05)
        assert station.inspect(content)["model"] == first  # the one before stays


def write_parts(root: Path) -> None:
    """Write 40 good parts and 20 with a dark square, with masks."""
    generator = np.random.default_rng(3)
    for number in range(60):
        kind = "good" if number < 40 else "dent"
        pixels = generator.integers(150, 170, (64, 64, 3), dtype=np.uint8)
        mask = np.zeros((64, 64), dtype=np.uint8)
        if kind == "dent":
            top, left = generator.integers(8, 40, 2)
            pixels[top : top + 14, left : left + 14] = 20
            mask[top : top + 14, left : left + 14] = 255
            (root / "masks" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(root / "masks" / kind / f"{number:03}.png")
        (root / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / kind / f"{number:03}.png")


@pytest.mark.slow
def test_a_training_that_is_killed_is_resumed_compared_and_promoted(tmp_path):
    write_parts(tmp_path / "parts")
    place = f"--folder={tmp_path / 'station'}"
    rows = ["image,split,label,defect,mask"]
    for path in sorted((tmp_path / "parts").glob("[dg]*/*.png")):
        kind = path.parent.name
        mask = f"masks/{kind}/{path.name}" if kind == "dent" else ""
        rows.append(f"{kind}/{path.name},train,{int(kind == 'dent')},{kind},{mask}")
    (tmp_path / "parts" / "samples.csv").write_text("\n".join(rows))
    assert main(["datasets", "import", "parts", str(tmp_path / "parts" / "samples.csv"), place]) == 0
    small = [
        "--model.image_size=[64, 64]",
        "--trainer.max_epochs=6",
        "--trainer.num_workers=0",
        "--recipe.batch_size=8",
    ]
    options = [option.removeprefix("--") for option in small]
    train = ["registry", "train", "--product=parts", "--dataset=parts", "--threads=1", "--options", *options]
    command = [sys.executable, "-m", "supersimplenet", *train, place]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    folder = tmp_path / "station" / "registry" / "0001"
    deadline = time.monotonic() + WITHIN_S * 2
    while not (folder / "model" / "checkpoints").is_dir() and job.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(job.pid, signal.SIGKILL)
    job.communicate()
    engine = open_database(f"sqlite:///{tmp_path / 'station' / 'station.db'}")
    with engine.connect() as connection:
        assert one_model(connection, 1).state == "training"
    assert main(["registry", "resume", "1", "--threads=1", place]) == 0, (folder / "log.txt").read_text()
    with engine.connect() as connection:
        first = one_model(connection, 1)
    assert (first.state, first.parent, first.dataset, first.version) == ("candidate", None, "parts", 1)
    assert (folder / "model" / "calibration.yaml").is_file()
    assert main(["registry", "promote", "1", place]) == 0
    assert main([*train, place]) in (0, 1)
    with engine.connect() as connection:
        second = all_models(connection, "parts")[-1]
    assert (second.number, second.parent, second.found["compared"]) == (2, 1, 1)
    assert (second.found["golden_good"], second.found["golden_bad"]) == (4, 2)
    gate = json.loads((tmp_path / "station" / "registry" / "0002" / "comparison" / "gate.json").read_text())
    assert second.state == ("candidate" if gate["passed"] else "refused")
    assert second.found["reasons"] == ([] if gate["passed"] else gate["reasons"])
    engine.dispose()
    shown = run("registry", "list", place)
    assert "in use" in shown
    assert "parts 1" in shown


def test_a_version_without_what_a_model_needs_is_refused_before_it_begins(engine, tmp_path, capsys):
    with writing(engine) as connection:
        set_state_of = register(connection, product="parts", state="failed", who="anna")
        assert set_state(connection, set_state_of.number, "failed", reasons=["x"]).found == {"reasons": ["x"]}
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "good").mkdir()
    (tmp_path / "few" / "good" / "0.png").write_bytes(picture(0))
    (tmp_path / "few" / "samples.csv").write_text("image,split,label\ngood/0.png,train,0")
    place = f"--folder={tmp_path}"
    assert main(["datasets", "import", "few", str(tmp_path / "few" / "samples.csv"), "--role=train", place]) == 0
    assert main(["registry", "train", "--product=parts", "--dataset=few", place]) == 2
    assert "version 1 of 'few' has no good part to set a threshold by" in capsys.readouterr().err
