"""The readers' lines that a campaign reaches: measured in one process, since a tracer is slow.

Prints a line for each module; ``--corpus FOLDER`` keeps the inputs that reached lines which none before them had
reached.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import coverage

# What turns the bytes of a file into something that the package uses.
READERS = (
    *("preprocessing/" + name for name in ("decoding", "image_file", "images", "jpeg", "jpeg_2000", "netpbm", "png")),
    *("preprocessing/pillow_formats", "preprocessing/reading", "preprocessing/tiff"),
    *("prediction/archives", "prediction/identity", "prediction/image_tables", "prediction/inputs"),
    *("prediction/sources", "benchmark/journal"),
    *("datasets/annotations", "datasets/download/unpack", "datasets/split_files", "datasets/table"),
    *("utils/documents", "utils/files", "utils/journals", "utils/serialization", "utils/text_files", "utils/zips"),
    *("runtime/backends", "runtime/bundle", "runtime/seal", "postprocessing/calibration"),
    *("inference/image_records", "inference/model_folder", "inference/record"),
    *("model/weight_files", "training/checkpoints"),
)
LARGEST_KEPT_BYTES = 6_000  # of one input of the corpus


def measure(options: argparse.Namespace) -> int:
    """Run ``options.inputs`` inputs of each target and print the lines reached."""
    measured = coverage.Coverage(data_file=None, source=["supersimplenet"], config_file=False)
    measured.start()  # before the readers are imported: their definitions are lines too
    import supersimplenet

    package = Path(supersimplenet.__file__).parent
    files = [str(package / f"{name}.py") for name in READERS]
    import fuzz

    known = fuzz.targets()
    names = options.only.split(",") if options.only else list(known)
    silent, kept, failed = os.open(os.devnull, os.O_WRONLY), 0, 0
    own = os.dup(2)
    os.dup2(silent, 2)

    def lines() -> int:
        data = measured.get_data()
        return sum(len(data.lines(file) or ()) for file in files)

    with tempfile.TemporaryDirectory() as scratch:
        fuzz.warm_up(names, Path(scratch))
        reached = lines()
        for name in names:
            for number in range(options.inputs):
                content = fuzz.files_of(name, options.seed, number)
                outcome = fuzz.run_case(known[name], content, Path(scratch), seconds=fuzz.HANG_S)
                if outcome.failure:
                    failed += 1
                    print(f"FAILURE {name} {options.seed} {number}: {outcome.failure}", flush=True)
                now = lines()
                # Exported files that are whole differ from one process to the next.
                is_lasting = number and not (name == "exports" and outcome.accepted)
                if now > reached and options.corpus is not None and is_lasting:
                    kept += _keep(options.corpus, f"{name}-{options.seed}-{number}.zip", fuzz.packed(name, content))
                reached = now
        os.chdir("/")
    measured.stop()
    os.dup2(own, 2)
    total = missed = 0
    for name, file in zip(READERS, files, strict=True):
        _, statements, _, missing, shown = measured.analysis2(file)
        total, missed = total + len(statements), missed + len(missing)
        share = 1 - len(missing) / len(statements)
        print(f"{name:<30} {len(statements) - len(missing):>4} of {len(statements):>4} {share:>6.1%}  {shown}")
    print(f"{'all':<30} {total - missed:>4} of {total:>4} {1 - missed / total:>6.1%}")
    print(
        f"{options.inputs} inputs of each of {len(names)} targets; {failed} failures; {kept} inputs kept",
        file=sys.stdout,
    )
    return int(failed > 0)


def _keep(folder: Path, name: str, content: bytes) -> bool:
    if len(content) > LARGEST_KEPT_BYTES:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return True
