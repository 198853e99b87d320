"""Kills during training, comparison, shadow, promotion, rollback and export, beside a station that inspects.

    python experiments/loop_kills.py --folder kills --kills 50

Each round begins one of these commands and kills it at a moment drawn by chance, or lets it end. Then: the station has
answered each picture, with a model of the registry; the model in use is the one before or the one after, and the
station comes to use it; the trail's chain of hashes holds; what was left is taken up by the same command, or by
``resume``. At the end a training that was killed again and again is resumed until it ends.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from station_process import StationProcess
from test_station_service import picture

from supersimplenet import ModelConfig, SuperSimpleNet
from supersimplenet.inference.model_folder import save_model
from supersimplenet.station.access import audit
from supersimplenet.station.registry.promotions import in_use
from supersimplenet.station.registry.records import all_models
from supersimplenet.station.storage.database import open_database

SMALL = ("model.image_size=[64, 64]", "trainer.max_epochs=40", "recipe.batch_size=8", "model.backbone=compact")
LONGEST_S = {"promote": 12, "rollback": 12, "shadow": 20, "compare": 25, "train": 60, "resume": 60, "export": 12}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "supersimplenet", *arguments]


def run(*arguments: str) -> int:
    return subprocess.run(command(*arguments), check=False, capture_output=True).returncode


class Loop:
    """A station with two models and a dataset, and someone who sends pictures all the time."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.station = folder, folder / "station"
        self.place = ("--folder", str(self.station))
        self.rng = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.answers: list[str] = []
        self.refused: list[str] = []
        self.ended = threading.Event()
        parts = folder / "parts" / "good"
        parts.mkdir(parents=True)
        for number in range(40):
            (parts / f"{number}.png").write_bytes(picture(number))
        for seed_of in (1, 2):
            network = SuperSimpleNet(ModelConfig(backbone="compact", image_size=(64, 64)), seed=seed_of).eval()
            save_model(folder / f"v{seed_of}", network, {})
            assert run("registry", "add", str(folder / f"v{seed_of}"), "--product", "parts", *self.place) == 0
        assert run("datasets", "import", "parts", str(folder / "parts"), *self.place) == 0
        assert run("registry", "promote", "1", *self.place) == 0
        self.engine = open_database(f"sqlite:///{self.station / 'station.db'}")

    def send(self, process: StationProcess) -> None:
        """Send pictures until the end; a picture that has no answer is a refusal."""
        number = 0
        while not self.ended.is_set():
            answer = process.client.post(
                "/v1/inspect", content=picture(number % 50), headers={"Content-Type": "image/png"}
            )
            number += 1
            if answer.status_code == 200:
                self.answers.append(answer.json()["results"][0]["model"])
            else:
                self.refused.append(answer.text)
            time.sleep(0.05)

    def one_round(self, process: StationProcess, number: int) -> None:
        """Begin a command, kill it or not, and check what is left."""
        with self.engine.connect() as connection:
            before = in_use(connection, "parts")
            models = all_models(connection, "parts")
        unfinished = [model.number for model in models if model.state in ("training", "failed")]
        finished = [model.number for model in models if model.state in ("candidate", "refused")]
        other = self.rng.choice([each for each in finished if each != before.number])
        does = self.rng.choice([*LONGEST_S])
        calls = {
            "promote": ("registry", "promote", str(other), "--force"),
            "rollback": ("registry", "rollback", "--product", "parts"),
            "shadow": ("registry", "shadow", str(other), "--past", "1h"),
            "compare": ("registry", "compare", str(other)),
            "export": ("datasets", "export", "parts", "--output", str(self.folder / f"export-{number}")),
            "train": ("registry", "train", "--product", "parts", "--dataset", "parts", "--threads", "1"),
            "resume": ("registry", "resume", str(unfinished[0]) if unfinished else "1", "--threads", "1"),
        }
        if does == "train" and unfinished:
            does = "resume"
        call = [*calls[does], *self.place, *(("--options", *SMALL) if does == "train" else ())]
        job = subprocess.Popen(
            command(*call), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            job.wait(self.rng.uniform(1.5, LONGEST_S[does]))
        except subprocess.TimeoutExpired:
            os.killpg(job.pid, signal.SIGKILL)
            job.wait()
            self.counts[f"{does} killed"] += 1
        else:
            self.counts[f"{does} ended"] += 1
        with self.engine.connect() as connection:
            after = in_use(connection, "parts")
            assert audit.check(connection) is None
            states = {model.number: model.state for model in all_models(connection, "parts")}
        assert set(states.values()) <= {"training", "failed", "candidate", "refused"}, states
        assert after.number == before.number or does in ("promote", "rollback"), (does, before, after)
        if after.number != before.number:
            self.counts["changes of the model in use"] += 1
        if does == "export":
            made = self.folder / f"export-{number}" / "samples.csv"
            self.counts["exports whole" if made.is_file() else "exports without their table"] += 1
        self.require_used(process, after.number)

    def require_used(self, process: StationProcess, number: int) -> None:
        """Wait until the station uses the model of the registry."""
        wanted = str(self.station / "registry" / f"{number:04}" / "model")
        deadline = time.monotonic() + 60
        while process.get("/v1/models")[0]["path"] != wanted:
            assert time.monotonic() < deadline, process.get("/v1/models")
            time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="a new folder")
    parser.add_argument("--kills", type=int, default=50, help="rounds")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    loop = Loop(options.folder, options.seed)
    with StationProcess(options.folder / "v1", folder=loop.station) as process:
        sender = threading.Thread(target=loop.send, args=(process,))
        sender.start()
        try:
            for number in range(options.kills):
                loop.one_round(process, number)
                print(number, dict(loop.counts), len(loop.answers), flush=True)
        finally:
            loop.ended.set()
            sender.join()
        rows = sum(process.get("/v1/counts").values())
    with loop.engine.connect() as connection:
        unfinished = [m.number for m in all_models(connection, "parts") if m.state in ("training", "failed")]
    resumed = {number: run("registry", "resume", str(number), *loop.place) for number in unfinished}
    print(
        json.dumps(
            {
                "rounds": options.kills,
                **loop.counts,
                "pictures answered": len(loop.answers),
                "refused": loop.refused,
                "rows": rows,
                "models that answered": len(set(loop.answers)),
                "resumed in the end (exit status)": resumed,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
