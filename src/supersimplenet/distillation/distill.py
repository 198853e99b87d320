"""Trains a student backbone to give the features of a teacher, on crops of pictures without labels."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from supersimplenet.distillation.config import DistillConfig
from supersimplenet.distillation.pictures import Crops
from supersimplenet.errors import ConfigError, TrainingDivergedError, TrainingInterruptedError
from supersimplenet.model.backbone import Backbone, build_backbone
from supersimplenet.model.config import COMPACT, ModelConfig
from supersimplenet.model.weight_files import load_torch_file
from supersimplenet.utils.console import console, progress_bar
from supersimplenet.utils.files import to_disk, whole_file, write_text
from supersimplenet.utils.formatting import shown_duration
from supersimplenet.utils.locks import writing_into
from supersimplenet.utils.serialization import as_json, to_plain
from supersimplenet.utils.system import available_cores

WEIGHTS = "backbone.safetensors"
SETTINGS = "distillation.json"
PROGRESS = "progress.csv"
_CHECKPOINT = "last.ckpt"
_CHECKPOINT_EVERY_S = 60.0
_NORMALISED_BY = 16  # batches whose teacher features give mean and scale of each channel
_FIRST_STEPS = 1 / 20  # of the steps, over which the learning rate rises
_LINE_EVERY = 100  # steps of a row of the progress table
_AHEAD = 3  # batches that are read ahead


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """What a distillation came to.

    Attributes:
        weights: file with the student's weights, for ``--model.backbone_weights``.
        steps: steps that were done.
        explained: share of the variance of each of the teacher's feature maps that the student gives, over the last
            steps.
    """

    weights: Path
    steps: int
    explained: tuple[float, ...]


class _Pupil(nn.Module):
    """The student with a linear map from its channels to the teacher's, for each feature map."""

    def __init__(self, student: Backbone, teacher: Backbone) -> None:
        super().__init__()
        self.student = student
        student.net.requires_grad_(True)
        pairs = zip(student.channels, teacher.channels, strict=True)
        self.adapters = nn.ModuleList(nn.Linear(own, wanted) for own, wanted in pairs)

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = self.student.features((image - self.student.mean) / self.student.std)
        return [adapter(values) for adapter, values in zip(self.adapters, maps, strict=True)]


def teacher_of(config: DistillConfig) -> Backbone:
    """Build the teacher with its weights; see `build_backbone`."""
    return build_backbone(
        ModelConfig(
            backbone=config.teacher, backbone_weights=config.teacher_weights, feature_strides=config.feature_strides
        )
    )


def student_of(config: DistillConfig) -> Backbone:
    """Build the student with the weights that it starts from."""
    model = ModelConfig(
        backbone=config.student, backbone_weights=config.student_weights, feature_strides=config.feature_strides
    )
    torch.manual_seed(config.seed)
    return build_backbone(model, with_weights=config.student == COMPACT or config.student_weights is not None)


def distill(
    pictures: Sequence[Path],
    output: Path,
    config: DistillConfig,
    *,
    teacher: Backbone | None = None,
    time_budget_s: float | None = None,
    resume: bool = False,
) -> Distilled:
    """Train a student to give the features of a teacher.

    The loss is the squared error of each feature map, whose channels have mean 0 and deviation 1, after a linear map
    from the student's channels that is thrown away at the end.

    Args:
        pictures: image files, without labels; none where all crops are drawn.
        output: folder for the weights, the settings and the progress.
        config: the settings.
        teacher: a teacher of the caller's own (`wrap_module`) in place of the one that is named.
        time_budget_s: seconds after which it ends early, with the learning rate falling to zero in time; None for all
            steps.
        resume: go on with the distillation in ``output`` that was stopped.

    Returns:
        Where the weights are, and how much of the teacher they give.

    Raises:
        BackboneError: a backbone cannot be built, or lacks a stride.
        ConfigError: there are no pictures, ``output`` holds another distillation, or nothing to go on with.
        ImageError: a picture cannot be read.
        TrainingDivergedError: the loss is not finite.
        TrainingInterruptedError: it was stopped; it can go on.

    Source: regression of normalised features, as EfficientAD (WACV 2024, section 3.1) trains its small backbone.
    """
    if not pictures and config.generated < 1:
        raise ConfigError("pictures: none were found; name folders with pictures, or give --generated 1")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    if teacher is None:
        teacher = teacher_of(config)
    else:
        config = replace(config, teacher=type(teacher.net).__name__, teacher_weights=None)
    teacher = teacher.to(device)
    pupil = _Pupil(student_of(config), teacher).to(device)
    with writing_into(output):
        run = _Run(pictures, output, config, teacher, pupil, torch.device(device))
        run.begin(resume=resume)
        return run.finish(time_budget_s)


class _Run:
    """A distillation in its folder."""

    def __init__(
        self,
        pictures: Sequence[Path],
        output: Path,
        config: DistillConfig,
        teacher: Backbone,
        pupil: _Pupil,
        device: torch.device,
    ) -> None:
        self._output, self._config, self._teacher, self._pupil, self._device = output, config, teacher, pupil, device
        smallest, largest = config.crop_px
        self._smallest_px = smallest
        self._crops = Crops(pictures, largest_px=largest, generated=config.generated, seed=config.seed)
        self._optimizer = torch.optim.AdamW(
            pupil.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        decides = [to_plain(config), teacher.fingerprint(counters=False), [path.name for path in pictures]]
        self._identity = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
        self._step, self._share = 0, 0.0  # of the steps, or of the time budget
        self._scales: list[tuple[Tensor, Tensor]] = []
        self._losses: list[list[float]] = []

    def begin(self, *, resume: bool) -> None:
        """Read the checkpoint of a distillation that goes on, or begin one.

        Raises:
            ConfigError: see `distill`.
        """
        checkpoint, is_there = self._output / _CHECKPOINT, (self._output / WEIGHTS).exists()
        if not resume:
            if is_there or checkpoint.exists():
                raise ConfigError(f"{self._output}: holds a distillation; give --resume, or name another --output")
            write_text(self._output / SETTINGS, as_json(to_plain(self._config), indent=2) + "\n")
            write_text(self._output / PROGRESS, ",".join(self._columns()) + "\n")
            self._scales = self._measured_scales()
            return
        if is_there:
            raise ConfigError(f"{self._output}: this distillation has ended; name another --output")
        if not checkpoint.is_file():
            raise ConfigError(f"{checkpoint}: is not there; begin without --resume")
        kept = load_torch_file(checkpoint)
        if kept.get("identity") != self._identity:
            raise ConfigError(
                f"{checkpoint}: of other settings, another teacher or other pictures; give the same again"
            )
        self._pupil.load_state_dict(kept["pupil"])
        self._optimizer.load_state_dict(kept["optimizer"])
        self._scales = [(mean.to(self._device), std.to(self._device)) for mean, std in kept["scales"]]
        self._step, self._share, self._losses = kept["step"], kept["share"], kept["losses"]

    def finish(self, time_budget_s: float | None) -> Distilled:
        """Do the steps that are left, and write the weights."""
        config, begun_at, before = self._config, time.monotonic(), self._share
        kept_at = begun_at
        self._pupil.student.net.train()
        with progress_bar() as bar, self._batches() as batches:
            task = bar.add_task("distilling", total=config.steps, completed=self._step, detail="")
            try:
                for batch in batches:
                    self._take_step(batch)
                    now = time.monotonic()
                    of_time = 0.0 if time_budget_s is None else before + (1 - before) * (now - begun_at) / time_budget_s
                    self._share = max(self._step / config.steps, of_time)
                    bar.update(task, advance=1, detail=f"explained {self._explained_words()}")
                    if self._share >= 1:
                        break
                    if now - kept_at > _CHECKPOINT_EVERY_S:
                        self._keep()
                        kept_at = now
            except KeyboardInterrupt:
                self._keep()
                raise TrainingInterruptedError(
                    f"stopped after {self._step} of {config.steps} steps; go on with the same command and --resume"
                ) from None
        return self._written(time.monotonic() - begun_at)

    def _take_step(self, batch: Tensor) -> None:
        config = self._config
        for group in self._optimizer.param_groups:
            group["lr"] = config.learning_rate * _factor(self._share)
        image = self._image(batch)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            wanted = self._teacher_maps(image)
            given = self._pupil(image)
        losses = [
            nn.functional.mse_loss(found.float(), (values - mean) / std)
            for found, values, (mean, std) in zip(given, wanted, self._scales, strict=True)
        ]
        loss = torch.stack(losses).sum()
        if not torch.isfinite(loss):
            raise TrainingDivergedError(f"step {self._step + 1}: the loss is {float(loss)}; lower --learning_rate")
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._step += 1
        self._losses = [*self._losses[1 - _LINE_EVERY :], torch.stack(losses).detach().tolist()]
        if self._step % _LINE_EVERY == 0:
            row = [self._step, *self._mean_losses(), self._optimizer.param_groups[0]["lr"]]
            with (self._output / PROGRESS).open("a", encoding="utf-8") as file:
                file.write(",".join(f"{value:.6g}" for value in row) + "\n")

    def _image(self, batch: Tensor) -> Tensor:
        return (
            batch.to(self._device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)
        )  # channels last in memory

    @torch.no_grad()
    def _teacher_maps(self, image: Tensor) -> list[Tensor]:
        return [values.float() for values in self._teacher.features((image - self._teacher.mean) / self._teacher.std)]

    def _measured_scales(self) -> list[tuple[Tensor, Tensor]]:
        """Return mean and deviation of each channel of the teacher's maps."""
        sums: list[Tensor] = [torch.zeros(3, channels, dtype=torch.float64) for channels in self._teacher.channels]
        for number in range(_NORMALISED_BY):
            batch = torch.from_numpy(self._batch(number))
            for total, values in zip(sums, self._teacher_maps(self._image(batch)), strict=True):
                flat = values.flatten(0, 2).double().cpu()
                total += torch.stack([torch.full_like(total[0], len(flat)), flat.sum(0), flat.square().sum(0)])
        scales = []
        for count, total, squares in sums:
            mean = total / count
            std = (squares / count - mean**2).clamp_min(0).sqrt()
            std = torch.where(std > 1e-6 * std.max(), std, torch.ones_like(std))  # a channel that is always the same
            scales.append((mean.float().to(self._device), std.float().to(self._device)))
        return scales

    def _batch(self, step: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        side = self._crops.side_px(step, self._smallest_px)
        return np.stack([self._crops.crop(step, place, side) for place in range(self._config.batch_size)])

    @contextmanager
    def _batches(self) -> Iterator[Iterator[Tensor]]:
        """Yield the batches from the present step on, read ahead."""
        threads = max(1, available_cores() // 2)
        pool = ThreadPoolExecutor(threads, thread_name_prefix="crops")

        def ahead() -> Iterator[Tensor]:
            waiting = [pool.submit(self._batch, self._step + number) for number in range(_AHEAD)]
            for step in range(self._step, self._config.steps):
                yield torch.from_numpy(waiting.pop(0).result())
                waiting.append(pool.submit(self._batch, step + _AHEAD))

        try:
            yield ahead()
        finally:
            pool.shutdown(cancel_futures=True)

    def _columns(self) -> list[str]:
        return ["step", *(f"loss_stride_{stride}" for stride in self._config.feature_strides), "learning_rate"]

    def _mean_losses(self) -> list[float]:
        return np.mean(self._losses, axis=0).tolist() if self._losses else [math.nan] * len(self._scales)

    def _explained_words(self) -> str:
        return ", ".join(f"{100 * (1 - loss):.1f} %" for loss in self._mean_losses())

    def _keep(self) -> None:
        state = {
            "identity": self._identity,
            "pupil": self._pupil.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scales": self._scales,
            "step": self._step,
            "share": self._share,
            "losses": self._losses,
        }
        with whole_file(self._output / _CHECKPOINT) as temporary:
            torch.save(state, temporary)
            to_disk(temporary)

    def _written(self, seconds: float) -> Distilled:
        weights = {
            name: value.detach().cpu().contiguous() for name, value in self._pupil.student.net.state_dict().items()
        }
        with whole_file(self._output / WEIGHTS) as temporary:
            save_file(weights, temporary)
        (self._output / _CHECKPOINT).unlink(missing_ok=True)
        explained = tuple(1 - loss for loss in self._mean_losses())
        console().print(
            f"{self._step} steps in {shown_duration(seconds)}; the student gives {self._explained_words()} of the "
            "variance of the teacher's feature maps"
        )
        return Distilled(weights=self._output / WEIGHTS, steps=self._step, explained=explained)


def _factor(share: float) -> float:
    """Return the learning rate after a share of the steps, as a share of its highest value."""
    if share < _FIRST_STEPS:
        return max(share, 1e-3) / _FIRST_STEPS
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (share - _FIRST_STEPS) / (1 - _FIRST_STEPS))))
