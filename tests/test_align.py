"""Images moved onto a reference: known shifts and turns are found again, what cannot be aligned is said."""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy import ndimage
from test_views import calibration

from supersimplenet import Detector, ModelConfig, Recipe, SyntheticConfig, TrainerConfig, synthesize, train
from supersimplenet.datasets.mvtec import MVTecAD
from supersimplenet.errors import ConfigError, ImageError
from supersimplenet.evaluation.evaluate import evaluate, evaluate_again
from supersimplenet.postprocessing.postprocessor import PostProcessor
from supersimplenet.prediction.predict import predict_files
from supersimplenet.preprocessing.images import read_image
from supersimplenet.preprocessing.preprocessor import Preprocessor, ViewConfig, read_preprocessor
from supersimplenet.report.report import write_report
from supersimplenet.runtime.backends import FunctionBackend
from supersimplenet.runtime.predictor import Predictor
from supersimplenet.runtime.tiles import Outputs

pytest.importorskip("cv2", reason="needs the extra align")

SIZE = (64, 64)


def draw_part(size_px: tuple[int, int], *, angle_deg: float = 0, shift: tuple[float, float] = (0, 0), seed: int = 0):
    """A plate with holes and a slot, in soft noise; turned clockwise about the middle, then shifted (x, y)."""
    height, width = size_px
    y, x = np.mgrid[:height, :width] + 0.5
    x, y = x - width / 2 - shift[0], y - height / 2 - shift[1]
    cosine, sine = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    x, y = cosine * x + sine * y, -sine * x + cosine * y  # back to the part's own places
    unit = min(size_px) / 10
    soft = lambda distance: np.clip(0.5 - distance, 0, 1)  # noqa: E731
    plate = soft(np.maximum(abs(x) - 4 * unit, abs(y) - 3 * unit))
    grey = 60 + 120 * plate
    for centre_x, centre_y, radius in ((-2.5, -1.5, 0.6), (2.2, -1.7, 0.9), (-1.0, 1.4, 1.0)):
        grey -= 80 * soft(np.hypot(x - centre_x * unit, y - centre_y * unit) - radius * unit)
    grey -= 50 * soft(np.maximum(abs(x - 2 * unit) - 1.2 * unit, abs(y - 1.5 * unit) - 0.3 * unit))
    grey += 4 * ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=size_px), 1)
    return np.repeat(grey.clip(0, 255).round().astype(np.uint8)[..., None], 3, axis=2)


def view_on(reference: np.ndarray, motion: str, **options: object) -> Preprocessor:
    config = ViewConfig(align=motion, reference=Path("reference.png"), **options)
    return Preprocessor(config, size_px=SIZE, reference=reference)


@pytest.mark.parametrize("size_px", [(300, 400), (1500, 1100)])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (7.0, -11.0), (-40.5, 22.25)])
def test_a_shift_is_found(size_px, shift):
    image = draw_part(size_px, shift=shift, seed=1)
    alignment = view_on(draw_part(size_px), "translation").prepare(image).layout.alignment
    assert alignment.shift_px == pytest.approx(math.hypot(*shift), abs=0.5)
    assert (alignment.angle_deg, alignment.residual < 0.05) == (0, True)


@pytest.mark.parametrize(("angle_deg", "shift"), [(0, (0, 0)), (2.5, (10, -6)), (-9, (-15, 20)), (14, (5, 5))])
def test_an_angle_and_a_shift_are_found(angle_deg, shift):
    size_px = (600, 800)
    image = draw_part(size_px, angle_deg=angle_deg, shift=shift, seed=1)
    preprocessor = view_on(draw_part(size_px), "rigid")
    layout = preprocessor.prepare(image).layout
    assert layout.alignment.angle_deg == pytest.approx(angle_deg, abs=0.1)
    assert layout.alignment.shift_px == pytest.approx(math.hypot(*shift), abs=0.5)
    # A place of the reference lies in the image where the drawing put it.
    x, y = layout.placement.points_on_image(np.array([10.0]), np.array([12.0]))  # on the map
    down, across = layout.placement.scale
    u, v = 10 * across - 400, 12 * down - 300
    cosine, sine = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    assert x[0] == pytest.approx(400 + cosine * u - sine * v + shift[0], abs=1)
    assert y[0] == pytest.approx(300 + sine * u + cosine * v + shift[1], abs=1)


def test_boxes_are_in_the_image_as_it_was():
    size_px = (300, 400)
    reference = draw_part(size_px)
    reference_map = reference[..., 0].astype(np.float32)

    def differs(pixels: np.ndarray, ignored: np.ndarray | None = None):
        """In the place of a network: hot where the aligned image is not the reference."""
        maps = np.abs(pixels[..., 0].astype(np.float32) - reference_map) / 20 - 2
        counted = maps if ignored is None else np.where(ignored, -np.inf, maps)
        return Outputs(maps, counted.max(axis=(1, 2)))

    image = draw_part(size_px, angle_deg=4, shift=(12, -8))
    image[120:140, 150:180] = 255
    preprocessor = Preprocessor(
        ViewConfig(align="rigid", reference=Path("reference.png"), fit="tiles"), size_px=size_px, reference=reference
    )
    postprocessor = PostProcessor(calibration=calibration(min_area_px=30), image_score="map")
    (prediction,) = Predictor(FunctionBackend(differs), postprocessor=postprocessor, preprocessor=preprocessor).predict(
        [image]
    )
    (defect,) = prediction.defects  # the edges lie on each other, and what the image does not show does not count
    assert (defect.left, defect.top) == pytest.approx((150, 120), abs=2)  # a box around a turned box is a little larger
    assert (defect.left + defect.width, defect.top + defect.height) == pytest.approx((180, 140), abs=2)
    assert (defect.centroid_x, defect.centroid_y) == pytest.approx((164.5, 129.5), abs=0.6)
    assert defect.area_px == pytest.approx(600, rel=0.06)
    assert prediction.ignored.any()
    assert prediction.alignment.angle_deg == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize("motion", ["translation", "rigid"])
def test_what_cannot_be_aligned_is_said(motion):
    preprocessor = view_on(draw_part((300, 400)), motion)
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    with pytest.raises(ImageError, match="array: cannot be aligned"):
        preprocessor.prepare(noise)
    with pytest.raises(ImageError, match="it shows one even colour"):
        preprocessor.prepare(np.full((300, 400, 3), 90, dtype=np.uint8))
    with pytest.raises(ImageError, match="it is 30 x 40 px"):
        preprocessor.prepare(draw_part((30, 40)))


def test_without_opencv_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(
        ConfigError, match=r"needs OpenCV, which is not installed; pip install 'supersimplenet\[align\]'"
    ):
        view_on(draw_part((60, 80)), "rigid")


def test_training_testing_and_prediction_are_aligned(tmp_path):
    """A model folder trained with alignment and a region of interest, used from the command line's own functions."""
    size_px = (150, 200)
    config = SyntheticConfig(surfaces=("cast_grain",), size_px=size_px, train_good=6, test_good=3, test_per_defect=1)
    synthesize(tmp_path / "data", config)
    source = MVTecAD(root=tmp_path / "data", category="cast_grain")
    rng = np.random.default_rng(0)
    for place, sample in enumerate(source.samples()):  # each surface under a part that lies anew each time
        part = draw_part(size_px, angle_deg=rng.uniform(-5, 5), shift=tuple(rng.uniform(-8, 8, 2)), seed=place)
        mixed = 0.75 * part + 0.25 * read_image(sample.image)
        Image.fromarray(mixed.round().astype(np.uint8)).save(sample.image)
    Image.fromarray(draw_part(size_px)).save(tmp_path / "reference.png")
    (tmp_path / "roi.json").write_text("[[20, 20], [180, 20], [180, 130], [20, 130]]")
    trained = train(
        source,
        output=tmp_path / "run",
        model=ModelConfig(backbone="compact", image_size=SIZE),
        recipe=Recipe(batch_size=3),
        trainer=TrainerConfig(max_steps=3, accelerator="cpu", holdout_fraction=0.5),
        view=ViewConfig(align="rigid", reference=tmp_path / "reference.png", roi=tmp_path / "roi.json", fit="pad"),
    )
    assert {path.name for path in (tmp_path / "run").glob("*.png")} == {"roi.png", "reference.png"}
    assert set(yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["view_files"]) == {
        "roi.png",
        "reference.png",
    }
    (tmp_path / "reference.png").unlink()
    loaded = Detector.load(tmp_path / "run", device="cpu")
    samples = source.samples()
    one = samples[-1].image
    assert loaded.predict(one).score_logit == trained.predict(one).score_logit
    for resolution in ("model", "native"):
        evaluation = evaluate(loaded, samples, resolution=resolution)
        assert evaluation.failures == []
        assert evaluation.metrics["P-AUROC"].value is not None
    for case in evaluate_again(loaded, evaluation.outcomes[:2]):
        assert case.ignored.shape == case.prediction.map_logit.shape
    blank = tmp_path / "blank.png"
    Image.new("RGB", size_px[::-1], (90, 90, 90)).save(blank)
    predict_files(tmp_path / "run", [str(one), str(blank)], tmp_path / "out", on_error="skip", overlays=True)
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines()))
    alignment = loaded.predict(one).alignment
    assert float(rows[0]["align_shift_px"]) == alignment.shift_px > 0
    assert float(rows[0]["align_angle_deg"]) == alignment.angle_deg
    assert float(rows[0]["align_residual"]) == alignment.residual < 0.5
    assert "cannot be aligned" in rows[1]["error"]
    assert (rows[1]["verdict"], rows[1]["align_residual"]) == ("", "")
    with pytest.raises(ImageError, match=r"blank\.png: cannot be aligned"):
        predict_files(tmp_path / "run", [str(blank)], tmp_path / "stopped")
    report = write_report(tmp_path / "run", tmp_path / "report").read_text()
    assert report.count("beyond it nothing counts") == 2  # among the layers of the gallery, and of the single image


def test_outside_the_region_of_interest_an_aligned_image_is_the_reference():
    reference, part = draw_part((120, 160)), draw_part((120, 160), angle_deg=3, shift=(4, -3))
    roi = np.zeros((120, 160), dtype=bool)
    roi[30:90, 40:120] = True
    config = ViewConfig(align="rigid", reference=Path("reference.png"), fit="tiles")
    preprocessor = Preprocessor(config, size_px=(64, 64), roi=roi, reference=reference)
    pixels = preprocessor.prepare(part).pixels
    np.testing.assert_array_equal(pixels[~roi], reference[~roi])
    assert (pixels[roi] != reference[roi]).any()


def test_a_region_of_interest_lies_on_the_reference(tmp_path):
    Image.fromarray(draw_part((60, 80))).save(tmp_path / "reference.png")
    Image.new("L", (40, 30), 255).save(tmp_path / "roi.png")
    config = ViewConfig(align="translation", reference=tmp_path / "reference.png", roi=tmp_path / "roi.png")
    with pytest.raises(Exception, match="30 x 40 px, the reference 60 x 80 px"):
        read_preprocessor(config, size_px=SIZE, strides=(8, 16))
