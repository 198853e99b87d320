"""Any labels there are: what each regime uses, and that its loss is the published one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from supersimplenet.benchmark import published_order as plain
from supersimplenet.datasets.base import DataSource
from supersimplenet.datasets.masks import without_empty_masks
from supersimplenet.datasets.splits import hold_out
from supersimplenet.datasets.supervision import supervise
from supersimplenet.errors import ConfigError, DataError, ImageError
from supersimplenet.model.anomalies import draw_anomalies
from supersimplenet.model.config import LabelRecipe, ModelConfig, Recipe, resolve_recipe
from supersimplenet.model.heads import Heads
from supersimplenet.training.config import CacheConfig, TrainerConfig
from supersimplenet.training.feature_cache import FLIPS, CachedFeatures, FlipIndex
from supersimplenet.training.module import TrainingModule
from supersimplenet.training.pixel_labels import read_pixel_labels
from supersimplenet.training.tile_labels import distance_weight, widen
from supersimplenet.training.train import train
from supersimplenet.types import BAD, GOOD, Sample
from supersimplenet.utils.seeding import derive_seed

REGIMES = ("unsupervised", "weak", "mixed", "full")
IMAGE_SIZE = (48, 40)
MAP_SIZE = (12, 10)


def draw_image(path: Path, seed: int, size: tuple[int, int] = IMAGE_SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(90, 130, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def draw_mask(path: Path, seed: int, size: tuple[int, int] = IMAGE_SIZE) -> Path:
    """Two blots, one at the border."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, dtype=np.uint8)
    y, x = rng.integers(12, size[0] - 14), rng.integers(8, size[1] - 10)
    mask[y : y + 9, x : x + 6] = 255
    mask[:7, : rng.integers(3, 9)] = 255
    Image.fromarray(mask).save(path)
    return path


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Six good and four bad training images, two of them with masks, and a test image of each kind."""
    root = tmp_path_factory.mktemp("labels")
    made = [
        Sample(image=draw_image(root / "good" / f"{i}.png", i), label=GOOD, split="train", group=f"part {i}")
        for i in range(6)
    ]
    for i in range(4):
        image = draw_image(root / "bad" / f"{i}.png", 100 + i)
        mask = draw_mask(root / "masks" / f"{i}.png", i) if i < 2 else None
        made.append(
            Sample(image=image, label=BAD, split="train", defect="dot", mask=mask, pixel_labels_known=mask is not None)
        )
    made.append(Sample(image=draw_image(root / "test" / "good.png", 200), label=GOOD, split="test"))
    mask = draw_mask(root / "test" / "mask.png", 9)
    made.append(
        Sample(image=draw_image(root / "test" / "bad.png", 201), label=BAD, split="test", defect="dot", mask=mask)
    )
    return made


class Given(DataSource):
    """Samples as they are given."""

    name = "Given"

    def samples(self) -> list[Sample]:
        return self.given


def source_of(samples: list[Sample]) -> Given:
    source = Given()
    source.given = samples
    return source


def masked(samples: list[Sample]) -> list[str]:
    return [sample.image.name for sample in samples if sample.label == BAD and sample.pixel_labels_known]


class TestRegime:
    def test_follows_from_the_samples(self, samples):
        good = [sample for sample in samples if sample.label == GOOD]
        weak = [replace(s, mask=None, pixel_labels_known=False) if s.label == BAD else s for s in samples]
        full = [s for s in samples if s.pixel_labels_known]
        found = {name: supervise(given) for name, given in (("good", good), ("weak", weak), ("full", full))}
        assert {name: supervision.regime for name, supervision in found.items()} == {
            "good": "unsupervised",
            "weak": "weak",
            "full": "full",
        }
        mixed = supervise(samples)
        assert mixed.regime == "mixed"
        assert mixed.counts == {"good": 6, "bad_with_mask": 2, "bad_without_mask": 2}
        assert all(sample.split == "train" for sample in mixed.training)
        assert mixed.describe() == ("supervision: mixed; 6 good training images, 2 bad ones with a mask, 2 without")

    def test_can_be_forced_down(self, samples):
        unsupervised = supervise(samples, "unsupervised")
        assert (unsupervised.regime, len(unsupervised.training), unsupervised.bad_left_out) == ("unsupervised", 6, 4)
        weak = supervise(samples, "weak")
        assert (weak.regime, len(weak.training), weak.masks_left_out) == ("weak", 10, 2)
        assert all(sample.mask is None for sample in weak.training)
        assert "2 masks not used" in weak.describe()
        mixed = supervise(samples, "mixed", masks="1")
        assert (mixed.counts["bad_with_mask"], mixed.masks_left_out) == (1, 1)

    def test_kept_masks_follow_the_seed_and_more_include_the_fewer(self, tmp_path):
        many = [Sample(image=tmp_path / "good.png", label=GOOD, split="train")]
        for i in range(40):
            image, mask = tmp_path / f"{i:02d}.png", tmp_path / f"{i:02d}_mask.png"
            many.append(Sample(image=image, label=BAD, split="train", defect="dot", mask=mask))
        kept = [set(masked(supervise(many, "mixed", masks=count, seed=3).training)) for count in (4, 0.25, "20")]
        assert [len(names) for names in kept] == [4, 10, 20]
        assert kept[0] < kept[1] < kept[2]
        assert kept[1] == set(masked(supervise(many[::-1], "mixed", masks=0.25, seed=3).training))
        assert kept[1] != set(masked(supervise(many, "mixed", masks=0.25, seed=4).training))

    def test_masks_can_be_listed(self, samples, tmp_path):
        listed = tmp_path / "kept.txt"
        for line in (samples[6].image.name, str(samples[6].image)):
            listed.write_text(f"# one image a line\n{line}\n\n")
            assert masked(supervise([*samples[:6], *samples[6:10]], "mixed", masks=str(listed)).training) == ["0.png"]
        listed.write_text("nowhere.png\n")
        with pytest.raises(ConfigError, match=r"kept\.txt: 'nowhere\.png' names no bad training image with a mask"):
            supervise(samples, "mixed", masks=str(listed))

    @pytest.mark.parametrize(
        ("supervision", "masks", "message"),
        [
            ("full", None, "2 of 4 have none; give them, or choose mixed or auto"),
            ("mixed", "3", "masks: 3 asked for, and 2 bad training images have one"),
            ("mixed", "1.5", "wanted a whole number of images, or a share between 0 and 1"),
            ("mixed", "0", "wanted a whole number of images, or a share between 0 and 1"),
            ("mixed", "a few", "wanted a number of images, a share between 0 and 1, or a file"),
            ("weak", "3", "given with supervision weak; it belongs to --supervision mixed"),
            ("strong", None, "'strong'; choose auto, unsupervised, weak, mixed or full"),
        ],
    )
    def test_what_cannot_be_is_refused(self, samples, supervision, masks, message):
        with pytest.raises((ConfigError, DataError), match=message):
            supervise(samples, supervision, masks=masks)

    def test_labels_that_are_not_there_are_asked_for(self, samples):
        for supervision in ("weak", "mixed", "full"):
            with pytest.raises(DataError, match="needs bad training images, and there is no bad image; give some"):
                supervise(samples[:6], supervision)
        with pytest.raises(DataError, match="no good training image"):
            supervise(samples[6:])
        tested = [sample for sample in samples if sample.label == GOOD or sample.split == "test"]
        with pytest.raises(DataError, match="all 1 bad images are in the test split; give some to the training split"):
            supervise(tested, "full")
        assert supervise(tested).describe().endswith("(all 1 bad images are in the test split)")
        with pytest.raises(DataError, match="mixed needs bad training images with masks; give masks, or choose weak"):
            supervise(supervise(samples, "weak").training, "mixed", masks=1)


def test_recipes_are_the_published_ones():
    def resolved(regime: str, **options: object) -> LabelRecipe:
        return resolve_recipe(Recipe(flips="published"), regime, **{"variant": "jims", **options})

    unsupervised = resolved("unsupervised")
    assert (unsupervised.perlin_threshold, unsupervised.stop_gradient, unsupervised.gradient_clip_norm) == (
        0.2,
        True,
        None,
    )
    assert resolved("unsupervised", own_perlin_threshold=0.6).perlin_threshold == 0.6
    assert resolved("weak", own_perlin_threshold=0.6).perlin_threshold == 0.2
    for regime, threshold in (("weak", 0.2), ("mixed", 0.6), ("full", 0.6)):
        recipe = resolved(regime)
        assert (recipe.perlin_threshold, recipe.stop_gradient, recipe.gradient_clip_norm) == (threshold, False, 1.0)
        assert (recipe.flips, recipe.mask_dilation_px, recipe.distance_weight) == ("published", 7, (3.0, 2.0))
    icpr = resolved("full", variant="icpr")
    assert (icpr.mask_dilation_px, icpr.distance_weight) == (1, None)
    own = resolve_recipe(Recipe(gradient_clip_norm=None, stop_gradient=True), "full", variant="jims")
    assert (own.gradient_clip_norm, own.stop_gradient) == (None, True)


@pytest.mark.parametrize("side", [1, 3, 7])
def test_masks_are_widened_by_a_square(side):
    mask = np.random.default_rng(0).random((20, 17)) < 0.02
    np.testing.assert_array_equal(widen(mask, side), plain.plain_dilation(mask, side))


def test_distance_weights_are_those_of_the_formula():
    rng = np.random.default_rng(1)
    mask = widen(rng.random((24, 31)) < 0.01, 5)
    assert 2 < mask.sum() < mask.size
    np.testing.assert_allclose(distance_weight(mask, 3, 2), plain.plain_weight(mask), rtol=1e-6)


def test_a_mask_of_the_whole_image_weighs_most_in_its_middle():
    weight = distance_weight(np.ones((5, 5), dtype=bool), 3, 2)
    assert weight[2, 2] == 3
    assert weight[0, 0] == pytest.approx(3 / 9)


def module_of(samples: list[Sample], regime: str, *, variant: str = "jims", recipe: Recipe | None = None):
    """A module in float64 over random features: each image with its four views."""
    recipe = recipe or Recipe()
    settings = resolve_recipe(recipe, regime, variant=variant)
    labels, _ = read_pixel_labels(samples, settings, MAP_SIZE)
    generator = torch.Generator().manual_seed(0)
    channels, sizes = (6, 10), ((6, 5), (3, 3))
    heads = Heads(channels, variant=variant, align_corners=True, generator=generator).double()
    shapes = [torch.Size((*size, count)) for size, count in zip(sizes, channels, strict=True)]
    views = FlipIndex.of([4] * len(samples))
    values = torch.rand(len(views.image), sum(shape.numel() for shape in shapes), generator=generator)
    source = CachedFeatures(values.double(), shapes, "memory", views)
    module = TrainingModule(heads, source, recipe=recipe, labels=labels, label_recipe=settings, seed=0)
    module.feature_type = torch.float64
    module.noise_std = 0.3
    return module


def plain_labels(sample: Sample, settings: LabelRecipe, axes: tuple[int, ...]) -> tuple[NDArray, NDArray, NDArray]:
    """Defective, weight and ignored at the map's size, flipped at the image's own size, before anything else."""

    def resized(plane: NDArray) -> NDArray:
        image = Image.fromarray(np.flip(plane, axes).astype(np.float32))
        return np.asarray(image.resize(MAP_SIZE[::-1], Image.Resampling.BILINEAR))

    ignored = np.zeros(IMAGE_SIZE, dtype=bool)
    if sample.ignore is not None:
        ignored = np.asarray(Image.open(sample.ignore)) >= 128
    ignored = resized(ignored) > 1e-3  # less is the rounding of the resize
    if sample.mask is None:
        return np.zeros(MAP_SIZE, dtype=bool), np.ones(MAP_SIZE), ignored
    mask = plain.plain_dilation(np.asarray(Image.open(sample.mask)) >= 128, settings.mask_dilation_px)
    weight = resized(plain.plain_weight(mask)) if settings.distance_weight else np.ones(MAP_SIZE)
    return (resized(mask) >= 0.5) & ~ignored, weight, ignored


@pytest.mark.parametrize("ignoring", [False, True])
@pytest.mark.parametrize("variant", ["jims", "icpr"])
@pytest.mark.parametrize("regime", REGIMES)
def test_a_step_of_each_regime_equals_the_plain_formula(samples, tmp_path, regime, variant, ignoring):
    given = [sample for sample in samples if sample.split == "train"]
    if regime == "full":
        given = [sample for sample in given if sample.pixel_labels_known]
    used = supervise(given, regime).training
    if ignoring:
        used = [replace(s, ignore=draw_mask(tmp_path / f"{i}.png", 50 + i)) if i % 2 else s for i, s in enumerate(used)]
    module = module_of(used, regime, variant=variant)
    settings = module.label_recipe
    row = torch.arange(len(used)) * 4 + torch.arange(len(used)) % 4
    loss = module.loss(row, anomaly_seed=5)
    loss.backward()

    of_row = [plain_labels(used[r // 4], settings, FLIPS[r % 4]) for r in row.tolist()]
    defective, weight, ignored = (torch.from_numpy(np.stack(planes)) for planes in zip(*of_row, strict=True))
    bad = torch.tensor([sample.label == BAD for sample in used])
    known = torch.tensor([sample.pixel_labels_known for sample in used]).repeat(2)
    anomalies = draw_anomalies(
        defective | ignored,
        channels=16,
        perlin_threshold=settings.perlin_threshold,
        noise_std=0.3,
        generator=[torch.Generator().manual_seed(derive_seed(5, place)) for place in range(len(used))],
        dtype=torch.float64,
    )
    assert anomalies.mask.any()
    assert not (anomalies.mask & (defective | ignored).repeat(2, 1, 1)).any()
    noise = torch.zeros(anomalies.mask.numel(), 16, dtype=torch.float64)
    noise[anomalies.position] = anomalies.noise[: len(anomalies.position)]
    noise = noise.view(*anomalies.mask.shape, 16).movedim(-1, 1)
    reference = plain.PlainHeads((6, 10), variant=variant, align_corners=True).double()
    reference.load_state_dict(
        {
            plain.plain_name(name): value.reshape(reference.state_dict()[plain.plain_name(name)].shape)
            for name, value in module_of(used, regime, variant=variant).heads.state_dict().items()
        }
    )
    maps = [values.movedim(-1, 1) for values in module.source.features(row)]
    map_logit, score_logit = reference(
        maps,
        noise,
        anomalies.mask,
        stop_gradient=settings.stop_gradient,
        ignored=ignored.repeat(2, 1, 1) if ignoring else None,
    )
    mask = anomalies.mask | defective.repeat(2, 1, 1)
    label = anomalies.mask.flatten(1).any(1) | bad.repeat(2)
    expected = plain.plain_loss(
        map_logit,
        score_logit,
        mask,
        label,
        known=known,
        ignored=ignored.repeat(2, 1, 1),
        weight=weight.double().repeat(2, 1, 1),
    )
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)  # the weights are kept in float32
    of_reference = dict(reference.named_parameters())
    for name, parameter in module.heads.named_parameters():
        wanted = of_reference[plain.plain_name(name)].grad.reshape(parameter.shape)
        difference = (parameter.grad - wanted).norm()
        assert difference <= 1e-6 * wanted.norm() + 1e-12, name


class TestUnlabelledImages:
    """An image without pixel labels, and its noised copy, is in no term of the map."""

    def test_their_maps_get_no_gradient_whatever_the_noise_marks(self, samples):
        used = supervise(samples, "weak").training
        module = module_of(used, "weak")
        seen = {}
        original = module.heads.forward

        def keep(*arguments: object, **options: object):
            seen["output"] = original(*arguments, **options)
            seen["output"].map_logit.retain_grad()
            return seen["output"]

        module.heads.forward = keep
        module.label_recipe = replace(module.label_recipe, stop_gradient=True)  # the map's own terms alone
        row = torch.arange(len(used)) * 4
        module.loss(row, anomaly_seed=1).backward()
        gradient = seen["output"].map_logit.grad.abs().sum((1, 2)).view(2, -1)
        bad = torch.tensor([sample.label == BAD for sample in used])
        assert (gradient[:, bad] == 0).all()
        assert (gradient[:, ~bad] > 0).all()

    def test_masks_given_to_them_cannot_influence_training(self, samples, tmp_path):
        def run(name: str, given: list[Sample]) -> bytes:
            train(
                source_of(given),
                output=tmp_path / name,
                model=ModelConfig(backbone="compact", image_size=(64, 64)),
                recipe=Recipe(batch_size=6),
                trainer=TrainerConfig(max_epochs=2, accelerator="cpu"),
            )
            return (tmp_path / name / "model.safetensors").read_bytes()

        train_split = [sample for sample in samples if sample.split == "train"]
        unknown = [s if s.label == GOOD else replace(s, mask=None, pixel_labels_known=False) for s in train_split]
        mask = draw_mask(tmp_path / "any.png", 5)
        given = [s if s.label == GOOD else replace(s, mask=mask, pixel_labels_known=False) for s in train_split]
        known = [s if s.label == GOOD else replace(s, mask=mask, pixel_labels_known=True) for s in train_split]
        weights = run("unknown", unknown)
        assert run("given", given) == weights
        assert run("known", known) != weights  # and where they are known they do


def test_an_empty_mask_says_nothing(samples, tmp_path):
    empty = tmp_path / "empty.png"
    Image.fromarray(np.zeros(IMAGE_SIZE, dtype=np.uint8)).save(empty)
    used = [*samples[:6], replace(samples[6], mask=empty), samples[7]]
    labels, _ = read_pixel_labels(used, resolve_recipe(Recipe(), "full", variant="jims"), MAP_SIZE)
    assert labels.known.tolist() == [True] * 6 + [False, True]
    usable, empties = without_empty_masks(used)
    assert empties == [used[6]]
    assert (supervise(used).regime, supervise(usable).regime) == ("full", "mixed")
    assert supervise(usable, "full").regime == "full"  # each has a mask, if one that says nothing
    assert supervise(usable, "full").counts == supervise(usable).counts
    assert supervise(usable).counts == {"good": 6, "bad_with_mask": 1, "bad_without_mask": 1}


def test_an_unreadable_mask_stops_or_is_reported(samples, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    used = [samples[0], replace(samples[6], mask=broken), samples[7]]
    settings = resolve_recipe(Recipe(), "full", variant="jims")
    with pytest.raises(ImageError, match=r"broken\.png: not a readable image"):
        read_pixel_labels(used, settings, MAP_SIZE)
    _, failures = read_pixel_labels(used, settings, MAP_SIZE, on_error="skip")
    assert [(failure.index, failure.path) for failure in failures] == [(1, samples[6].image)]


@pytest.mark.parametrize("cache", [CacheConfig(), CacheConfig(memory_gib=0, disk_gib=0)])
def test_a_run_of_mixed_supervision_records_what_it_used(samples, tmp_path, cache):
    detector = train(
        source_of(samples),
        output=tmp_path / "run",
        supervision="mixed",
        masks="1",
        model=ModelConfig(backbone="compact", image_size=(64, 64)),
        recipe=Recipe(batch_size=6),
        trainer=TrainerConfig(max_epochs=1, accelerator="cpu", holdout_fraction=0.34),
        cache=cache,
    )
    training = detector.record["training"]
    assert detector.record["supervision"] == "mixed"
    assert (training["regime"], training["good_images"], training["held_out_images"]) == ("mixed", 3, 3)
    assert (training["bad_with_mask_images"], training["bad_without_mask_images"]) == (1, 3)
    assert training["masks_left_out"] == 1
    assert training["label_recipe"]["flips"] == "symmetric"
    assert training["plan"]["total_steps"] == 6  # 4 bad images in 4 views, as many good ones, 32 in steps of 6
    assert detector.score_scale.images == 3
    assert detector.record["score_scale"]["head_std"] > 0


def test_the_scores_scale_is_that_of_the_good_images_trained_on(samples, tmp_path):
    detector = train(
        source_of(samples),
        output=tmp_path / "run",
        model=ModelConfig(backbone="compact", image_size=(64, 64)),
        recipe=Recipe(batch_size=6),
        trainer=TrainerConfig(max_epochs=1, accelerator="cpu", holdout_fraction=0.5),
    )
    scale = detector.score_scale
    training = supervise(samples).training
    held = hold_out(training, 0.5, seed=0)
    trained_on = [s.image for place, s in enumerate(training) if s.label == GOOD and place not in held]
    predictions = detector.predict(list(trained_on))
    head = np.array([prediction.head_logit for prediction in predictions])
    peak = np.array([prediction.map_max_logit for prediction in predictions])
    # Features of the training are kept in bfloat16, 8 bits; the detector computes in float32.
    assert (scale.images, len(trained_on)) == (3, 3)
    assert (scale.head_mean, scale.map_mean) == pytest.approx((head.mean(), peak.mean()), abs=2e-2)
    assert (scale.head_std, scale.map_std) == pytest.approx((head.std(ddof=1), peak.std(ddof=1)), abs=2e-2)
    for prediction in predictions:
        standardised = (prediction.map_max_logit - scale.map_mean) / scale.map_std
        expected = (prediction.head_logit + scale.head_mean + scale.head_std * standardised) / 2
        assert prediction.fused_logit == pytest.approx(expected)
        assert prediction.score_logit == prediction.joint_logit  # mixed supervision: the joint score decides
        assert prediction.verdict == ("bad" if prediction.score_logit >= detector.threshold_logit else "good")
