"""The published protocol: the settings that published figures were made with, and what a benchmark's runs do otherwise.

Needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

from supersimplenet.benchmark.config import Protocol
from supersimplenet.benchmark.journal import Line
from supersimplenet.benchmark.published import published_datasets
from supersimplenet.datasets.registry import SOURCES
from supersimplenet.model.config import (
    NO_SHIFT,
    PUBLISHED_BACKBONE,
    PUBLISHED_NOISE_STD,
    PUBLISHED_STRIDES,
    LabelRecipe,
    ModelConfig,
    Recipe,
    resolve_recipe,
)
from supersimplenet.preprocessing.preprocessor import ViewConfig
from supersimplenet.training.config import TrainerConfig
from supersimplenet.utils.formatting import counted
from supersimplenet.utils.serialization import from_plain, to_plain

_Groups = Mapping[str, ModelConfig | ViewConfig | Recipe | TrainerConfig]
# Settings that change no figure of the tables: where a run computes, and which of the scores in them gives the verdict.
_NO_FIGURE = {"accelerator", "devices", "num_nodes", "strategy", "num_workers", "image_score"}
# Settings of the recipe that a regime has no use for: it has no bad images, or no masks.
_OF_MASKS = ("mask_dilation_px", "distance_weight", "small_regions")
_UNUSED = {"unsupervised": {"flips", "most_repeats", *_OF_MASKS}, "weak": {*_OF_MASKS}}
_OF_LABELS = {field.name for field in fields(LabelRecipe)}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a protocol; those that it does not name are the defaults.

    Attributes:
        view: how images are prepared.
        recipe: how the network is trained.
        trainer: length of the training, and held-out images.
    """

    view: ViewConfig
    recipe: Recipe
    trainer: TrainerConfig


def protocol_settings(protocol: Protocol) -> Settings:
    """Return the settings of a protocol."""
    if protocol == "ours":
        return Settings(view=ViewConfig(), recipe=Recipe(), trainer=TrainerConfig())
    recipe = Recipe(
        noise_std=PUBLISHED_NOISE_STD,
        flips="published",
        sampling="published",
        most_repeats=1,
        small_regions="drop",
        image_score="head",
        map_shift_px=NO_SHIFT,
    )
    return Settings(view=ViewConfig(resize="bilinear"), recipe=recipe, trainer=TrainerConfig(holdout_fraction=0.0))


def default_protocol(dataset: str) -> Protocol:
    """Return the protocol of a dataset, by the name of its class: published where its results are."""
    return "published" if dataset in published_datasets() else "ours"


def with_protocol(arguments: Sequence[str]) -> list[str]:
    """Put the options of the protocol first, so that the user's own options win, whatever they say.

    Args:
        arguments: the options of ``benchmark accuracy``; without ``--protocol`` the dataset decides it.
    """
    named = _value_of(arguments, "--protocol")
    if named is None:
        dataset = (_value_of(arguments, "--data.class_path") or _value_of(arguments, "--data") or "").rpartition(".")[2]
        named = default_protocol(dataset) if dataset in SOURCES else None
    if named is None or named not in get_args(Protocol):
        return list(arguments)  # the parser refuses it, or the command
    settings = protocol_settings("published" if named == "published" else "ours")
    options = ["--protocol", named]
    for group, value in vars(settings).items():
        usual = type(value)()
        for name, chosen in vars(value).items():
            if chosen != getattr(usual, name):
                options += [f"--{group}.{name}", str(to_plain(chosen))]
    return [*options, *arguments]


def deviations(lines: Sequence[Line]) -> list[str]:
    """Return what the runs of a benchmark do otherwise than the published ones; none where nothing is published.

    Args:
        lines: the lines of the runs, which share their settings.
    """
    settings, dataset = lines[0]["settings"], lines[0]["dataset"]
    if dataset not in published_datasets():
        return []
    regimes = list(dict.fromkeys(line["regime"] for line in lines))
    groups: _Groups = {
        "model": ModelConfig(variant=settings["model"]["variant"], feature_strides=PUBLISHED_STRIDES),
        **vars(protocol_settings("published")),
    }
    found = []
    for group, published in groups.items():
        given = settings.get(group, {})
        if group == "recipe":
            given = {"map_shift_px": NO_SHIFT, **given}  # versions that do not name it moved no map
        ours = from_plain(type(published), to_plain(given), where=f"settings.{group}")
        if isinstance(ours, ModelConfig):
            ours = replace(ours, feature_strides=ours.strides)
        for name in vars(published):
            if name in _NO_FIGURE or (group == "model" and name == "image_size"):
                continue
            if group == "recipe":
                pairs = [
                    tuple(_resolved(recipe, name, settings, dataset, regime) for recipe in (ours, published))
                    for regime in regimes
                    if name not in _UNUSED.get(regime, ())
                ]
            else:
                pairs = [(getattr(ours, name), getattr(published, name))]
            found += [
                f"{group}.{name} {_shown(mine)} instead of {_shown(theirs)}"
                for mine, theirs in dict.fromkeys(pairs)
                if mine != theirs
            ]
    return [*found, *_beyond_settings(lines, settings, dataset, regimes)]


def _beyond_settings(lines: Sequence[Line], settings: Mapping[str, Any], dataset: str, regimes: list[str]) -> list[str]:
    """Return the deviations that are no setting of a group."""
    found = []
    if settings["model"].get("image_size") is not None:
        sizes = dict.fromkeys("x".join(map(str, line["image_size"])) for line in lines)
        own = SOURCES[dataset].image_size
        if own is None or list(sizes) != ["x".join(map(str, own))]:
            found.append(f"model.image_size {', '.join(sizes)} instead of the dataset's own")
    if settings.get("time_budget") is not None:
        found.append(f"time_budget {settings['time_budget']} instead of none")
    if settings.get("aupro", "exact") != "anomalib":
        found.append("AUPRO by every threshold instead of anomalib's way")
    left_out = sum(line.get("vanishing_images", 0) for line in lines)
    if left_out:
        images = counted(left_out, "test image")
        found.append(
            f"{images} whose mask vanishes in the resize left out of pixel metrics instead of counted as normal"
        )
    if settings.get("recipe", {}).get("flips") == "published" and {"full", "mixed"} & set(regimes):
        found.append("masks of flipped images resized before the flip instead of after it")
    if dataset == "KSDD2" and "weak" in regimes:
        found.append("weak: good images train the anomaly map instead of only the score")
    return found


def _resolved(recipe: Any, name: str, settings: Mapping[str, Any], dataset: str, regime: Any) -> Any:
    """Return a setting of a recipe with ``auto`` replaced by its value."""
    model = settings["model"]
    if name == "noise_std" and recipe.noise_std == "auto":
        of_hub = model["backbone"] == PUBLISHED_BACKBONE and model.get("backbone_weights") is None
        return PUBLISHED_NOISE_STD if of_hub else "auto"
    if name not in _OF_LABELS:
        return getattr(recipe, name)
    threshold = SOURCES[dataset].perlin_threshold
    resolved = resolve_recipe(recipe, regime, variant=model["variant"], own_perlin_threshold=threshold)
    return getattr(resolved, name)


def _shown(value: Any) -> str:
    value = to_plain(value)
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _value_of(arguments: Sequence[str], option: str) -> str | None:
    """Return the last value of an option in a command's arguments."""
    value = None
    for place, argument in enumerate(arguments):
        if argument.startswith(f"{option}="):
            value = argument.partition("=")[2]
        elif argument == option and place + 1 < len(arguments):
            value = arguments[place + 1]
    return value
