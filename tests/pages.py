"""The documentation as tests read it: blocks of pages, the commands in these, and a folder to run them in."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from supersimplenet import SyntheticConfig, synthesize
from supersimplenet.cli.main import main

ROOT = Path(__file__).parents[1]
PROGRAM, RUNTIME = "supersimplenet", "supersimplenet.runtime"
SHORT = ["--model.image_size", "[64,64]", "--trainer.max_steps", "2", "--trainer.accelerator", "cpu"]
TRAIN = ["train", "--data", "Folder", "--data.good", "parts/good", "--data.bad", "parts/bad", "--data.masks"]
TRAIN += ["parts/masks", "--data.bad_train_fraction", "0.5", "--model.backbone", "compact"]


def pages() -> list[Path]:
    """Return the pages that a reader meets: README, CONTRIBUTING and all of docs."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    """Return the path of a page below the checkout, as the tests name it."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.S | re.M)


def lines(page: Path) -> list[str]:
    """Return the lines of a page's `bash` blocks, continued ones joined, without comments and empty ones."""
    text = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def indented(page: Path) -> list[str]:
    """Return the indented lines of a page that call the program: records of what was run."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.strip() for line in re.findall(r"^    (supersimplenet .*)$", text, re.M)]


def command_in(line: str) -> list[str] | None:
    """Return the words of a call of the program in a line, from ``supersimplenet`` on; None where there is none.

    What leads into it (a pipe, ``torchrun``, ``srun``) and where its output goes (``>``) are left out.
    """
    words = shlex.split(line, comments=True)
    starts = [place for place, word in enumerate(words) if word in (PROGRAM, RUNTIME)]
    if not starts or (starts[0] and words[starts[0] - 1] not in ("-m", "|", "srun")):
        return None
    words = words[starts[0] :]
    return words[: words.index(">")] if ">" in words else words


def prepare(folder: Path) -> None:
    """Lay out, small, what the pages name: `parts`, `new_parts`, `more_good`, `bad_parts`, tables, lists, regions."""
    config = SyntheticConfig(surfaces=("cast_grain",), size_px=(64, 64), train_good=10, test_good=3, test_per_defect=1)
    surface = synthesize(folder / "made", config)[0]
    shutil.copytree(surface / "train" / "good", folder / "parts" / "good")
    shutil.copytree(surface / "test", folder / "parts" / "bad", ignore=lambda _, names: {"good"} & set(names))
    shutil.copytree(surface / "ground_truth", folder / "parts" / "masks")
    shutil.copytree(surface / "test" / "good", folder / "new_parts")
    shutil.copy(folder / "new_parts" / "000.png", folder / "new_parts" / "017.png")
    shutil.copy(folder / "new_parts" / "000.png", folder / "017.png")
    more = SyntheticConfig(
        surfaces=("cast_grain",), size_px=(64, 64), train_good=6, test_good=1, test_per_defect=1, seed=1
    )
    other = synthesize(folder / "made_more", more)[0]
    (folder / "more_good").mkdir()
    (folder / "bad_parts").mkdir()
    for number, image in enumerate(sorted((other / "train" / "good").iterdir())):
        shutil.copy(image, folder / "more_good" / f"part{number:03d}_1.png")
    bad = [image for image in sorted((other / "test").rglob("*.png")) if image.parent.name != "good"]
    for number, image in enumerate(bad):
        shutil.copy(image, folder / "bad_parts" / f"part{number + 50:03d}_1.png")
    # Parts that no model here was trained on.
    rows = ["image,split,label", "more_good/part000_1.png,test,good", "bad_parts/part050_1.png,test,bad"]
    (folder / "golden.csv").write_text("\n".join(rows))
    rows = ["image,split,label", "parts/good/000.png,train,good", "parts/good/001.png,train,good"]
    rows += ["parts/good/002.png,train,good", "parts/good/003.png,train,good", "parts/good/004.png,train,good"]
    rows += ["new_parts/001.png,test,good", "bad_parts/part050_1.png,test,bad"]
    (folder / "split.csv").write_text("\n".join(rows))
    (folder / "night.txt").write_text("new_parts/000.png\nnew_parts/001.png\n")
    _regions(folder)
    _annotations(folder)


def _regions(folder: Path) -> None:
    inside = np.zeros((64, 64), np.uint8)
    inside[8:56, 8:56] = 255
    Image.fromarray(inside).save(folder / "roi.png")
    (folder / "roi.json").write_text(json.dumps([[8, 8], [56, 8], [56, 56], [8, 56]]))
    (zones,) = blocks(ROOT / "docs" / "thresholds.md", "json")
    (folder / "zones.json").write_text(zones)


def _annotations(folder: Path) -> None:
    """Write some photographs with annotations as COCO has them."""
    (folder / "photographs").mkdir()
    images, boxes = [], []
    for number, image in enumerate(sorted((folder / "more_good").iterdir())):
        shutil.copy(image, folder / "photographs")
        images.append({"id": number, "file_name": image.name, "width": 64, "height": 64})
        if number < 3:
            box = {"id": number, "image_id": number, "category_id": 1, "bbox": [8, 8, 16, 16], "iscrowd": 0}
            boxes.append({**box, "area": 256, "segmentation": [[8, 8, 24, 8, 24, 24, 8, 24]]})
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "scratch"}]}
    (folder / "annotations.json").write_text(json.dumps(content))


def train_model(folder: Path, output: Path) -> None:
    """Train a model of two steps on the parts of a prepared folder, in which the process must be."""
    assert (folder / "parts").is_dir()
    assert main([*TRAIN, *SHORT, "--output", str(output)]) == 0
