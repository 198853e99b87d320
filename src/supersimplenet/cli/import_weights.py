"""`supersimplenet import`: convert weights of another implementation into a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from jsonargparse import Namespace

from supersimplenet.cli.common import Command, OptionParser
from supersimplenet.model.config import ModelConfig
from supersimplenet.utils.console import results


def command() -> Command:
    """Return the command ``import``."""
    return Command(
        "import",
        "turn other implementations' weights into a model folder",
        _parser(),
        _run,
        {"file": "file", "model.backbone_weights": "file"},
        {"output": "folder"},
    )


def _parser() -> OptionParser:
    parser = OptionParser(description="Turn weights of another implementation into a model folder.")
    parser.add_argument("--source", type=Literal["official", "anomalib"], required=True, help="who wrote the file")
    parser.add_argument("file", type=Path, help="weights.pt of the authors' code, or a checkpoint of anomalib")
    parser.add_argument("--model", type=ModelConfig, default=ModelConfig())
    parser.add_argument("--output", type=Path, required=True, help="the model folder to write")
    return parser


def _run(options: Namespace) -> int:
    settings = _parser().instantiate(options)
    from supersimplenet.inference.import_weights import import_weights

    import_weights(options.file, source=options.source, config=settings.model, output=options.output)
    results().print(f"imported: {options.output}")
    return 0
