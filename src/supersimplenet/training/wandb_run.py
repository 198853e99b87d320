"""A run of Weights & Biases, on its servers, on one's own, or offline in the model folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from supersimplenet.errors import ConfigError
from supersimplenet.inference.config import WEIGHTS_FILE
from supersimplenet.training.loggers import Losses
from supersimplenet.utils.files import write_text

PROJECT = "supersimplenet"  # unless WANDB_PROJECT names another


class WandbRun:
    """A run of Weights & Biases; its library sends in the background, and takes its own environment variables.

    Args:
        folder: folder for the library's files, and for the run's id; where that is there, the run is continued.
        name: name of a new run.

    Raises:
        ConfigError: the server does not answer, or refuses.
    """

    def __init__(self, folder: Path, *, name: str) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # sent to the makers of the library
        os.environ.setdefault("WANDB_INIT_TIMEOUT", "20")  # seconds; by default 90
        os.environ.setdefault(
            "WANDB_CONSOLE", "off"
        )  # it would send what is printed, and write in place of the console
        id_file = folder / "wandb_run"
        run_id = id_file.read_text(encoding="utf-8").strip() if id_file.is_file() else None
        folder.mkdir(parents=True, exist_ok=True)  # the library writes elsewhere where it is missing
        try:
            import wandb

            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or PROJECT,
                name=os.environ.get("WANDB_NAME") or name,
                dir=folder,
                id=os.environ.get("WANDB_RUN_ID") or run_id,
                resume="allow",
            )
        except Exception as error:  # any of the library's
            raise ConfigError(
                f"trainer.logger: Weights & Biases failed ({error}); `wandb login`, WANDB_MODE=offline, or leave wandb "
                "out of --logger"
            ) from error
        write_text(id_file, f"{self._run.id}\n")
        self.where = "Weights & Biases"

    @property
    def link(self) -> str:
        """Address of the run's page; offline its folder."""
        return f"wandb sync {Path(self._run.dir).parent}" if self._run.offline else str(self._run.url)

    def safe(self, text: str) -> str:
        """Return the text: the library prints no key."""
        return text

    def begin(self, settings: Mapping[str, str]) -> None:
        """Log the settings."""
        self._run.config.update(dict(settings), allow_val_change=True)

    def send(self, losses: Sequence[Losses]) -> None:
        """Log losses."""
        for at in losses:
            self._run.log({**at.values, "trainer/global_step": at.step})

    def finish(self, figures: Mapping[str, float], files: Sequence[tuple[Path, str]], pictures: Sequence[Path]) -> None:
        """Log figures, files and pictures."""
        import wandb

        self._run.summary.update(dict(figures))
        if pictures:
            self._run.log({f"pictures/{picture.stem}": wandb.Image(str(picture)) for picture in pictures})
        artifact = wandb.Artifact(f"model-{self._run.id}", type="model")
        for file, folder in files:
            written_once = file.name == WEIGHTS_FILE  # and large: sent from where it is, the others from a copy
            artifact.add_file(str(file), f"{folder}/{file.name}", policy="immutable" if written_once else "mutable")
        self._run.log_artifact(artifact)

    def close(self, status: str) -> None:
        """End the run; this waits until all is sent."""
        self._run.finish(exit_code=0 if status == "finished" else 1)
