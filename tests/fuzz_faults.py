"""Ten faults, put one at a time into a copy of the package: the campaign must find each.

    python tests/fuzz_faults.py [TARGET ...]            (`make fuzz-check`, some minutes)

Each is one that such code has had, or nearly had: a check removed, narrowed, or made too late.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "src" / "supersimplenet"
MOST_INPUTS = 6000  # of a target


@dataclass(frozen=True)
class Fault:
    """A fault, and the target that must find it.

    Attributes:
        what: in words.
        file: module, below the package.
        sound: its text, which stands there once.
        faulty: what is put in its place.
        target: of the campaign.
    """

    what: str
    file: str
    sound: str
    faulty: str
    target: str


FAULTS = (
    Fault(
        "the size of a PNG or BMP is not checked before its pixels are made",
        "preprocessing/pillow_formats.py",
        "    size_px = image.size[1], image.size[0]\n    limits.check_size(size_px)\n",
        "    size_px = image.size[1], image.size[0]\n",
        "pictures",
    ),
    Fault(
        "a PNG that ends early is taken",
        "preprocessing/png.py",
        "if at + 12 > len(content):\n            raise TruncatedFileError",
        "if at + 12 > len(content):\n            return _Facts(bits, colour_type, content[28] != 0, transparent)",
        "pictures",
    ),
    Fault(
        "missing strips of a TIFF are not noticed",
        "preprocessing/tiff.py",
        "        if length < needed[number]:",
        "        if length < 0:",
        "pictures",
    ),
    Fault(
        "the end of a tar archive is not checked",
        "prediction/archives.py",
        "        _checked(file, source.check_end)\n",
        "",
        "archives",
    ),
    Fault(
        "only ValueError of a damaged Parquet file is caught",
        "prediction/image_tables.py",
        "errors = (pa.ArrowException, OSError, ValueError, MemoryError)",
        "errors = (ValueError,)",
        "archives",
    ),
    Fault(
        "the error of a list that is no whole UTF-16 is not caught",
        "utils/text_files.py",
        "rest += decoder.decode(head, final=is_last)\n        except UnicodeDecodeError",
        "rest += decoder.decode(head, final=is_last)\n        except UnicodeEncodeError",
        "lists",
    ),
    Fault(
        "a name in a downloaded archive may lead out of the folder",
        "datasets/download/unpack.py",
        '".." in path.parts or any(',
        "any(",
        "downloads",
    ),
    Fault(
        "YAML may be as deep as it likes",
        "utils/documents.py",
        "if depth >= _MAX_DEPTH:",
        "if depth < 0:",
        "documents",
    ),
    Fault(
        "the check sums of a torch file are not compared",
        "model/weight_files.py",
        "for _ in blocks(archive, name):",
        "for _ in ():",
        "weights",
    ),
    Fault(
        "the check sum of a journal's line is not compared",
        "utils/journals.py",
        "if zlib.crc32(body) == int(seal[1], 16) else None",
        "if seal else None",
        "journals",
    ),
)


def try_fault(fault: Fault) -> tuple[int, str]:
    """Return after how many inputs the campaign found a fault, 0 for never, and what it said."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(PACKAGE, Path(folder) / "supersimplenet")
        path = Path(folder) / "supersimplenet" / fault.file
        text = path.read_text(encoding="utf-8")
        assert text.count(fault.sound) == 1, f"{fault.file}: no longer has {fault.sound!r} once"
        path.write_text(text.replace(fault.sound, fault.faulty), encoding="utf-8")
        command = [sys.executable, str(HERE / "fuzz.py"), "--only", fault.target, "--stop"]
        command += ["--inputs", str(MOST_INPUTS), "--output", f"{folder}/failures"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": folder}
        )
    found = re.search(r"^FAILURE .*?-(\d+)\.zip: (.*)", done.stdout, re.MULTILINE)
    if found is None:
        return 0, (done.stdout + done.stderr)[-300:]
    return int(found[1]) + 1, found[2]


def main() -> int:
    missed = 0
    faults = [fault for fault in FAULTS if fault.target in sys.argv[1:] or not sys.argv[1:]]
    print(f"{'found by':<10} {'after':>7}  fault: what the campaign said")
    for fault in faults:
        inputs, said = try_fault(fault)
        missed += not inputs
        after = f"{inputs:,}" if inputs else "never"
        print(f"{fault.target:<10} {after:>7}  {fault.what}: {json.dumps(said, ensure_ascii=False)[:160]}", flush=True)
    print(f"{len(faults) - missed} of {len(faults)} found")
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
