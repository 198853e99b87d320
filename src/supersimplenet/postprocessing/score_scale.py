"""The scale of a model's image scores, and the scores that are made of several: fused and joint. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from supersimplenet.errors import ConfigError
from supersimplenet.types import ScoreName, is_finite

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ScoreScale:
    """Mean and standard deviation of the image scores over good training images, to make the scores comparable.

    Attributes:
        head_mean: mean of the classification head's score, in logits.
        head_std: standard deviation of the classification head's score, in logits.
        map_mean: mean of the map's maximum, in logits.
        map_std: standard deviation of the map's maximum, in logits.
        images: number of images measured; 0 where nothing was measured, and the scores stay as they are.
        subspace_mean: mean of the subspace's score, in logits.
        subspace_std: standard deviation of the subspace's score, in logits.
        subspace_map_mean: mean of the subspace map's maximum, in logits.
        subspace_map_std: standard deviation of the subspace map's maximum, in logits.
        head_weight: weight of the head's score in the joint score.
        map_weight: weight of the map's score in it.
        subspace_weight: weight of the subspace's score in it; the three add up to 1.
        shown_weight: weight of the subspace map in the anomaly map that is shown and lists defects, 0 to 1.
    """

    head_mean: float = 0.0
    head_std: float = 1.0
    map_mean: float = 0.0
    map_std: float = 1.0
    images: int = 0
    subspace_mean: float = 0.0
    subspace_std: float = 1.0
    subspace_map_mean: float = 0.0
    subspace_map_std: float = 1.0
    head_weight: float = 0.0
    map_weight: float = 0.5
    subspace_weight: float = 0.5
    shown_weight: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, name = getattr(self, field.name), field.name
            if name == "images":
                continue
            is_std, is_weight = name.endswith("std"), name.endswith("weight")
            if not is_finite(value) or (is_std and value <= 0) or (is_weight and value < 0):
                wanted = "a finite number" + (" above 0" if is_std else ", 0 or more" if is_weight else "")
                raise ConfigError(f"{name}: {value!r}; wanted {wanted}")
        if not isinstance(self.images, int) or self.images < 0:
            raise ConfigError(f"images: {self.images!r}; wanted a whole number of 0 or more")
        total = self.head_weight + self.map_weight + self.subspace_weight
        if not math.isclose(total, 1, abs_tol=1e-6):
            raise ConfigError(f"head_weight, map_weight, subspace_weight: they add up to {total:g}; wanted 1")
        if self.shown_weight > 1:
            raise ConfigError(f"shown_weight: {self.shown_weight!r}; wanted a number from 0 to 1")

    def scores(self, head: T | None, map_max: T | None, subspace: T | None) -> dict[ScoreName, T]:
        """Return all scores by name, from those that a model computes: numbers, or tensors of numbers.

        ``fused`` is the mean of head and map, ``joint`` the weighted mean of all three, both on the head's scale.
        """
        found: dict[ScoreName, T] = {}
        if head is not None:
            found["head"] = head
        if map_max is not None:
            found["map"] = map_max
        if head is not None and map_max is not None:
            found["fused"] = self.fuse(head, map_max)
        if subspace is not None:
            found["subspace"] = subspace
            found["joint"] = self.join(head, map_max, subspace)
        return found

    def fuse(self, head_logit: Any, map_max_logit: Any) -> Any:
        """Return the mean of both scores, after the map's score was put on the head's scale."""
        map_on_head_scale = self.head_mean + self.head_std * (map_max_logit - self.map_mean) / self.map_std
        return (head_logit + map_on_head_scale) / 2

    def join(self, head_logit: Any, map_max_logit: Any, subspace_logit: Any) -> Any:
        """Return the weighted mean of all scores, put on the head's scale; a score of weight 0 may be missing.

        Raises:
            ConfigError: a score with a weight is missing.
        """
        deviations = 0.0
        for name, value in (("head", head_logit), ("map", map_max_logit), ("subspace", subspace_logit)):
            weight = getattr(self, f"{name}_weight")
            if weight > 0:
                if value is None:
                    raise ConfigError(f"{name}_weight: {weight:g}, but the model has no {name} score")
                mean, std = getattr(self, f"{name}_mean"), getattr(self, f"{name}_std")
                deviations = deviations + weight * (value - mean) / std
        return self.head_mean + self.head_std * deviations

    def shown_map(self, own: T | None, subspace_map: T | None) -> T:
        """Return the anomaly map that is shown: the network's own, mixed with the subspace's on the scale of the first.

        Args:
            own: (..., H, W) the network's own map; None for a model whose heads are not trained.
            subspace_map: likewise, the smoothed distance from the subspace; None for a model without one.
        """
        if subspace_map is None or (own is not None and self.shown_weight == 0):
            assert own is not None  # every model computes one of both
            return own
        network: Any = own
        of_subspace: Any = subspace_map
        on_scale = self.map_mean + self.map_std * (of_subspace - self.subspace_map_mean) / self.subspace_map_std
        shown: T = on_scale if own is None else (1 - self.shown_weight) * network + self.shown_weight * on_scale
        return shown
