"""`supersimplenet export`: a model folder as the one file that goes to the line."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

from supersimplenet.cli.options import Command, OptionParser
from supersimplenet.runtime.bundle import FileFormat, FilePrecision


def export_command() -> Command:
    """The command that exports."""
    return Command("export", "write one file for the line's computer, and prove that it is the model", _parser(), _run)


def _parser() -> OptionParser:
    parser = OptionParser(
        description="Write a model as one file for an engine without torch. The file is then used by a fresh process "
        "on real images and compared with the model; one that differs is not kept. docs/deploy.md explains."
    )
    parser.add_argument("--model", type=Path, required=True, help="the model folder")
    parser.add_argument("--format", type=FileFormat, required=True, help="the engine that the file is for")
    parser.add_argument("--output", type=Path, required=True, help="the file")
    parser.add_argument(
        "--precision",
        type=FilePrecision,
        default="fp32",
        help="fp16 halves the file; bf16 also computes in it, where the processor can (not onnx); int8 is quantised",
    )
    parser.add_argument(
        "--size", type=int, nargs=2, help="height and width, by default the training's: the thresholds hold there alone"
    )
    parser.add_argument("--dynamic", action="store_true", help="leave height and width open")
    parser.add_argument(
        "--max-drop", type=str, default="1%", help="for int8: I-AUROC that may be lost on the calibration split"
    )
    parser.add_argument(
        "--images",
        type=Path,
        nargs="+",
        default=[],
        help="files or folders to compare on; by default the test images of the model's data set, else drawn ones",
    )
    return parser


def _run(options: Namespace) -> int:
    from supersimplenet.apps.export import export_model
    from supersimplenet.evaluation.thresholds import parse_share

    export_model(
        options.model,
        options.output,
        file_format=options.format,
        precision=options.precision,
        size_px=None if options.size is None else tuple(options.size),
        dynamic=options.dynamic,
        max_drop=parse_share(options.max_drop, "max-drop"),
        images=options.images,
    )
    return 0
