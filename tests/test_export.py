"""Exported files in their real engines: what they say, what travels with them, and what the gate keeps back."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
import torch
import yaml
from networks import with_subspace
from onnx import numpy_helper
from PIL import Image
from scipy import ndimage
from torch.nn import functional as F

import supersimplenet
from supersimplenet import Detector, ModelConfig, SuperSimpleNet
from supersimplenet.cli.main import main
from supersimplenet.errors import ConfigError, ExportError, ImageError
from supersimplenet.export import export
from supersimplenet.export.export import export_model
from supersimplenet.export.score_outputs import ScoreOutputs
from supersimplenet.export.verification import TOLERANCES, Tolerance, verify
from supersimplenet.inference.model_folder import (
    hash_weights,
    load_model,
    save_model,
    save_preprocessor,
    write_calibration,
)
from supersimplenet.model.axes import hat_upscale
from supersimplenet.postprocessing.calibration import Calibration
from supersimplenet.postprocessing.postprocessor import PostProcessor
from supersimplenet.preprocessing.preprocessor import Preprocessor, ViewConfig
from supersimplenet.preprocessing.reading import ReadConfig
from supersimplenet.runtime import Inspector
from supersimplenet.runtime.bundle import KEY
from supersimplenet.types import SCORE_FIELDS, ModelScore
from supersimplenet.utils.serialization import to_plain

GRAPH_SCORES = [SCORE_FIELDS[name] for name in get_args(ModelScore)]

SIZE = (64, 96)
FORMATS = ("onnx", "openvino", "torch")
SUBSPACE_SCALE = {
    "subspace_mean": -0.2,
    "subspace_map_std": 0.5,
    "shown_weight": 0.25,
    "head_weight": 0.5,
    "map_weight": 0,
}


def make_model(folder: Path, **config: object) -> Path:
    """An untrained model with thresholds that some images reach and some do not."""
    network = SuperSimpleNet(ModelConfig(backbone="compact", **{"image_size": SIZE, **config}), seed=3).eval()
    generator = torch.Generator().manual_seed(0)
    for name, buffer in network.heads.named_buffers():  # BatchNorms away from their initial statistics
        if buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + ("var" in name))
    network.map_shift_px = (2, 5)
    with_subspace(network)
    scale = {"head_mean": 0.1, "head_std": 0.7, "map_mean": 0.3, "map_std": 0.4, "images": 9} | SUBSPACE_SCALE
    save_model(folder, network, {"image_score": "fused", "score_scale": scale, "seed": 3})
    return folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of every kind that a line may bring: other sizes, JPEG, 16 bits, grey, turned by EXIF."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for index in range(8):
        small = Image.fromarray(rng.integers(0, 256, (9, 13, 3), dtype=np.uint8))
        picture = small.resize((140 + 7 * index, 90 + 5 * index), Image.Resampling.BICUBIC)
        if index == 2:
            Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(folder / "2.png")
        elif index == 3:
            exif = Image.Exif()
            exif[0x0112] = 6
            picture.save(folder / "3.jpg", exif=exif)
        else:
            picture.save(folder / f"{index}.{'jpg' if index % 2 else 'png'}")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, photographs) -> Path:
    folder = make_model(tmp_path_factory.mktemp("model"))
    predictions = Detector.load(folder, device="cpu").predict(list(photographs))
    scores = sorted(prediction.score_logit for prediction in predictions)
    levels = np.quantile([prediction.map_logit for prediction in predictions], 0.97)
    calibration = Calibration(
        image_score="fused",
        threshold_logit=(scores[4] + scores[5]) / 2,
        accept_logit=(scores[1] + scores[2]) / 2,
        pixel_logit=float(np.float32(levels)),
        min_area_px=9,
        chosen_by="false-alarms",
        max_false_alarms=0.1,
        max_escapes=None,
        confidence=0.95,
        part_logits=tuple(np.convolve(scores, (0.5, 0.5), "valid").tolist()),  # between them: no ties
        images=7,
        bad_parts=0,
        escapes=0,
        basis="drawn",
        list_sha256="0",
        weights_sha256=hash_weights(folder),
        date="2026-11-25",
    )
    write_calibration(folder, calibration)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, model, photographs) -> dict[str, Path]:
    """The model in every format, in float32."""
    folder = tmp_path_factory.mktemp("files")
    for file_format in FORMATS:
        export_model(model, folder / file_format, file_format=file_format, images=photographs)
    return {file_format: folder / file_format for file_format in FORMATS}


@pytest.fixture(scope="module")
def detector(model) -> Detector:
    return Detector.load(model, device="cpu")


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_engine_says_what_the_model_says(file_format, files, detector, photographs):
    inspector = Inspector.load(files[file_format], trust=True)
    expected = detector.predict(list(photographs))
    assert len({prediction.verdict for prediction in expected}) == 3
    assert any(prediction.defects for prediction in expected)
    alone = inspector.predict(list(photographs))
    map_in_threads = [item.prediction for item in inspector.predict_files(photographs)]
    for found, wanted in zip([*alone, *map_in_threads], [*expected, *expected], strict=True):
        assert (found.path, found.verdict, found.p_value) == (wanted.path, wanted.verdict, wanted.p_value)
        # Another engine adds some thousand float32 products in another order.
        np.testing.assert_allclose(found.map_logit, wanted.map_logit, rtol=0, atol=2e-5)
        assert found.head_logit == pytest.approx(wanted.head_logit, abs=2e-5)
        assert found.score_logit == pytest.approx(wanted.score_logit, abs=2e-5)
        # A pixel that lies that near to the level may change sides, so boxes may differ by one.
        assert len(found.defects) == len(wanted.defects)
        for one, other in zip(found.defects, wanted.defects, strict=True):
            assert one.peak_logit == pytest.approx(other.peak_logit, abs=2e-5)
            assert abs(one.left - other.left) <= 3
            assert abs(one.top - other.top) <= 3


@pytest.mark.parametrize("file_format", ["onnx", "openvino"])
def test_the_command_writes_the_same_table_from_a_folder_and_from_a_file(
    file_format, files, model, photographs, tmp_path
):
    tables = []
    for source in (model, files[file_format]):
        output = tmp_path / source.name
        images = [str(path) for path in photographs]
        assert main(["predict", "--model", str(source), *images, "--device", "cpu", "--output", str(output)]) == 0
        with (output / "predictions.csv").open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
    for of_folder, of_file in zip(*tables, strict=True):
        assert of_folder.keys() == of_file.keys()
        for name in ("path", "verdict", "calibrated", "p_value", "defects", "error"):
            assert of_folder[name] == of_file[name]
        for name in ("score_logit", "head_logit", "map_max_logit", "fused_logit"):
            assert float(of_folder[name]) == pytest.approx(float(of_file[name]), abs=2e-5)


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_file_names_no_folder_of_the_machine_that_made_it(file_format, files):
    with contextlib.ExitStack() as opened:
        if zipfile.is_zipfile(files[file_format]):
            archive = opened.enter_context(zipfile.ZipFile(files[file_format]))
            contents = [archive.read(name) for name in archive.namelist()]
        else:
            contents = [files[file_format].read_bytes()]
    folders = {str(Path(module.__file__).parent).encode() for module in (supersimplenet, torch)}
    assert [folder for folder in folders for content in contents if folder in content] == []


def test_options_that_an_exported_file_has_decided_are_refused(files, photographs, tmp_path, capsys):
    options = ["--model", str(files["onnx"]), str(photographs[0]), "--output", str(tmp_path), "--engine", "openvino"]
    assert main(["predict", *options]) == 2
    assert "is an exported file, which has decided them" in capsys.readouterr().err


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_folders_settings_and_thresholds_travel_with_the_file(file_format, files, model, detector):
    bundle = Inspector.load(files[file_format], trust=True).bundle
    assert bundle.config == yaml.safe_load((model / "config.yaml").read_text())
    assert to_plain(bundle.calibration) == yaml.safe_load((model / "calibration.yaml").read_text())
    assert (bundle.engine, bundle.precision, bundle.size_px, bundle.step_px) == (file_format, "fp32", SIZE, None)
    assert bundle.score_scale == detector.score_scale
    assert bundle.weights_sha256 == hash_weights(model)
    assert bundle.backbone["sha256"] == detector.record["backbone"]["sha256"]
    assert bundle.backbone["licence"] == "Apache-2.0"
    assert bundle.preprocessing["mean"] == detector.record["backbone"]["mean"]
    certificate = bundle.certificate
    assert (certificate.images, certificate.source, certificate.verdict_flips) == (8, "named with --images", 0)
    assert 0 < certificate.score_max_difference <= certificate.score_tolerance < 1e-3
    assert certificate.map_mean_difference <= certificate.map_max_difference <= certificate.map_tolerance
    assert certificate.latency_ms > 0
    assert certificate.versions["engine"].startswith({"onnx": "onnxruntime"}.get(file_format, file_format))


def test_the_graphs_own_outputs_need_no_python_of_ours(files, detector, photographs):
    """As another program would use the file: uint8 in, names as documented, several images at once."""
    import onnxruntime

    session = onnxruntime.InferenceSession(files["onnx"])
    pixels = np.random.default_rng(1).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)
    found = dict(
        zip([output.name for output in session.get_outputs()], session.run(None, {"image": pixels}), strict=True)
    )
    for name, wanted in detector.engine.run(pixels)._asdict().items():
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=2e-5, err_msg=name)
    assert found["defects"].dtype == np.uint8
    np.testing.assert_array_equal(found["defects"], found["shown_map"] >= np.float32(detector.calibration.pixel_logit))
    metadata = json.loads(session.get_modelmeta().custom_metadata_map[KEY])
    assert metadata["calibration"]["threshold_logit"] == detector.calibration.threshold_logit


def test_the_list_of_the_runtime_follows_from_the_graphs_outputs(files, photographs):
    """As docs/outputs.md says: nothing for a good image, else the large regions of the mask, else the map's peak."""
    inspector = Inspector.load(files["onnx"])
    least = inspector.bundle.calibration.min_area_px
    for path in photographs:
        found = {name: values[0] for name, values in inspector.graph_outputs(path).items()}
        region, count = ndimage.label(found["defects"], np.ones((3, 3)))
        large = [n for n in range(1, count + 1) if (region == n).sum() >= least]
        shown = found["shown_map"]
        peaks = [float(shown[region == n].max()) for n in large] or [float(shown.max())]
        wanted = [] if found["verdict"] == 0 else sorted(peaks, reverse=True)
        listed = inspector.predict(path).defects
        assert [defect.peak_logit for defect in listed] == pytest.approx(wanted, abs=2e-5)
        assert [defect.below_threshold for defect in listed] == [not large] * len(listed)


def test_an_openvino_file_unpacks_to_the_pair_that_its_tools_read(files, photographs, tmp_path):
    with zipfile.ZipFile(files["openvino"]) as archive:
        assert archive.namelist() == ["model.xml", "model.bin"]
        archive.extractall(tmp_path)
    pair, packed = (
        Inspector.load(path).inspect(photographs[0]) for path in (tmp_path / "model.xml", files["openvino"])
    )
    np.testing.assert_array_equal(pair.map_logit, packed.map_logit)


# --- the gate ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_failing_gate_leaves_no_file_and_an_earlier_one_as_it_was(model, photographs, tmp_path):
    output = tmp_path / "line" / "parts.onnx"
    output.parent.mkdir()
    output.write_text("the earlier one")
    nothing = Tolerance(share=0, least=0)
    with pytest.raises(ExportError, match=r"parts\.onnx: not what the model is: its score is .* logits off on"):
        export_model(model, output, file_format="onnx", images=photographs[:2], tolerance=nothing)
    assert [path.name for path in output.parent.iterdir()] == ["parts.onnx"]
    assert output.read_text() == "the earlier one"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("nudged", "its score is"),
        ("nan", "its engine cannot use it: ImageError: .* the head score is nan, which is no verdict"),
        ("map", "its map is"),
    ],
)
def test_weights_that_changed_do_not_pass(damage, message, files, detector, photographs, tmp_path):
    network = onnx.load(files["onnx"])
    for weights in network.graph.initializer:
        values = numpy_helper.to_array(weights)
        if damage == "map":
            if values.shape != (SIZE[0], 16):  # the matrix that brings the map to the image's rows
                continue
            values = np.concatenate([values[:1], values[:1], values[2:]])  # one row of 64: no score looks there
        elif weights.name.endswith("score_bias"):
            values = values + np.float32(0.01 if damage == "nudged" else np.nan)
        else:
            continue
        weights.CopyFrom(numpy_helper.from_array(values.copy(), weights.name))
    damaged = tmp_path / "damaged.onnx"
    about = json.loads(next(entry.value for entry in network.metadata_props if entry.key == KEY))
    onnx.helper.set_model_props(network, {KEY: json.dumps(about | {"sealed": False})})  # so that no seal is missed
    onnx.save(network, damaged)
    expected = detector.predict(list(photographs))
    verify(files["onnx"], photographs, expected, tolerance=TOLERANCES["fp32"], source="here")
    with pytest.raises(ExportError, match=message):
        verify(damaged, photographs, expected, tolerance=TOLERANCES["fp32"], source="here")


def test_an_engine_that_cannot_use_the_file_fails_the_gate(files, detector, photographs, tmp_path):
    half = tmp_path / "half.onnx"
    half.write_bytes(files["onnx"].read_bytes()[:100_000])
    with pytest.raises(
        ExportError, match=r"half\.onnx: its engine cannot use it: ModelFolderError: .*not readable as ONNX"
    ):
        verify(half, photographs[:1], detector.predict(photographs[:1]), tolerance=TOLERANCES["fp32"], source="here")


def test_other_pixels_fail_the_gate(files, detector, photographs):
    """What a model sees of a file counts too: here the wrong files' predictions."""
    expected = detector.predict(list(reversed(photographs)))
    with pytest.raises(ExportError, match="not what the model is"):
        verify(files["onnx"], photographs, expected, tolerance=TOLERANCES["fp32"], source="here")


# --- options ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"file_format": "onnx", "precision": "bf16"}, "no bf16 for onnx: ONNX Runtime has no bfloat16 kernels"),
        ({"file_format": "torch", "precision": "int8"}, "no int8 for torch"),
        ({"file_format": "onnx", "dynamic": True, "size_px": (64, 64)}, "size and dynamic: .* give one of the two"),
        ({"file_format": "onnx", "size_px": (16, 64)}, "size: 16x64 px; each side must be at least 32 px"),
        ({"file_format": "openvino", "opset": 18}, "opset: 18; only onnx files have one, not openvino"),
        ({"file_format": "onnx", "opset": 17}, "opset: 17; torch writes 18 and newer"),
        ({"file_format": "onnx", "opset": 99}, r"opset: 99; the installed onnx \S+ knows \d+ at most"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_any_work(options, message, model, tmp_path):
    with pytest.raises(ConfigError, match=message):
        export_model(model, tmp_path / "file", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("opset", [18, 22])
def test_operators_are_of_the_version_that_was_asked_for(opset, model, photographs, tmp_path):
    path = tmp_path / "parts.onnx"
    certificate = export_model(model, path, file_format="onnx", opset=opset, images=photographs).certificate
    assert {(known.domain, known.version) for known in onnx.load(path).opset_import} == {("", opset)}
    assert certificate.verdict_flips == 0


@pytest.mark.slow
def test_an_export_of_a_model_of_few_steps_says_so(model, photographs, tmp_path, capsys, monkeypatch):
    network, record = load_model(model)
    loaded = network, record | {"training": {"plan": {"total_steps": 5}}}
    monkeypatch.setattr(export, "load_model", lambda folder: loaded)
    export_model(model, tmp_path / "file.pt2", file_format="torch", images=photographs[:1])
    assert "trained for only 5 steps: expect little" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_unreadable_images_stop_an_export_or_are_left_out_and_named(model, photographs, tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    for path in photographs[:3]:
        shutil.copy(path, folder)
    (folder / "broken.png").write_bytes(b"no picture")
    output = tmp_path / "parts.onnx"
    call = ["export", "--model", str(model), "--format", "onnx", "--output", str(output), "--images", str(folder)]
    assert main(call) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "broken.png" in said
    assert said.endswith("--on-error skip leaves out what cannot be read, and says so")
    assert not output.exists()
    assert main([*call, "--on-error", "skip"]) == 0
    printed = capsys.readouterr()
    assert "left out: 1 image that cannot be read (broken.png)" in " ".join(printed.err.split())
    assert "compared on 3 images (named with --images)" in " ".join(printed.out.split())
    for path in folder.iterdir():
        path.write_bytes(b"no picture")
    output.unlink()
    assert main([*call, "--on-error", "skip"]) == 1  # nothing is left to compare on
    assert not output.exists()


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("size_in", "size_out"), [(2, 4), (3, 8), (16, 64), (20, 40), (33, 130), (512, 1024)])
def test_the_formula_of_bilinear_upscaling(align_corners, size_in, size_out):
    """Against torch's own, in float64; its float32 has 24 bits, which must all be there."""
    found = hat_upscale(size_in, size_out, align_corners, torch.device("cpu"), torch.float32)
    identity = torch.eye(size_in, dtype=torch.float64)[None]
    wanted = F.interpolate(identity, size=size_out, mode="linear", align_corners=align_corners)[0].T
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-7)


# --- other sizes and precisions: minutes --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("size_px", [(512, 384), (320, 192), (100, 60)])
def test_other_sizes_are_the_models_at_that_size_without_its_thresholds(
    file_format, size_px, model, photographs, tmp_path
):
    certificate = export_model(
        model, tmp_path / "file", file_format=file_format, size_px=size_px, images=photographs
    ).certificate
    assert certificate.map_max_difference < 2e-5
    prediction = Inspector.load(tmp_path / "file", trust=True).inspect(photographs[0])
    assert prediction.map_logit.shape == size_px
    assert (prediction.p_value, prediction.defects) == (None, None)
    other = make_model(tmp_path / "other", image_size=size_px)
    wanted = Detector.load(other, device="cpu").predict(photographs[0])
    np.testing.assert_allclose(prediction.map_logit, wanted.map_logit, rtol=0, atol=2e-5)
    assert prediction.head_logit == pytest.approx(wanted.head_logit, abs=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize(("variant", "align_corners"), [("jims", True), ("icpr", False)])
def test_an_open_size_is_the_models_at_every_size(file_format, variant, align_corners, photographs, tmp_path):
    settings = {"variant": variant, "align_corners": align_corners}
    model = make_model(tmp_path / "model", **settings)
    export_model(model, tmp_path / "file", file_format=file_format, dynamic=True, images=photographs[:3])
    for size_px in (SIZE, (512, 384), (320, 192), (48, 160)):
        inspector = Inspector.load(tmp_path / "file", size_px=size_px, trust=True)
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
        wanted = Detector.load(make_model(tmp_path / "other", image_size=size_px, **settings), device="cpu")
        for one, other in zip(inspector.predict(photographs[:3]), wanted.predict(photographs[:3]), strict=True):
            # The upscaling's weights are computed in float32 here, in float64 there.
            np.testing.assert_allclose(one.map_logit, other.map_logit, rtol=0, atol=5e-5)
            assert one.head_logit == pytest.approx(other.head_logit, abs=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file_format", "precision"),
    [("onnx", "fp16"), ("openvino", "fp16"), ("torch", "fp16"), ("openvino", "bf16"), ("torch", "bf16")],
)
def test_sixteen_bits_halve_the_file_and_stay_near(
    file_format, precision, model, files, detector, photographs, tmp_path
):
    certificate = export_model(
        model, tmp_path / "file", file_format=file_format, precision=precision, images=photographs
    ).certificate
    assert (tmp_path / "file").stat().st_size < 0.6 * files[file_format].stat().st_size
    found = Inspector.load(tmp_path / "file", trust=True).inspect(photographs)
    # 11 bits, or 8, of weights that are multiplied some twenty layers deep; the maps spread over about one logit.
    atol = {"fp16": 0.005, "bf16": 0.05}[precision]
    for one, other in zip(found, detector.predict(list(photographs)), strict=True):
        np.testing.assert_allclose(one.map_logit, other.map_logit, rtol=0, atol=atol)
    assert certificate.map_max_difference > 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["onnx", "openvino"])
def test_int8_holds_its_limit_or_says_by_how_much_not(file_format, model, files, detector, photographs, tmp_path):
    options = {"file_format": file_format, "precision": "int8", "images": photographs}
    certificate = export_model(model, tmp_path / "file", max_drop=0.2, **options).certificate
    assert 0 < certificate.measured_drop <= 0.2
    of = "the share of the scores' variance that quantisation changes (8 images)"
    assert certificate.drop_of == of
    assert (tmp_path / "file").stat().st_size < 0.6 * files[file_format].stat().st_size
    # The same loss by hand: mean squared difference over variance of the fused score.
    wanted = np.array([p.fused_logit for p in detector.predict(list(photographs))])
    found = np.array([p.fused_logit for p in Inspector.load(tmp_path / "file").inspect(photographs)])
    assert certificate.measured_drop == pytest.approx(np.mean((found - wanted) ** 2) / np.var(wanted), rel=0.02)
    with pytest.raises(ExportError, match=r"int8: loses .* more than the 1e-07 % allowed; allow more with --max-drop"):
        export_model(model, tmp_path / "none", max_drop=1e-9, **options)
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_the_command_exports_and_a_line_looks(model, photographs, tmp_path, capsys):
    images = [str(photographs[0].parent)]
    output = tmp_path / "parts.onnx"
    options = ["--model", str(model), "--format", "onnx", "--output", str(output), "--images", *images]
    assert main(["export", *options]) == 0
    printed = capsys.readouterr().out
    assert "compared on 8 images (named with --images), from the file to the verdict" in printed
    assert "verdicts that differ: 0" in printed
    line = subprocess.run(
        [sys.executable, "-m", "supersimplenet.runtime", str(output), *images],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(line.stdout.splitlines()) == 8


# --- views: what counts and what does not travels with the file --------------------------------------------------


@pytest.mark.parametrize(
    ("file_format", "view"),
    [
        pytest.param("onnx", "roi", marks=pytest.mark.slow),
        pytest.param("openvino", "roi", marks=pytest.mark.slow),
        pytest.param("torch", "roi", marks=pytest.mark.slow),
        pytest.param("onnx", "pad", marks=pytest.mark.slow),
        pytest.param("openvino", "tiles", marks=pytest.mark.slow),
    ],
)
def test_a_view_travels_with_the_file(file_format, view, model, photographs, tmp_path):
    folder = shutil.copytree(model, tmp_path / "model")
    record = yaml.safe_load((folder / "config.yaml").read_text())
    images = photographs
    if view == "roi":
        roi = np.zeros((90, 140), dtype=bool)
        roi[20:70, 30:120] = True
        images = photographs[:1]  # the only one of the region's proportions
        record["view"] = {"roi": "roi.png"}
        record["reading"] = {"bit_depth": 12, "page": None}
        record["view_files"] = save_preprocessor(folder, Preprocessor(ViewConfig(), size_px=SIZE, roi=roi))
    else:
        record["view"] = {"fit": view}
    (folder / "config.yaml").write_text(yaml.safe_dump(record))
    output = tmp_path / "file"
    certificate = export_model(folder, output, file_format=file_format, images=images).certificate
    assert certificate.map_max_difference < 2e-5
    wanted = Detector.load(folder, device="cpu").predict(list(images))
    found = Inspector.load(output, trust=True).inspect(list(images))
    assert (wanted[0].ignored is not None) == (view == "roi")  # a padded image's map ends where the image does
    for one, other in zip(found, wanted, strict=True):
        assert (one.verdict, one.p_value, one.placement) == (other.verdict, other.p_value, other.placement)
        assert one.map_max_logit == pytest.approx(other.map_max_logit, abs=2e-5)
        np.testing.assert_allclose(one.map_logit, other.map_logit, rtol=0, atol=2e-5)
        if other.ignored is not None:
            np.testing.assert_array_equal(one.ignored, other.ignored)
    if view == "roi":  # the range of 16-bit values travels, too
        values = np.asarray(Image.open(images[0]).convert("L")).astype(np.uint16) * 16
        one, other = (
            line.predict(values) for line in (Inspector.load(output, trust=True), Detector.load(folder, device="cpu"))
        )
        np.testing.assert_allclose(one.map_logit, other.map_logit, rtol=0, atol=2e-5)
        assert one.reading == other.reading == ReadConfig(bit_depth=12)
        with pytest.raises(ImageError, match="above the 12 bits"):
            Inspector.load(output, trust=True).predict(values + np.uint16(4096))
    plain = Detector.load(model, device="cpu").predict(list(images))
    assert any(one.map_max_logit != other.map_max_logit for one, other in zip(found, plain, strict=True))
    with pytest.raises(ConfigError, match="dynamic: a model with a view of its own"):
        export_model(folder, output, file_format=file_format, dynamic=True, images=images)


# --- the graph's own verdict: docs/outputs.md ----------------------------------------------------------------------


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_program_that_knows_only_the_graph_gives_the_models_verdicts(file_format, files, detector, photographs):
    """The deciding score is the fused one here; version 0.1's graphs gave the head's under the name ``score``."""
    inspector = Inspector.load(files[file_format], trust=True)
    assert set(inspector.bundle.outputs) == set(inspector.graph_outputs(photographs[0]))
    verdicts = []
    for image, wanted in zip(photographs, detector.predict(list(photographs)), strict=True):
        found = {name: values[0] for name, values in inspector.graph_outputs(image).items()}
        verdicts.append(inspector.bundle.verdicts[found["verdict"]])
        assert verdicts[-1] == wanted.verdict
        for name in (*GRAPH_SCORES, "score_logit", "score"):
            assert found[name].dtype == np.float32
            assert float(found[name]) == pytest.approx(getattr(wanted, name), abs=2e-5)
        np.testing.assert_allclose(found["shown_map"], wanted.map_logit, rtol=0, atol=2e-5)
        assert (found["score"] >= 0.5) == (wanted.verdict == "bad")
        assert (found["score"] >= wanted.unsure_from) == (wanted.verdict != "good")
    assert len(set(verdicts)) == 3


@pytest.mark.parametrize("decides", ["head", "map"])
def test_a_score_that_is_just_the_threshold_is_bad_and_the_next_lower_one_is_not(decides):
    """In float32 a threshold of float64 would be rounded, perhaps below a score that it is meant to exceed."""
    head, smoothed = torch.tensor([0.1]), torch.tensor([[[-1.0, 0.3]]])
    score = {"head": head, "map": smoothed.amax()}[decides].item()

    def outputs(threshold: float) -> dict[str, torch.Tensor]:
        postprocessor = PostProcessor(calibration=calibration_of(decides, threshold), image_score=decides)
        return ScoreOutputs(postprocessor, inputs=("map", "head_logit"), gives_verdict=True)(smoothed, head)

    above = float(np.nextafter(score, np.inf))  # as `false_alarm_threshold` sets it: in float32 it is the score again
    for threshold, verdict in ((score, 2), (above, 0)):
        found = outputs(threshold)
        assert found["verdict"].item() == verdict
        assert (found["score"].item() >= 0.5) == (verdict == 2)


def calibration_of(decides: str, threshold: float) -> Calibration:
    return Calibration(
        image_score=decides,
        threshold_logit=threshold,
        accept_logit=None,
        pixel_logit=0.0,
        min_area_px=9,
        chosen_by="false-alarms",
        max_false_alarms=0.1,
        max_escapes=None,
        confidence=0.95,
        part_logits=(0.0,),
        images=1,
        bad_parts=0,
        escapes=0,
        basis="drawn",
        list_sha256="0",
        weights_sha256="0",
        date="2026-11-28",
    )


@pytest.mark.slow
def test_a_graph_that_sees_less_than_the_image_gives_no_verdict_and_says_so(model, photographs, tmp_path):
    bundle = export_model(model, tmp_path / "open.onnx", file_format="onnx", dynamic=True, images=photographs[:1])
    assert set(bundle.outputs) == {"map", "subspace_map", "shown_map", "score_logit", *GRAPH_SCORES}
    assert "not always a whole image" in bundle.outputs["head_logit"]
    assert set(Inspector.load(tmp_path / "open.onnx").graph_outputs(photographs[0])) == set(bundle.outputs)
