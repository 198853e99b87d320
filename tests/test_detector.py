"""From a model folder to predictions: the same answer for a path, an array, a batch, and a second process."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from supersimplenet import Detector, ModelConfig, Recipe, SuperSimpleNet, TrainerConfig, train
from supersimplenet.benchmark import published_order as plain
from supersimplenet.datasets.mvtec import MVTecAD
from supersimplenet.errors import ImageError, ModelFolderError
from supersimplenet.inference.model_folder import load_model, save_model
from supersimplenet.preprocessing.images import read_image, read_pillow
from supersimplenet.visualization.overlay import draw_overlay

SIZE = (64, 96)


def relative_error(value: np.ndarray, reference: torch.Tensor) -> float:
    return float((torch.from_numpy(value) - reference).norm() / reference.norm())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    network = SuperSimpleNet(ModelConfig(backbone="compact", image_size=SIZE), seed=1).eval()
    with torch.no_grad():  # statistics that are not the initial ones, so that folding has something to fold
        for name, buffer in network.heads.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(2))
    save_model(folder, network, {"seed": 1})
    return folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photographs")
    paths = []
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (80, 70, 3), dtype=np.uint8)
        paths.append(folder / f"{index}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def test_a_prediction_equals_the_plain_network_on_the_same_pixels(folder, photographs):
    network, _ = load_model(folder)
    reference = plain.PlainHeads((128, 256), variant="jims", align_corners=True).eval()
    reference.load_state_dict(
        {
            plain.plain_name(name): value.reshape(reference.state_dict()[plain.plain_name(name)].shape)
            for name, value in network.heads.state_dict().items()
        }
    )
    pixels = read_image(photographs[0], size_px=SIZE)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    image = (image - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        3, 1, 1
    )
    with torch.no_grad():
        map_logit, score_logit = reference(network.backbone.net(image))
        expected = plain.anomaly_map(map_logit, SIZE)[0]
    prediction = Detector.load(folder).predict(photographs[0])
    assert relative_error(prediction.map_logit, expected) < 1e-5  # float32, another order of sums
    assert prediction.head_logit == pytest.approx(score_logit.item(), rel=1e-4, abs=1e-5)
    assert prediction.map_max_logit == prediction.map_logit.max()
    assert prediction.score_logit == pytest.approx(score_logit.item(), rel=1e-4)
    assert prediction.verdict == ("bad" if prediction.score_logit >= 0 else "good")


def test_path_array_list_and_files_agree(folder, photographs):
    detector = Detector.load(folder)
    from_paths = detector.predict(list(photographs))
    assert [p.path for p in from_paths] == [str(path) for path in photographs]
    for path, wanted in zip(photographs, from_paths, strict=True):
        from_array = detector.predict(np.asarray(Image.open(path)))
        assert from_array.path is None
        assert from_array.score_logit == wanted.score_logit
        assert np.array_equal(from_array.map_logit, wanted.map_logit)
        assert detector.predict(str(path)).score_logit == wanted.score_logit
    batched = [item.prediction for item in detector.predict_files(photographs, batch_size=2)]
    # A batch's matrix products may be summed in another order than one image's.
    assert [p.score_logit for p in batched] == pytest.approx([p.score_logit for p in from_paths], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    "kind", ["rgb.png", "grey.png", "palette.png", "alpha.png", "sixteen.png", "turned.jpg", "cmyk.jpg"]
)
def test_an_image_that_pillow_opened_is_the_file(kind, folder, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    colour = Image.fromarray(pixels[..., :3])
    made = {
        "rgb.png": colour,
        "grey.png": colour.convert("L"),
        "palette.png": colour.convert("P"),
        "alpha.png": Image.fromarray(pixels),
        "sixteen.png": Image.fromarray(pixels[..., 0].astype(np.uint16) * 257),
        "turned.jpg": colour,
        "cmyk.jpg": colour.convert("CMYK"),
    }
    path = tmp_path / kind
    made[kind].save(path, **({"exif": exif} if kind == "turned.jpg" else {}))
    assert np.array_equal(read_pillow(Image.open(path)), read_image(path))
    detector = Detector.load(folder)
    opened = detector.predict(Image.open(path))
    wanted = detector.predict(path)
    assert opened.score_logit == wanted.score_logit
    assert np.array_equal(opened.map_logit, wanted.map_logit)
    assert detector.predict([Image.open(path)])[0].score_logit == pytest.approx(wanted.score_logit, abs=1e-5)


def test_pixels_without_a_range_are_refused_in_memory_too(folder):
    with pytest.raises(ImageError, match="PIL image: floating-point pixels, whose range is unknown"):
        Detector.load(folder).predict(Image.fromarray(np.zeros((8, 8), np.float32)))


def test_a_prediction_shows_itself(folder, photographs, tmp_path):
    prediction = Detector.load(folder).predict(photographs[0])
    assert repr(prediction) == (
        f"Prediction({photographs[0]}: {prediction.verdict}, score={prediction.score_logit:.3f} (a logit), "
        "not calibrated)"
    )
    own = np.asarray(prediction.overlay())
    assert np.array_equal(own, np.asarray(draw_overlay(photographs[0], prediction)))
    assert np.array_equal(own, np.asarray(prediction.overlay(Image.open(photographs[0]))))
    assert np.array_equal(own, np.asarray(prediction.overlay(read_image(photographs[0]))))
    page = prediction._repr_html_()
    picture = Image.open(io.BytesIO(base64.b64decode(page.split("base64,")[1].split('"')[0])))
    assert np.array_equal(np.asarray(picture), own)
    assert html.escape(repr(prediction)) in page


def test_a_prediction_without_a_file_asks_for_the_picture(folder, photographs, tmp_path):
    moved = tmp_path / "<moved>.png"
    shutil.copy(photographs[0], moved)
    prediction = Detector.load(folder).predict(moved)
    moved.unlink()
    page = prediction._repr_html_()  # a notebook shows the words alone
    assert "<img" not in page
    assert "&lt;moved&gt;.png" in page
    with pytest.raises(ImageError, match="no such file"):
        prediction.overlay()
    of_array = Detector.load(folder).predict(read_image(photographs[0]))
    assert repr(of_array).startswith("Prediction(array: ")
    with pytest.raises(ImageError, match=r"pass the image: prediction.overlay\(image\)"):
        of_array.overlay()


def test_predicting_before_training_does_not_disturb_it(folder, photographs):
    """Matrices that a prediction cached must serve a training's backward pass."""
    with torch.inference_mode():
        Detector.load(folder).predict(photographs[0])
    network, _ = load_model(folder)
    output = network.train()(torch.from_numpy(read_image(photographs[0], size_px=SIZE))[None])
    output.score_logit.sum().backward()
    assert network.heads.hidden.weight.grad is not None


def test_what_is_no_image_is_refused(folder):
    with pytest.raises(ImageError, match="dict: wanted a path, a PIL image, a numpy array, or a list of these"):
        Detector.load(folder).predict({})  # type: ignore[call-overload]


def test_the_folder_holds_the_heads_alone_where_the_backbone_has_a_name(folder):
    assert {name.split(".")[0] for name in load_file(folder / "model.safetensors")} == {"heads"}
    record = yaml.safe_load((folder / "config.yaml").read_text())
    assert record["seed"] == 1
    assert record["backbone"]["origin"] == "package"
    assert set(record["versions"]) >= {"python", "supersimplenet", "torch", "timm", "lightning"}


def test_the_folder_holds_every_weight_where_the_backbone_came_from_a_file(tmp_path):
    weights = tmp_path / "resnet18.pt"
    import timm

    torch.save(timm.create_model("resnet18", num_classes=10).state_dict(), weights)
    network = SuperSimpleNet(ModelConfig(backbone="resnet18", backbone_weights=weights, image_size=SIZE))
    save_model(tmp_path / "model", network, {})
    weights.unlink()  # the folder alone must do
    loaded, _ = load_model(tmp_path / "model")
    for name, value in network.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


def test_another_process_gives_the_same_scores(folder, photographs, tmp_path):
    """In a second process, from the folder alone, through the command line."""
    command = [sys.executable, "-m", "supersimplenet", "predict", "--model", str(folder), *map(str, photographs)]
    command += ["--output", str(tmp_path), "--batch-size", "1", "--device", "cpu"]
    subprocess.run(command, check=True, capture_output=True)
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    here = Detector.load(folder, device="cpu").predict(list(photographs))
    assert [row["score_logit"] for row in rows] == pytest.approx([p.score_logit for p in here], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no folder", r"no model here \(config.yaml is missing\); name a folder that `train` wrote"),
        ("no weights", "its training was not finished; continue it with `supersimplenet train --resume"),
        ("truncated weights", "model.safetensors: not the weights that config.yaml describes, or damaged"),
        ("other weights", "model.safetensors: not the weights that config.yaml describes"),
        ("other backbone", "the weights of backbone 'compact' are not those of the training"),
        ("unknown option", "config.yaml: model: unknown colour; written by another version"),
        (
            "wrong value",
            "config.yaml: model.image_size: 8x64 px; give height and width, each side at least 32 px",
        ),
        ("other format", "format 99; this version reads format 1"),
        ("no yaml", "config.yaml: not readable as YAML"),
    ],
)
def test_a_damaged_folder_says_what_is_wrong(folder, tmp_path, damage, message):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    config, weights = copy / "config.yaml", copy / "model.safetensors"
    record = yaml.safe_load(config.read_text())
    if damage == "no folder":
        config.unlink()
    elif damage == "no weights":
        weights.unlink()
    elif damage == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "other weights":
        save_file({"heads.map.weight": torch.zeros(1, 7)}, weights)
    elif damage == "no yaml":
        config.write_text("model: [")
    else:
        if damage == "other backbone":
            record["backbone"]["sha256"] = "0" * 64
        elif damage == "unknown option":
            record["model"]["colour"] = "red"
        elif damage == "wrong value":
            record["model"]["image_size"] = [8, 64]
        elif damage == "other format":
            record["format"] = 99
        config.write_text(yaml.safe_dump(record))
    with pytest.raises(ModelFolderError, match=message):
        load_model(copy)


def test_a_backbone_module_is_refused_where_the_folder_brings_its_own(folder):
    with pytest.raises(ModelFolderError, match="brings its own backbone 'compact'; leave out backbone="):
        Detector.load(folder, backbone=torch.nn.AvgPool2d(8))


_IN_A_FORK = """
import multiprocessing, sys
import numpy as np, torch
from supersimplenet import Detector
torch.set_num_threads(2)
detector = Detector.load(sys.argv[1], engine="torch")
image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
wanted = detector.predict(image).score_logit

def child(threads):
    if threads:
        torch.set_num_threads(threads)
    try:
        print(detector.predict(image).score_logit - wanted, flush=True)
    except Exception as error:
        print(type(error).__name__, error, flush=True)

for threads in (None, 1):
    process = multiprocessing.get_context("fork").Process(target=child, args=(threads,))
    process.start()
    process.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.slow
def test_a_forked_process_says_why_it_cannot_compute_instead_of_waiting_without_end(folder):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _IN_A_FORK, str(folder)], capture_output=True, text=True, timeout=120
    )
    refused, computed = done.stdout.splitlines()
    assert refused.startswith("ConfigError this process was forked from one that uses torch")
    assert "get_context('spawn')" in refused
    assert float(computed) == pytest.approx(0, abs=1e-5)


def test_train_gives_the_detector_that_the_folder_gives(tmp_path):
    from supersimplenet import SyntheticConfig, synthesize

    synthesize(tmp_path, SyntheticConfig(surfaces=("cast_grain",), size_px=(64, 64), train_good=4, test_good=2))
    data = MVTecAD(root=tmp_path, category="cast_grain")
    trained = train(
        data,
        output=tmp_path / "run",
        model=ModelConfig(backbone="compact", image_size=(64, 64)),
        recipe=Recipe(batch_size=2),
        trainer=TrainerConfig(max_steps=3, accelerator="cpu"),
    )
    images = [sample.image for sample in data.samples() if sample.split == "test"][:4]
    loaded = Detector.load(tmp_path / "run", device="cpu")
    assert [p.score_logit for p in trained.predict(images)] == [p.score_logit for p in loaded.predict(images)]
