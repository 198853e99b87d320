"""How an image is brought before the network, and back: fits, regions of interest, and where things lie afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from supersimplenet import Detector, ModelConfig, SuperSimpleNet, evaluate
from supersimplenet.errors import ConfigError, DataError, ImageError, ModelFolderError
from supersimplenet.evaluation.config import ThresholdConfig
from supersimplenet.evaluation.set_thresholds import set_thresholds
from supersimplenet.inference.model_folder import hash_weights, load_preprocessor, save_model, save_preprocessor
from supersimplenet.postprocessing.calibration import Calibration
from supersimplenet.postprocessing.postprocessor import PostProcessor
from supersimplenet.preprocessing.geometry import Placement, chained, inverse
from supersimplenet.preprocessing.images import read_image
from supersimplenet.preprocessing.preprocessor import Preprocessor, ViewConfig, read_preprocessor, read_roi
from supersimplenet.runtime.backends import FunctionBackend
from supersimplenet.runtime.predictor import Predictor
from supersimplenet.runtime.tiles import Outputs
from supersimplenet.types import BAD, GOOD, Sample
from supersimplenet.visualization.overlay import map_layer

SIZE = (64, 64)
FITS = {
    "stretch": ViewConfig(),
    "pad": ViewConfig(fit="pad"),
    "tiles": ViewConfig(fit="tiles"),
    "reduced tiles": ViewConfig(fit="tiles", scale=0.5, tile_overlap=0.5),
}


def calibration(**changes: object) -> Calibration:
    values = {
        "image_score": "map",
        "threshold_logit": 1.0,
        "accept_logit": None,
        "pixel_logit": 1.0,
        "min_area_px": 1,
        "chosen_by": "false-alarms",
        "max_false_alarms": 0.5,
        "max_escapes": None,
        "confidence": 0.95,
        "part_logits": (0.0,),
        "images": 1,
        "bad_parts": 0,
        "escapes": 0,
        "basis": "made for a test",
        "list_sha256": "",
        "weights_sha256": "",
        "date": "2026-11-26",
    }
    return Calibration(**values | changes)  # type: ignore[arg-type]


def brightness(pixels: np.ndarray, ignored: np.ndarray | None = None) -> Outputs:
    """In the place of a network: a map as hot as the pixels are bright, 0 at half, and its maximum as the score."""
    maps = (pixels[..., 0].astype(np.float32) - 127.5) / 25
    counted = maps if ignored is None else np.where(ignored, -np.inf, maps)
    return Outputs(maps, counted.max(axis=(1, 2)))


def look(preprocessor: Preprocessor, *images: np.ndarray) -> list:
    return Predictor(
        FunctionBackend(brightness),
        postprocessor=PostProcessor(calibration=calibration(), image_score="map"),
        preprocessor=preprocessor,
    ).predict(list(images))


@pytest.fixture(scope="module")
def network() -> SuperSimpleNet:
    return SuperSimpleNet(ModelConfig(backbone="compact", image_size=SIZE), seed=1).eval()


def noise(size_px: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size_px, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", FITS)
def test_a_defect_has_its_box_area_and_centre_in_the_images_pixels(name):
    image = np.zeros((150, 230, 3), dtype=np.uint8)
    image[40:80, 100:130] = 255
    preprocessor = Preprocessor(FITS[name], size_px=SIZE)
    (prediction,) = look(preprocessor, image)
    (defect,) = prediction.defects
    down, across = prediction.placement.scale  # a pixel of the map, in the image
    assert (defect.left, defect.left + defect.width) == pytest.approx((100, 130), abs=max(1, across))
    assert (defect.top, defect.top + defect.height) == pytest.approx((40, 80), abs=max(1, down))
    assert (defect.centroid_x, defect.centroid_y) == pytest.approx((114.5, 59.5), abs=max(1, down / 2))
    assert defect.area_px == pytest.approx(40 * 30, rel=0.15)
    assert prediction.map_logit.shape == prediction.placement.map_size_px == preprocessor.map_size_px((150, 230))


def test_where_nothing_is_resized_boxes_are_exact():
    image = np.zeros((150, 230, 3), dtype=np.uint8)
    image[40:80, 100:130] = 255
    image[0:3, 226:230] = 255
    (prediction,) = look(Preprocessor(FITS["tiles"], size_px=SIZE), image)
    boxes = sorted((d.left, d.top, d.width, d.height, d.area_px) for d in prediction.defects)
    assert boxes == [(100, 40, 30, 40, 1200.0), (226, 0, 4, 3, 12.0)]
    # The blended tiles are the image, but for the rounding of weights that add up to 1.
    np.testing.assert_allclose(prediction.map_logit, brightness(image[None])[0][0], rtol=1e-6)


def test_stretch_gives_the_network_what_it_always_got(network, tmp_path):
    """To the last bit: the same pixels, the same call of the engine."""
    Image.fromarray(noise((50, 70))).save(tmp_path / "a.png")
    detector = Detector(network, device="cpu")
    prediction = detector.predict(tmp_path / "a.png")
    maps, heads, *_ = detector.engine.run(read_image(tmp_path / "a.png", size_px=SIZE)[None])
    assert np.array_equal(prediction.map_logit, maps[0])
    assert prediction.head_logit == heads[0]
    assert prediction.map_max_logit == maps[0].max()
    assert prediction.ignored is None
    assert prediction.placement == Placement.whole(SIZE, (50, 70))


def test_pad_keeps_the_proportions_and_its_padding_counts_nowhere(network):
    image = noise((40, 120))
    detector = Detector(network, device="cpu", preprocessor=Preprocessor(ViewConfig(fit="pad"), size_px=SIZE))
    prediction = detector.predict(image)
    assert prediction.map_logit.shape == (21, 64)  # 40 x 120 fits by 64 / 120
    seen = detector.preprocessor.prepare(image)
    (tile,) = seen.tiles()
    assert tile.ignored is not None
    assert (~tile.ignored).sum() == 21 * 64
    np.testing.assert_array_equal(tile.pixels[21:42], tile.pixels[20::-1])  # continued by its mirror image
    # Whatever stands in the padding, a 5 x 5 convolution and the backbone alone can see it: its pixels do not score.
    maps, heads, *_ = detector.engine.run(tile.pixels[None], tile.ignored[None])
    assert np.array_equal(prediction.map_logit, maps[0, :21])
    assert (prediction.head_logit, prediction.map_max_logit) == (heads[0], maps[0, :21].max())


def test_a_square_image_of_the_networks_size_is_the_same_in_every_fit(network):
    image = noise(SIZE)
    wanted = Detector(network, device="cpu").predict(image)
    for config in (ViewConfig(fit="pad"), ViewConfig(fit="tiles")):
        found = Detector(network, device="cpu", preprocessor=Preprocessor(config, size_px=SIZE)).predict(image)
        assert np.array_equal(found.map_logit, wanted.map_logit)
        assert found.score_logit == wanted.score_logit


@pytest.mark.parametrize("name", FITS)
def test_outside_the_region_of_interest_nothing_counts(name):
    image = np.zeros((150, 230, 3), dtype=np.uint8)
    image[40:60, 100:130] = 200
    image[100:140, 10:60] = 255  # hotter, and outside
    roi = np.zeros((150, 230), dtype=bool)
    roi[:90, 20:] = True
    inside, everywhere = (look(Preprocessor(FITS[name], size_px=SIZE, roi=mask), image)[0] for mask in (roi, None))
    assert len(everywhere.defects) == 2
    (defect,) = inside.defects
    assert abs(defect.left - 100) <= 4
    hottest = (200 - 127.5) / 25
    assert inside.map_max_logit == pytest.approx(hottest, abs=0.02) == inside.head_logit
    assert everywhere.map_max_logit > hottest + 1
    assert map_layer(inside, (150, 230))[100:140, 25:60, 3].max() == 0  # nor has it a colour
    assert map_layer(inside, (150, 230))[45:55, 105:125, 3].min() > 100


def test_a_region_of_interest_is_a_mask_or_polygons(tmp_path):
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[5:15, 10:20] = 255
    Image.fromarray(mask).save(tmp_path / "roi.png")
    np.testing.assert_array_equal(read_roi(tmp_path / "roi.png", (1, 1)), mask > 0)
    square = [[10, 5], [19, 5], [19, 14], [10, 14]]
    (tmp_path / "roi.json").write_text(json.dumps(square))
    np.testing.assert_array_equal(read_roi(tmp_path / "roi.json", (20, 30)), mask > 0)
    (tmp_path / "roi.json").write_text(json.dumps([square, [[0, 0], [2, 0], [2, 2], [0, 2]]]))
    assert read_roi(tmp_path / "roi.json", (20, 30)).sum() == 100 + 9
    for text, message in (
        ("[[1, 2], [3, 4]]", "fewer than three corners"),
        ("{}", "not a polygon"),
        ("[[1, 2, 3]]", "not a polygon"),
        ("no json", "not a polygon .Expecting value"),
        ("[" * 5000, "not a polygon .more than 32 lists"),
    ):
        (tmp_path / "roi.json").write_text(text)
        with pytest.raises(DataError, match=message):
            read_roi(tmp_path / "roi.json", (20, 30))
    with pytest.raises(DataError, match=r"gone\.json: cannot be read"):
        read_roi(tmp_path / "gone.json", (20, 30))


def test_what_a_region_of_interest_does_not_fit_is_an_error():
    preprocessor = Preprocessor(ViewConfig(), size_px=SIZE, roi=np.ones((40, 60), dtype=bool))
    preprocessor.prepare(noise((80, 120)))  # of the same proportions
    with pytest.raises(ImageError, match="the region of interest was drawn on 40 x 60 px"):
        preprocessor.prepare(noise((80, 80)))
    with pytest.raises(DataError, match="marks nothing"):
        Preprocessor(ViewConfig(), size_px=SIZE, roi=np.zeros((40, 60), dtype=bool))
    with pytest.raises(ImageError, match="no pixel of it counts"):
        preprocessor.prepare(noise((80, 120)), np.ones((80, 120), dtype=bool))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fit": "crop"}, "view.fit: 'crop'; choose stretch, pad, tiles"),
        ({"align": "affine"}, "view.align: 'affine'; choose none, translation, rigid"),
        ({"fit": "tiles", "tile_overlap": 0.9}, "view.tile_overlap: 0.9; wanted 0 to 0.75"),
        ({"fit": "tiles", "scale": 0.0}, "view.scale: 0.0; wanted above 0"),
        ({"fit": "pad", "scale": 0.5}, "count for tiles alone, and the fit is pad"),
        ({"align": "rigid"}, "view.align: needs view.reference too"),
        ({"reference": Path("a.png")}, "view.reference: needs view.align too"),
        ({"max_residual": 0.2}, "counts for aligned images alone"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        ViewConfig(**options)


def test_the_model_folder_keeps_the_view(network, tmp_path):
    roi = np.zeros((150, 230), dtype=np.uint8)
    roi[:90, 20:] = 255
    Image.fromarray(roi).save(tmp_path / "drawn.png")
    config = ViewConfig(fit="tiles", tile_overlap=0.5, roi=tmp_path / "drawn.png")
    preprocessor = read_preprocessor(config, size_px=SIZE, strides=(8, 16))
    folder = tmp_path / "model"
    folder.mkdir()
    plain = {"fit": "tiles", "tile_overlap": 0.5, "scale": 1.0, "roi": str(tmp_path / "drawn.png"), "align": "none"}
    save_model(folder, network, {"view": plain, "view_files": save_preprocessor(folder, preprocessor)})
    (tmp_path / "drawn.png").unlink()  # the folder alone must do
    image = noise((150, 230))
    loaded = Detector.load(folder, device="cpu")
    wanted = Detector(network, device="cpu", preprocessor=preprocessor).predict(image)
    found = loaded.predict(image)
    assert np.array_equal(found.map_logit, wanted.map_logit)
    assert np.array_equal(found.ignored, wanted.ignored)
    assert loaded.preprocessor.config.fit == "tiles"
    Image.fromarray(255 - roi).save(folder / "roi.png")
    with pytest.raises(ModelFolderError, match=r"roi\.png: not the one of the training"):
        Detector.load(folder)
    (folder / "roi.png").unlink()
    with pytest.raises(ModelFolderError, match=r"roi\.png is missing"):
        Detector.load(folder)
    with pytest.raises(ModelFolderError, match="view: unknown colour"):
        load_preprocessor(folder, {"view": {"colour": "red"}}, network.config)


@pytest.mark.parametrize("name", ["pad", "tiles"])
def test_evaluation_and_calibration_take_images_of_several_sizes(network, tmp_path, name):
    samples = []
    for place, size_px in enumerate([(64, 64), (50, 90), (100, 70), (80, 80)] * 2):
        label = BAD if place >= 4 else GOOD
        path = tmp_path / f"{place}.png"
        Image.fromarray(noise(size_px, place)).save(path)
        mask = np.zeros(size_px, dtype=np.uint8)
        mask[10:30, 20:40] = 255
        mask_path = tmp_path / f"{place}_mask.png"
        Image.fromarray(mask).save(mask_path)
        samples.append(
            Sample(
                image=path,
                label=label,
                split="test",
                defect="blot" if label else "good",
                mask=mask_path if label else None,
                ignore=mask_path if place == 1 else None,
            )
        )
    save_model(tmp_path / "model", network, {})
    detector = Detector(network, device="cpu", preprocessor=Preprocessor(FITS[name], size_px=SIZE))
    calibrated = set_thresholds(
        detector,
        samples,
        ThresholdConfig(lenient=True, min_area_px=4),
        basis="made for a test",
        weights_sha256=hash_weights(tmp_path / "model"),
    )
    detector.calibration = calibrated.calibration
    assert calibrated.calibration.parts == 4
    pixels = {}
    for resolution in ("model", "native"):
        evaluation = evaluate(detector, samples, resolution=resolution)
        assert all(metric.value is not None for metric in evaluation.metrics.values())
        assert sum(result.regions for result in evaluation.types) == 4
        pixels[resolution] = evaluation.metrics["P-AUROC"].value
    if name == "tiles":  # at scale 1 the map has the image's own size
        assert pixels["model"] == pixels["native"]


def test_places_on_a_turned_map_go_there_and_back():
    turn = (np.cos(0.2), -np.sin(0.2), 7.0, np.sin(0.2), np.cos(0.2), -3.0)
    there_and_back = chained(turn, inverse(turn))
    assert there_and_back == pytest.approx((1, 0, 0, 0, 1, 0), abs=1e-12)
    placement = Placement(map_size_px=(50, 60), image_size_px=(130, 140), frame_size_px=(100, 120), turn=turn)
    x, y = placement.points_on_image(np.array([30.0]), np.array([25.0]))
    assert (x[0], y[0]) == pytest.approx((60 * turn[0] + 50 * turn[1] + 7, 60 * turn[3] + 50 * turn[4] - 3))
    image = np.zeros((130, 140), dtype=bool)
    image[60:80, 40:70] = True
    on_map = placement.mask_on_map(image)
    assert on_map.sum() * 4 == pytest.approx(600, rel=0.1)
    back = placement.plane_on_image(on_map.astype(np.float32), outside=0.0) >= 0.5
    assert (back & image).sum() / (back | image).sum() > 0.85
    small = placement.plane_on_image(on_map.astype(np.float32), size_px=(65, 70), outside=0.0)
    assert small[35, 27] > 0.9
    assert small[10, 60] == 0


def test_what_lies_outside_the_region_of_interest_changes_nothing():
    """Not even what the network sees beside its edge: another bench under the same part gives the same prediction."""
    network = SuperSimpleNet(ModelConfig(backbone="compact", image_size=SIZE), seed=1).eval()
    roi = np.zeros(SIZE, dtype=bool)
    roi[16:48, 20:50] = True
    rng = np.random.default_rng(0)
    one, other = (rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8) for _ in range(2))
    other[roi] = one[roi]
    found, same = Detector(
        network, device="cpu", preprocessor=Preprocessor(ViewConfig(), size_px=SIZE, roi=roi)
    ).predict([one, other])
    assert found.score_logit == same.score_logit
    np.testing.assert_array_equal(found.map_logit, same.map_logit)
    seen = Preprocessor(ViewConfig(fit="tiles"), size_px=SIZE, roi=roi).prepare(one).pixels
    np.testing.assert_array_equal(seen[roi], one[roi])
    assert len(np.unique(seen[~roi], axis=0)) == 1


def test_a_polygon_beyond_the_picture_is_refused(tmp_path):
    (tmp_path / "roi.json").write_text("[[20, 10], [1685, 10], [1685, 50], [20, 50]]")
    with pytest.raises(
        DataError, match=r"roi\.json: the corner \[1685, 10\] lies outside .* 900 px wide and 600 px high"
    ):
        read_roi(tmp_path / "roi.json", (600, 900))
