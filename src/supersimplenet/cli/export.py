"""`supersimplenet export`: write a model as one file for the production line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from supersimplenet.cli.common import ON_ERROR_HELP, Command, OptionParser, parse_share
from supersimplenet.errors import ConfigError
from supersimplenet.preprocessing.loading import OnError
from supersimplenet.runtime.bundle import Bundle, FileFormat, FilePrecision, require_opset, require_precision
from supersimplenet.runtime.file_kinds import require_suffix
from supersimplenet.utils.console import results
from supersimplenet.utils.files import is_file
from supersimplenet.utils.formatting import counted


def command() -> Command:
    """Return the command ``export``."""
    return Command(
        "export",
        "write one file for the line's computer, and prove that it is the model",
        _parser(),
        _run,
        {"model": "model folder", "images": "file or folder"},
        {"output": "file"},
    )


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
        help="fp16 halves the file; bf16 also computes in it, where the CPU can (not onnx); int8 is quantised",
    )
    parser.add_argument(
        "--size",
        type=PositiveInt,
        nargs=2,
        help="height and width, by default the training's: the thresholds hold there alone",
    )
    parser.add_argument("--dynamic", action="store_true", help="leave height and width open")
    parser.add_argument(
        "--opset",
        type=PositiveInt | None,
        help="version of ONNX's operators, from 18 on, for an engine that does not read torch's default",
    )
    parser.add_argument(
        "--max-drop", type=str, default="1%", help="for int8: I-AUROC that may be lost on training images"
    )
    parser.add_argument(
        "--images",
        type=Path,
        nargs="+",
        default=[],
        help="files or folders to compare on; by default the test images of the model's dataset, else drawn ones",
    )
    parser.add_argument("--on-error", type=OnError, default="stop", help=ON_ERROR_HELP)
    return parser


def _run(options: Namespace) -> int:
    require_precision(options.format, options.precision)
    require_opset(options.format, options.opset)
    require_suffix(options.output, options.format)
    if options.dynamic and options.size is not None:
        raise ConfigError("size and dynamic: a file has one size or leaves it open; give one of the two")
    max_drop = parse_share(options.max_drop, "max-drop")
    from supersimplenet.export.export import export_model

    replaced = is_file(options.output)
    bundle = export_model(
        options.model,
        options.output,
        file_format=options.format,
        precision=options.precision,
        size_px=None if options.size is None else tuple(options.size),
        dynamic=options.dynamic,
        max_drop=max_drop,
        images=options.images,
        opset=options.opset,
        on_error=options.on_error,
    )
    _print_export(options.output, bundle)
    if replaced:
        results().print(f"an earlier {options.output.name} was replaced")
    return 0


def _print_export(output: Path, bundle: Bundle) -> None:
    certificate = bundle.certificate
    assert certificate is not None  # every exported file has one
    size = "x".join(map(str, bundle.size_px))
    size += f", or multiples of {bundle.step_px} px" if bundle.step_px is not None else ""
    lines = [
        f"exported: {output} ({output.stat().st_size / 1e6:.1f} MB; {bundle.engine} {bundle.precision}, {size})",
        f"compared on {counted(certificate.images, 'image')} ({certificate.source}), from the file to the verdict:",
        f"  score: max {certificate.score_max_difference:.2e}, mean {certificate.score_mean_difference:.2e} logits "
        f"(allowed {certificate.score_tolerance:.1e})",
        f"  map:   max {certificate.map_max_difference:.2e}, mean {certificate.map_mean_difference:.2e} logits "
        f"(allowed {certificate.map_tolerance:.1e})",
        f"  verdicts that differ: {certificate.verdict_flips}",
        f"  median {certificate.latency_ms:.1f} ms an image; {certificate.host['processor']}, "
        f"{certificate.host['cores']} cores, {certificate.versions['engine']}, {certificate.date}",
    ]
    if certificate.measured_drop is not None:
        lines.append(f"  int8 loses {certificate.measured_drop * 100:.2g} %: {certificate.drop_of}")
    if bundle.calibration is None:
        lines.append("  not calibrated: an image is bad from logit 0 on, which guarantees nothing")
    elif bundle.recalibrated is not None:
        lines.append(f"  thresholds: {bundle.recalibrated}")
    else:
        lines.append(f"  guarantee: {replace(bundle.calibration, applied_to=bundle.computation).guarantee()}")
    results().print(*lines, sep="\n")
