"""--resume: what may change and what may not, checkpoints that are damaged, and folders that are not whole."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from supersimplenet import Detector, ModelConfig, Recipe, SuperSimpleNet, SyntheticConfig, synthesize
from supersimplenet.cli import train as train_command
from supersimplenet.datasets.mvtec import MVTecAD
from supersimplenet.datasets.supervision import names_of_masks, supervise
from supersimplenet.errors import ConfigError, DataError, ModelFolderError
from supersimplenet.inference.model_folder import load_preprocessor, save_model, save_preprocessor
from supersimplenet.model.layers import resolve_layers
from supersimplenet.preprocessing.preprocessor import ViewConfig, read_preprocessor
from supersimplenet.training.checkpoints import CHECKPOINT, PREVIOUS, run_identity, usable_checkpoint
from supersimplenet.training.config import TrainerConfig
from supersimplenet.training.plan import earlier_run, require_same_view
from supersimplenet.training.train import train
from supersimplenet.types import Sample

MODEL = ModelConfig(backbone="compact", image_size=(64, 64))
OPTIONS = {
    "model": MODEL,
    "recipe": Recipe(batch_size=4),
    "trainer": TrainerConfig(max_epochs=2, accelerator="cpu"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset and a finished training."""
    root = tmp_path_factory.mktemp("run")
    config = SyntheticConfig(surfaces=("brushed_metal",), size_px=(64, 64), train_good=8, test_good=1)
    synthesize(root / "data", replace(config, test_per_defect=1))
    train(MVTecAD(root=root / "data", category="brushed_metal"), output=root / "model", **OPTIONS)
    return root


def unfinished(run: Path, to: Path) -> Path:
    """The run as a kill before the weights were written leaves it."""
    shutil.copytree(run / "model", to)
    record = yaml.safe_load((to / "config.yaml").read_text())
    (to / "config.yaml").write_text(yaml.safe_dump({**record, "finished": False, "files": {}}, sort_keys=False))
    for name in ("model.safetensors", "calibration.yaml", "images.csv"):
        (to / name).unlink()
    return to


def test_moved_data_a_damaged_checkpoint_and_other_workers_end_in_the_same_model(run, tmp_path, capsys):
    folder = unfinished(run, tmp_path / "model")
    shutil.copytree(run / "data", tmp_path / "moved")
    content = bytearray((folder / CHECKPOINT).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / CHECKPOINT).write_bytes(content)
    options = {**OPTIONS, "trainer": replace(OPTIONS["trainer"], num_workers=1)}
    moved = MVTecAD(root=tmp_path / "moved", category="brushed_metal")
    train(moved, output=folder, resume=True, on_error="skip", **options)
    said = capsys.readouterr().err
    assert "damaged (Bad CRC-32 for file " in said
    assert "the training continues from previous.ckpt" in said
    for name in ("model.safetensors", "calibration.yaml", "images.csv"):
        assert (folder / name).read_bytes() == (run / "model" / name).read_bytes(), name
    record = yaml.safe_load((folder / "config.yaml").read_text())
    assert (record["finished"], record["trainer"]["num_workers"]) == (True, 1)
    assert record["data"]["init_args"]["root"] == str(tmp_path / "moved")


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "another file"])
def test_a_damaged_checkpoint_is_not_used(damage, run, tmp_path):
    shutil.copytree(run / "model" / "checkpoints", tmp_path / "checkpoints")
    last, previous = tmp_path / CHECKPOINT, tmp_path / PREVIOUS
    whole = last.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    last.write_bytes({"empty": b"", "cut": whole[:-100], "flipped": flipped, "another file": b"PK" * 99}[damage])
    record = yaml.safe_load((run / "model" / "config.yaml").read_text())
    assert usable_checkpoint(tmp_path, run_identity(record)) == (previous, 1)
    previous.write_bytes(b"")
    with pytest.raises(ModelFolderError, match=r"last.ckpt: damaged \(.+\), and there is no other; remove ") as refused:
        usable_checkpoint(tmp_path, run_identity(record))
    assert "\n" not in str(refused.value)
    last.write_bytes(whole)
    record["view_files"] = {"roi.png": "another one"}
    with pytest.raises(ModelFolderError, match=r"last.ckpt: of another run: other training images"):
        usable_checkpoint(tmp_path, run_identity(record))


def typed(folder: Path, *arguments: str):
    parser = train_command.command().parser
    arguments = train_command.with_earlier_options(["--resume", "--output", str(folder), *arguments])
    return parser.instantiate(parser.parse_args(arguments))


def test_typed_options_win_over_those_of_the_run_one_by_one(run, tmp_path):
    folder = unfinished(run, tmp_path / "model")
    kept = typed(folder)
    assert (kept.trainer, kept.model, kept.recipe) == (OPTIONS["trainer"], resolve_layers(MODEL), OPTIONS["recipe"])
    assert (kept.data.root, kept.data.category) == (run / "data", "brushed_metal")
    other = typed(folder, "--trainer.devices", "2", "--data.root", "/moved", "--cache.memory_gib", "1")
    assert other.trainer == replace(OPTIONS["trainer"], devices=2)
    assert (other.data.root, other.data.category, other.cache.memory_gib) == (Path("/moved"), "brushed_metal", 1)
    # The default, typed, is a choice too.
    assert typed(folder, "--trainer.max_epochs", "300").trainer.max_epochs == 300


def test_a_run_is_repeated_by_its_config(run, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(run / "model" / "images.csv", folder)
    record = yaml.safe_load((run / "model" / "config.yaml").read_text())
    record["time_budget"] = "1m"  # held two epochs
    (folder / "config.yaml").write_text(yaml.safe_dump(record))
    parser = train_command.command().parser
    arguments = ["--config", str(folder / "config.yaml"), "--output", str(tmp_path / "again"), "--seed", "7"]
    again = parser.instantiate(parser.parse_args(train_command.with_earlier_options(arguments)))
    assert again.time_budget is None
    steps = record["training"]["plan"]["total_steps"]
    assert again.trainer == replace(OPTIONS["trainer"], max_steps=steps)
    assert (again.model, again.recipe) == (resolve_layers(MODEL), OPTIONS["recipe"])
    assert (again.data.root, again.seed, again.output) == (run / "data", 7, tmp_path / "again")


def test_each_setting_that_decides_is_named_with_both_values(run, tmp_path):
    folder = unfinished(run, tmp_path / "model")
    record = yaml.safe_load((folder / "config.yaml").read_text())
    settings = {name: record[name] for name in ("seed", "data", "masks", "trainer", "cache", "model", "time_budget")}
    free = {"devices": 4, "num_nodes": 2, "num_workers": 3, "strategy": "ddp"}
    moved = {"class_path": "MVTecAD", "init_args": {**settings["data"]["init_args"], "root": "/elsewhere"}}
    same = {**settings, "trainer": {**settings["trainer"], **free}, "cache": {"memory_gib": 9}, "data": moved}
    assert earlier_run(folder, same, resume=True) == record
    other = {**same, "time_budget": "10m", "trainer": {**same["trainer"], "max_epochs": 9}}
    named = "differing: trainer.max_epochs 2 there, 9 here; time_budget None there, 10m here; leave them out"
    with pytest.raises(ConfigError, match=named):
        earlier_run(folder, other, resume=True)


def test_a_listed_choice_of_masks_is_kept_when_its_file_is_gone(tmp_path):
    samples = [Sample(image=tmp_path / f"good/{n}.png", split="train", label=0, defect="good") for n in range(2)]
    for n in range(4):
        bad = {"label": 1, "defect": "bad", "mask": tmp_path / f"masks/{n}.png"}
        samples.append(Sample(image=tmp_path / f"bad/{n}.png", split="train", pixel_labels_known=True, **bad))
    listed = tmp_path / "masks.txt"
    listed.write_text("2.png\n0.png\n")
    chosen = supervise(samples, "mixed", masks=str(listed))
    names = names_of_masks(samples, chosen)
    assert names == ["0.png", "2.png"]
    listed.unlink()
    assert supervise(samples, "mixed", masks=names).training == chosen.training
    with pytest.raises(ConfigError, match=r"masks: 9.png: no bad training image with a mask has this name"):
        supervise(samples, "mixed", masks=[*names, "9.png"])


def test_the_region_of_interest_of_a_run_is_compared_by_its_pixels(tmp_path):
    region = np.zeros((20, 20), dtype=np.uint8)
    region[:10] = 255
    named = tmp_path / "drawn.png"
    Image.fromarray(region).save(named)
    view = ViewConfig(roi=named)
    network = SuperSimpleNet(MODEL, seed=1)
    shape = {"size_px": MODEL.size_px, "strides": MODEL.strides}
    hashes = save_preprocessor(tmp_path, read_preprocessor(view, **shape))
    earlier = {"view": {"fit": "stretch", "roi": str(named), "reference": None}, "view_files": hashes}
    own = load_preprocessor(tmp_path, earlier, network.config)
    for same in (view, ViewConfig(roi=tmp_path / "roi.png")):
        require_same_view(tmp_path, earlier, same, own, drawn_on=(20, 20))
    region[12] = 255
    Image.fromarray(region).save(named)
    with pytest.raises(ConfigError, match=r"view.roi: .*drawn.png is not the file with which the run in .* began"):
        require_same_view(tmp_path, earlier, view, own, drawn_on=(20, 20))
    named.unlink()  # its copy is in the folder
    require_same_view(tmp_path, earlier, view, own, drawn_on=(20, 20))
    with pytest.raises(DataError, match=r"other.png"):
        require_same_view(tmp_path, earlier, ViewConfig(roi=tmp_path / "other.png"), own, drawn_on=(20, 20))


def test_a_folder_that_is_not_whole_is_not_used(run, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(run / "model", folder)
    save_model(tmp_path / "other", SuperSimpleNet(MODEL, seed=7).eval(), {})
    shutil.copy(tmp_path / "other" / "model.safetensors", folder)
    with pytest.raises(ModelFolderError, match=r"model.safetensors: not the weights that config.yaml describes"):
        Detector.load(folder, device="cpu")
    record = yaml.safe_load((run / "model" / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({**record, "finished": False}))
    with pytest.raises(ModelFolderError, match=r"has config.yaml: its training was not finished; continue it with"):
        Detector.load(folder, device="cpu")
    # Version 0.1 wrote neither `finished` nor hashes, and the score scale only at the end.
    old = {name: value for name, value in record.items() if name not in ("finished", "files", "score_scale")}
    (folder / "config.yaml").write_text(yaml.safe_dump(old))
    with pytest.raises(ModelFolderError, match="its training was not finished"):
        Detector.load(folder, device="cpu")


def test_a_training_that_cannot_begin_leaves_no_folder(run, tmp_path):
    shutil.copytree(run / "data", tmp_path / "data")
    next((tmp_path / "data" / "brushed_metal" / "train" / "good").iterdir()).write_bytes(b"no image")
    data = MVTecAD(root=tmp_path / "data", category="brushed_metal")
    with pytest.raises(DataError):
        train(data, output=tmp_path / "runs" / "model", **OPTIONS)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("kept", ["float16", "bfloat16", None])
def test_a_continued_run_keeps_the_type_of_its_features(run, tmp_path, kept):
    folder = unfinished(run, tmp_path / "model")
    record = yaml.safe_load((folder / "config.yaml").read_text())
    assert record["training"].pop("feature_type") == "float16"
    if kept is not None:
        record["training"]["feature_type"] = kept
    (folder / "config.yaml").write_text(yaml.safe_dump(record, sort_keys=False))
    train(MVTecAD(root=run / "data", category="brushed_metal"), output=folder, resume=True, **OPTIONS)
    finished = yaml.safe_load((folder / "config.yaml").read_text())
    assert finished["training"]["feature_type"] == (kept or "bfloat16")  # the only one before version 0.2
