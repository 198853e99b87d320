"""``python -m supersimplenet.runtime FILE IMAGE...``: a line of JSON for each image."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from supersimplenet.errors import ConfigError, DataError, ImageError, SuperSimpleNetError
from supersimplenet.postprocessing.parts import GROUP_PATTERN_HELP, given_pattern
from supersimplenet.preprocessing.listing import counting, list_images, natural_key
from supersimplenet.preprocessing.loading import Failure
from supersimplenet.runtime.inspector import Inspector
from supersimplenet.runtime.predictor import IndexedPrediction
from supersimplenet.runtime.rows import as_row
from supersimplenet.utils.files import exists
from supersimplenet.utils.formatting import printable
from supersimplenet.utils.serialization import to_plain


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict images and print the results.

    Returns:
        The exit status: 0 for success, 1 for data or work that failed, 2 for a wrong call; a message on standard error
        describes what is wrong.
    """
    options = _parser().parse_intermixed_args(arguments)
    try:
        with counting(options.on_error) as left_out:
            try:
                _inspect(options)
            finally:
                if text := left_out.unsaid():
                    print(text, file=sys.stderr)
    except ConfigError as error:
        print(f"{_parser().prog}: {printable(error)}", file=sys.stderr)
        return 2
    except ImageError as error:
        return _failed(error, "; --on-error skip goes on with the next")
    except (SuperSimpleNetError, OSError) as error:
        return _failed(error)
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser whose error is one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message and end the process with exit status 2."""
        print(f"{self.prog}: {printable(message)}", file=sys.stderr)
        sys.exit(2)


def _failed(error: Exception, advice: str = "") -> int:
    print(f"{type(error).__name__}: {printable(error)}{advice}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m supersimplenet.runtime",
        description="Predict images with an exported model; print one line of JSON for each, as it comes.",
    )
    parser.add_argument("file", type=Path, help="as `supersimplenet export` wrote it")
    parser.add_argument("images", nargs="*", help="image files, folders (searched at any depth), or glob patterns")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="of a file that leaves the size open")
    parser.add_argument("--threads", type=int, help="for one image; by default the cores there are")
    parser.add_argument("--maps", type=Path, help="folder in which each anomaly map is also left, 000000.npy and so on")
    parser.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="what an unreadable image does: skip prints its error",
    )
    parser.add_argument("--list-all", action="store_true", help="also list regions of the map in good images")
    parser.add_argument("--group-pattern", help=GROUP_PATTERN_HELP)
    parser.add_argument("--trust", action="store_true", help="open a torch program, which may run its maker's code")
    parser.add_argument("--graph", action="store_true", help="also print what the file's graph itself gives, by name")
    parser.add_argument("--about", action="store_true", help="print the file's metadata and certificate first")
    return parser


def _check(options: argparse.Namespace) -> None:
    """Check what was typed before anything is loaded.

    Raises:
        ConfigError: a path is missing, no image is named, or the pattern cannot be used.
    """
    given_pattern(options.group_pattern)
    if not exists(options.file):
        raise ConfigError(f"{options.file}: no such file; check the path")
    if not options.images and not options.about:
        raise ConfigError("no image is named; name files, folders or patterns, or give --about")
    if missing := [given for given in options.images if not exists(given) and not _is_pattern(given)]:
        raise ConfigError(f"{missing[0]}: no such file or folder; check the path")


def _inspect(options: argparse.Namespace) -> None:
    _check(options)
    size_px = None if options.size is None else tuple(options.size)
    inspector = Inspector.load(options.file, size_px=size_px, threads=options.threads, trust=options.trust)
    inspector.list_all = options.list_all
    pattern = given_pattern(inspector.group_pattern if options.group_pattern is None else options.group_pattern)
    if options.maps is not None:
        options.maps.mkdir(parents=True, exist_ok=True)
    if options.about:
        about = {"engine_version": inspector.engine_version, **to_plain(inspector.bundle)}
        print(json.dumps(about, indent=None if options.images else 2), flush=True)  # alone it is for a person
    for index, path in enumerate(path for given in options.images for path in _named(given)):
        start = time.perf_counter()
        item: IndexedPrediction | Failure
        try:
            item = IndexedPrediction(index=index, file=path, prediction=inspector.predict(path))
        except ImageError as error:
            if options.on_error == "stop":
                raise
            item = Failure(index=index, path=path, reason=str(error))
        seconds = time.perf_counter() - start
        if options.maps is not None and isinstance(item, IndexedPrediction):
            np.save(options.maps / f"{index:06d}.npy", item.prediction.map_logit)
        row = as_row(item, calibrated=inspector.is_calibrated, aligned=inspector.aligned, group_pattern=pattern)
        row["seconds"] = round(seconds, 5)
        if options.graph and isinstance(item, IndexedPrediction):
            outputs = inspector.graph_outputs(path)
            row["graph"] = {name: values[0].item() for name, values in outputs.items() if values.ndim == 1}
        print(json.dumps(row), flush=True)


def _is_pattern(given: str) -> bool:
    return any(sign in given for sign in "*?[")


def _named(given: str) -> list[Path]:
    """Return the image files of a name or a pattern."""
    if exists(given) or not _is_pattern(given):
        return list_images(Path(given))
    start = Path(Path(given).anchor or ".")
    found = sorted(start.glob(str(Path(given).relative_to(start.anchor))), key=natural_key)
    if not found:
        raise DataError(f"{given}: no file fits this pattern")
    return [path for place in found for path in list_images(place)]


if __name__ == "__main__":
    sys.exit(main())
