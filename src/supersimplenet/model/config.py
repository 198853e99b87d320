"""Configs of the network and its training, with the published choices as defaults.

Plain dataclasses without torch, so that the command line can show and check them before it imports anything slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, get_args

from supersimplenet.errors import ConfigError
from supersimplenet.types import ModelScore, Regime

Variant = Literal["jims", "icpr"]
Flips = Literal["none", "published", "symmetric"]
SmallRegions = Literal["keep", "drop"]
Sampling = Literal["even", "published"]
Auto = Literal["auto"]
Origin = Literal["package", "extra", "hub", "file", "module"]  # of a backbone's weights; see `Backbone`
COMPACT = "compact"
LITE0 = "efficientnet_lite0"  # from the extra [imagenet]; timm's own model of this name is TIMM_LITE0
TIMM_LITE0 = "efficientnet_lite0.ra_in1k"
PUBLISHED_BACKBONE = "wide_resnet50_2.tv_in1k"
PUBLISHED_NOISE_STD = 0.015
PUBLISHED_SIZE_PX = (256, 256)
PUBLISHED_STRIDES = (8, 16)  # layer2 and layer3 of a ResNet
SMALLEST_SIDE_PX, LARGEST_SIDE_PX = 32, 8192
NO_SHIFT = (0, 0)
LARGEST_SHIFT_PX = 8


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Settings of the network's architecture.

    Args:
        backbone: ``compact`` (shipped with the package, works offline), ``efficientnet_lite0`` (ImageNet weights of the
            extra ``[imagenet]``, no hub), or the name of any timm model that gives feature maps, such as
            ``wide_resnet50_2.tv_in1k`` (the published backbone, fetched from the model hub) or
            ``vit_small_patch14_dinov2.lvd142m``.
        backbone_weights: file with the backbone's weights (safetensors or a state dict), read instead of the hub's. It
            may hold fewer or more layers than the timm model has; the layers that are used must be there.
        layers: the layers whose feature maps are used, by their names in timm, as a list or with commas between them,
            such as ``layer2,layer3`` or ``blocks.5,blocks.8,blocks.11``. Null: those of ``feature_strides``.
        feature_strides: strides of the feature maps that are used, ascending; with ``layers``, those of the layers.
            Null: 8 and 16 (layer2 and layer3 of a ResNet), or, for a plain vision transformer, the blocks at the half,
            three quarters and the end of its depth (docs/decisions/0028-backbones.md).
        image_size: height and width in pixels to which each image is resized. Null: the size for which results on the
            dataset are published, or 256 by 256 where there is no such size; for a vision transformer, its own.
        variant: ``jims`` classifies the unadapted features (JIMS 2025), ``icpr`` the adapted ones (ICPR 2024).
        align_corners: how feature maps are upscaled: true as the authors do, false as anomalib does.
    """

    backbone: str = PUBLISHED_BACKBONE
    backbone_weights: Path | None = None
    layers: tuple[str, ...] | str | None = None
    feature_strides: tuple[int, ...] | None = None
    image_size: tuple[int, int] | None = None
    variant: Variant = "jims"
    align_corners: bool = True

    def __post_init__(self) -> None:
        sides = self.size_px
        fits = all(isinstance(side, int) and SMALLEST_SIDE_PX <= side <= LARGEST_SIDE_PX for side in sides)
        if len(sides) != 2 or not fits:
            raise ConfigError(
                f"model.image_size: {'x'.join(map(str, sides))} px; give height and width, each side at least "
                f"{SMALLEST_SIDE_PX} px and at most {LARGEST_SIDE_PX:,} px, such as [256, 256]"
            )
        _require(self.variant in get_args(Variant), "model.variant", self.variant, " or ".join(get_args(Variant)))
        strides = self.feature_strides
        if strides is not None and (not strides or list(strides) != sorted(set(strides))):
            raise ConfigError(
                f"model.feature_strides: {list(strides)}; give one or more strides in ascending order, such as [8, 16]"
            )
        names = self.layer_names
        if names is not None and (not all(names) or not names or len(set(names)) < len(names)):
            raise ConfigError(
                f"model.layers: {', '.join(names) or 'none'}; give one or more names, each once, such as layer2,layer3"
            )

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width to which each image is resized; the published size where none is given."""
        return PUBLISHED_SIZE_PX if self.image_size is None else self.image_size

    @property
    def layer_names(self) -> tuple[str, ...] | None:
        """Names of the layers, each for itself; None where they are not given."""
        return tuple(name.strip() for name in self.layers.split(",")) if isinstance(self.layers, str) else self.layers

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the feature maps, ascending; (8, 16) where they are not given."""
        return PUBLISHED_STRIDES if self.feature_strides is None else self.feature_strides


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of the recipe. ``auto`` values follow the supervision, as published; `resolve_recipe` fills them in.

    Args:
        batch_size: number of images per step (each image is used twice, see JIMS section 3.2).
        perlin_threshold: a pixel becomes anomalous where the Perlin field exceeds it; higher gives smaller anomalies.
            ``auto``: 0.2 for unsupervised (VisA 0.6) and weak supervision, 0.6 for mixed and full.
        noise_std: standard deviation of the feature noise. ``auto``: the published 0.015 for the published backbone;
            for every other backbone it follows the measured scale of the features (docs/decisions/0003-noise-scale.md).
        stop_gradient: keep the classification loss from training the segmentation head. ``auto``: only for unsupervised
            training.
        flips: which images are also used flipped in training: upside down, left to right, and both. ``published``: only
            bad images, so that a flip reveals the label; ``symmetric``: good images too; ``none``: no image.
            ``auto``: none for unsupervised training, else symmetric (docs/decisions/0012-flips-and-scores.md).
        sampling: how the images of an epoch are chosen. ``even``: beside bad images the good ones that were drawn least
            often, in batches of equal size; ``published``: good ones at random, rarely drawn ones more likely, and one
            several times where there are fewer than are drawn; the last batch has what is left over.
        most_repeats: where few bad images would make an epoch shorter than the good images alone do, the bad ones are
            repeated in it, up to this many times its steps; 1 for each once, as published.
        mask_dilation_px: side of the square by which masks are widened, in pixels of the mask's file; 1 leaves them
            unchanged. ``auto``: 7, and 1 for the ICPR variant.
        distance_weight: (w, p): a defective pixel has the weight w (d / d_max)^p, where d is its distance from the edge
            of its region; null for equal weights. ``auto``: (3, 2), and null for the ICPR variant.
        small_regions: a defective region smaller than half a position of the map: ``keep`` marks the position that it
            covers best, and the others that it touches count in no loss; ``drop`` trains on all of them as normal, as
            published (docs/decisions/0022-small-regions.md).
        image_score: which anomaly score decides the verdict: ``head`` (the classification head's), ``map`` (the map's
            maximum), ``fused`` (their mean on one scale), ``subspace`` (the distance from the features of good images)
            or ``joint`` (a weighted mean of head, map and subspace). All are reported. ``auto``: the head's for weak
            supervision, else joint (docs/decisions/0027-subspace.md).
        map_shift_px: how far (down, right) the anomaly map is moved back, in pixels of the input, each 0 to 8.
            ``auto``: as measured on painted defects at the end of the training, 0 where it does not help
            (docs/decisions/0029-place-and-outline.md).
        adaptor_lr: learning rate of the feature adaptor.
        adaptor_weight_decay: weight decay of the feature adaptor.
        heads_lr: learning rate of both heads.
        heads_weight_decay: weight decay of both heads.
        lr_milestones: fractions of the training at which the learning rates are multiplied by ``lr_decay``.
        lr_decay: factor of the learning rates at each milestone.
        gradient_clip_norm: largest norm of the gradient, null for no clipping. ``auto``: null for unsupervised
            training, else 1.

    Source: JIMS section 4.2 (implementation details). Differs: the defaults of ``flips``, ``sampling``,
    ``most_repeats`` and ``small_regions``.
    """

    batch_size: int = 32
    perlin_threshold: float | Auto = "auto"
    noise_std: float | Auto = "auto"
    stop_gradient: bool | Auto = "auto"
    flips: Flips | Auto = "auto"
    sampling: Sampling = "even"
    most_repeats: int = 4
    mask_dilation_px: int | Auto = "auto"
    distance_weight: tuple[float, float] | Auto | None = "auto"
    small_regions: SmallRegions = "keep"
    image_score: ModelScore | Auto = "auto"
    map_shift_px: tuple[int, int] | Auto = "auto"
    adaptor_lr: float = 1e-4
    adaptor_weight_decay: float = 1e-2
    heads_lr: float = 2e-4
    heads_weight_decay: float = 1e-5
    lr_milestones: tuple[float, ...] = (0.8, 0.9)
    lr_decay: float = 0.4
    gradient_clip_norm: float | Auto | None = "auto"

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, "recipe.batch_size", self.batch_size, "at least 1")
        ways = get_args(Sampling)
        _require(self.sampling in ways, "recipe.sampling", self.sampling, f"one of {', '.join(ways)}")
        _require(self.most_repeats >= 1, "recipe.most_repeats", self.most_repeats, "at least 1")
        if self.perlin_threshold != "auto":
            inside = -1 < self.perlin_threshold < 1
            _require(inside, "recipe.perlin_threshold", self.perlin_threshold, "between -1 and 1, or auto")
        if self.noise_std != "auto":
            _require(self.noise_std > 0, "recipe.noise_std", self.noise_std, "more than 0, or auto")
        wanted_flips = (*get_args(Flips), "auto")
        _require(self.flips in wanted_flips, "recipe.flips", self.flips, f"one of {', '.join(wanted_flips)}")
        if self.mask_dilation_px != "auto":
            odd = self.mask_dilation_px >= 1 and self.mask_dilation_px % 2 == 1
            _require(odd, "recipe.mask_dilation_px", self.mask_dilation_px, "an odd number of 1 or more, or auto")
        if self.distance_weight is not None and self.distance_weight != "auto":
            positive = len(self.distance_weight) == 2 and min(self.distance_weight) > 0
            _require(positive, "recipe.distance_weight", self.distance_weight, "two positive numbers, null or auto")
        kept_or_not = get_args(SmallRegions)
        given = self.small_regions
        _require(given in kept_or_not, "recipe.small_regions", given, f"one of {', '.join(kept_or_not)}")
        scores = (*get_args(ModelScore), "auto")
        _require(self.image_score in scores, "recipe.image_score", self.image_score, f"one of {', '.join(scores)}")
        if self.map_shift_px != "auto":
            wanted = f"two whole numbers from 0 to {LARGEST_SHIFT_PX}, or auto"
            _require(is_shift(self.map_shift_px), "recipe.map_shift_px", self.map_shift_px, wanted)
        for name in ("adaptor_lr", "heads_lr", "lr_decay"):
            _require(getattr(self, name) > 0, f"recipe.{name}", getattr(self, name), "more than 0")
        for name in ("adaptor_weight_decay", "heads_weight_decay"):
            _require(getattr(self, name) >= 0, f"recipe.{name}", getattr(self, name), "0 or more")
        ascending = list(self.lr_milestones) == sorted(self.lr_milestones)
        inside = all(0 < fraction < 1 for fraction in self.lr_milestones)
        _require(ascending and inside, "recipe.lr_milestones", self.lr_milestones, "ascending fractions in (0, 1)")
        if self.gradient_clip_norm is not None and self.gradient_clip_norm != "auto":
            clips = self.gradient_clip_norm > 0
            _require(clips, "recipe.gradient_clip_norm", self.gradient_clip_norm, "more than 0, null or auto")


@dataclass(frozen=True, kw_only=True)
class ScoreWeights:
    """Weights of a regime, see `ScoreScale`: of the joint score, and of the subspace map."""

    head_weight: float
    map_weight: float
    subspace_weight: float
    shown_weight: float


# Chosen on held-out groups of training images, as docs/decisions/0027-subspace.md says.
_UNSUPERVISED = ScoreWeights(head_weight=0.2, map_weight=0.3, subspace_weight=0.5, shown_weight=0.75)
_SUPERVISED = ScoreWeights(head_weight=0.5, map_weight=0.3, subspace_weight=0.2, shown_weight=0.0)
SCORE_WEIGHTS: dict[Regime, ScoreWeights] = {
    "unsupervised": _UNSUPERVISED,
    "weak": _SUPERVISED,
    "mixed": _SUPERVISED,
    "full": _SUPERVISED,
}
SUBSPACE_ALONE = ScoreWeights(head_weight=0.0, map_weight=0.0, subspace_weight=1.0, shown_weight=1.0)
_IMAGE_SCORES: dict[Regime, ModelScore] = {"unsupervised": "joint", "weak": "head", "mixed": "joint", "full": "joint"}


@dataclass(frozen=True, kw_only=True)
class LabelRecipe:
    """Settings of a recipe that depend on the labels, with every ``auto`` resolved; see `Recipe` for each."""

    perlin_threshold: float
    stop_gradient: bool
    flips: Flips
    mask_dilation_px: int
    distance_weight: tuple[float, float] | None
    small_regions: SmallRegions
    image_score: ModelScore
    gradient_clip_norm: float | None


def resolve_recipe(
    recipe: Recipe, regime: Regime, *, variant: Variant, own_perlin_threshold: float | None = None
) -> LabelRecipe:
    """Return the published settings of a regime where the recipe has ``auto``, and the recipe's own values elsewhere.

    Args:
        recipe: as configured.
        regime: kind of supervision.
        variant: variant of the network; the ICPR variant neither widens nor weights masks.
        own_perlin_threshold: the dataset's own threshold for unsupervised training, if it has one.

    Source: JIMS section 4.2.
    """
    own = own_perlin_threshold
    unsupervised, has_masks = regime == "unsupervised", regime in ("mixed", "full")
    published = LabelRecipe(
        perlin_threshold=own if unsupervised and own is not None else 0.6 if has_masks else 0.2,
        stop_gradient=unsupervised,
        flips="none" if unsupervised else "symmetric",
        mask_dilation_px=7 if variant == "jims" else 1,
        distance_weight=(3.0, 2.0) if variant == "jims" else None,
        small_regions="drop",
        image_score=_IMAGE_SCORES[regime],
        gradient_clip_norm=None if unsupervised else 1.0,
    )
    given = {field.name: getattr(recipe, field.name) for field in fields(LabelRecipe)}
    return replace(published, **{name: value for name, value in given.items() if value != "auto"})


def is_shift(shift_px: Sequence[int]) -> bool:
    """Return whether these numbers are a shift of the anomaly map (down, right)."""
    return len(shift_px) == 2 and all(0 <= pixels <= LARGEST_SHIFT_PX for pixels in shift_px)


def _require(condition: bool, name: str, value: object, wanted: str) -> None:
    if not condition:
        raise ConfigError(f"{name}: {value}; it must be {wanted}")
