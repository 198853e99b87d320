"""Damage files by a seed, load them, and collect what goes wrong: for the tests, and for longer runs by hand.

    python tests/hostile.py KIND[,KIND...] FIRST_SEED COUNT

Each kind of file has a loader. A mutant may load, or be refused with one line; anything else is a failure: another
exception, more than `SECONDS`, or more than `MEMORY_BYTES` beyond what the process had before.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

FIXTURES = Path(__file__).parent / "fixtures" / "version_0_1"
SECONDS, MEMORY_BYTES = 10.0, 1 << 30
RECORDS = """name,sha256,pixels,height,width,lowest,highest,split,role
good/0.png,{a},{b},64,96,3,250,train,trained
good/1.png,{b},,,,,,train,held-out
""".format(a="a" * 64, b="b" * 64)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 10**9, 2**63, -(10**30), 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "x", "12x", "../x", "/dev/zero", "a\nb", "\0", "\ud800", "é" * 5000, "roi.png", "head"),
    *([], {}, [[]], [1, 2], [64, 64, 64], ["x"], [None], {"x": 1}, {"roi.png": "0"}, [[[[[[]]]]]]),
)


def mutated_value(value: Any, rng: random.Random) -> Any:
    """Return a plain value with one thing inside it dropped, doubled, retyped, nested, moved or made huge."""
    value = json.loads(json.dumps(value))
    places = list(_places(value))
    holder, key = rng.choice(places)
    item = holder[key]
    way = rng.choice(("drop", "retype", "retype", "retype", "nest", "deep", "long", "rename", "move"))
    if way == "drop":
        del holder[key]
    elif way == "rename" and isinstance(holder, dict):
        holder[rng.choice(("x", "", "a\nb", "format", "é" * 99))] = holder.pop(key)
    elif way == "deep":
        for _ in range(200):
            holder[key] = [holder[key]]
    else:
        other, place = rng.choice(places)
        holder[key] = {
            "nest": rng.choice(([item], {"x": item})),
            "long": [item] * rng.choice((3, 1000, 20_000)),
            "move": json.loads(json.dumps(other[place])),
        }.get(way, rng.choice(_VALUES))
    return value


def _places(holder: Any) -> Iterator[tuple[Any, Any]]:
    for key, item in holder.items() if isinstance(holder, dict) else enumerate(holder):
        yield holder, key
        if isinstance(item, dict | list):
            yield from _places(item)


def mutated_bytes(content: bytes, rng: random.Random) -> bytes:
    """Return bytes with some of them flipped, cut off, left out, doubled or replaced."""
    place, length = rng.randrange(len(content)), rng.choice((1, 2, 8, 100, 5000))
    way = rng.choice(("flip", "flip", "flip", "cut", "leave out", "double", "zeros", "noise", "text"))
    if way == "flip":
        changed = bytearray(content)
        for _ in range(rng.choice((1, 1, 3, 50))):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed)
    if way == "cut":
        return content[:place]
    end = content[place + length :]
    put = {
        "leave out": b"",
        "double": content[place : place + length] * 2,
        "zeros": bytes(length),
        "noise": rng.randbytes(length),
        "text": rng.choice(
            (b"&a [*a]", b"*a", b"<<: ", b"\xff\xfe", b"\xef\xbb\xbf", b"!!python/name:os.x ", b"{" * 99)
        ),
    }[way]
    return content[:place] + put + end


def mutated_document(content: bytes, rng: random.Random, kind: str) -> bytes:
    """Return a YAML or JSON file with its values or its bytes changed."""
    if rng.random() < 0.3:
        return mutated_bytes(content, rng)
    if kind == "json":
        return json.dumps(mutated_value(json.loads(content), rng)).encode()
    changed = mutated_value(yaml.safe_load(content), rng)
    return yaml.safe_dump(changed, sort_keys=False).encode(errors="surrogatepass")


def _folder(seed: int, here: Path) -> None:
    from supersimplenet.inference.config import HERE
    from supersimplenet.inference.detector import load_detector
    from supersimplenet.inference.image_records import trained_on

    rng = random.Random(seed)
    model = Path(shutil.copytree(FIXTURES / rng.choice(("plain", "tiles")), here / "model"))
    file = model / rng.choice(("config.yaml", "config.yaml", "config.yaml", "calibration.yaml", "model.safetensors"))
    change = mutated_bytes if file.suffix == ".safetensors" else lambda *given: mutated_document(*given, "yaml")
    file.write_bytes(change(file.read_bytes(), rng))
    detector = load_detector(model, HERE)
    trained_on(detector.record, model)


def _records(seed: int, here: Path) -> None:
    from supersimplenet.inference.image_records import read_image_records, read_known_images

    rng = random.Random(seed)
    (here / "images.csv").write_bytes(mutated_bytes(RECORDS.encode(), rng))
    read_image_records(here)
    (here / "images.csv").unlink()
    (here / "known_images.txt").write_bytes(mutated_bytes((FIXTURES / "plain" / "known_images.txt").read_bytes(), rng))
    read_known_images(here)


def _metadata(seed: int, here: Path) -> None:
    import onnx

    from supersimplenet.runtime.bundle import read_bundle

    del here
    if "text" not in _CACHE:
        (entry,) = onnx.load(FIXTURES / "tiles.onnx").metadata_props
        _CACHE["text"] = entry.value.encode()
    content = mutated_document(_CACHE["text"], random.Random(seed), "json")
    bundle = read_bundle(content.decode(errors="replace"), where="parts.onnx")
    bundle.make_preprocessor(bundle.size_px)


def _import(seed: int, here: Path) -> None:
    import torch

    from supersimplenet.model.weight_files import read_state_dict

    rng = random.Random(seed)
    file = here / "weights.pt"
    tensors = {f"layer{index}.weight": torch.rand(4, index + 1) for index in range(4)}
    torch.save(tensors, file, _use_new_zipfile_serialization=rng.random() < 0.6)
    file.write_bytes(mutated_bytes(file.read_bytes(), rng))
    for value in read_state_dict(file).values():
        value.clone()


def _journal(seed: int, here: Path) -> None:
    from supersimplenet.benchmark.journal import check_settings, read_lines

    rng = random.Random(seed)
    line = {"key": "a", "dataset": "D", "metrics": {"AP": 0.5}, "settings": {"model": {"variant": "jims"}}, "fold": 1}
    (here / "runs.jsonl").write_bytes(mutated_document(json.dumps(line).encode(), rng, "json") + b"\n")
    check_settings(here / "runs.jsonl", read_lines(here / "runs.jsonl"), line["settings"])


_CACHE: dict[str, bytes] = {}
LOADERS: dict[str, Callable[[int, Path], None]] = {
    "folder": _folder,
    "records": _records,
    "metadata": _metadata,
    "import": _import,
    "journal": _journal,
}


def campaign(kind: str, seeds: range) -> dict[str, Any]:
    """Load a mutant for each seed; return how many loaded and were refused, and the failures by seed."""
    from supersimplenet.errors import SuperSimpleNetError

    counts: Counter[str] = Counter()
    failures = {}
    for seed in seeds:
        with tempfile.TemporaryDirectory() as here:
            started = time.monotonic()
            try:
                LOADERS[kind](seed, Path(here))
                counts["loaded"] += 1
            except SuperSimpleNetError as error:
                counts["refused"] += 1
                if len(str(error).splitlines()) != 1 or len(str(error)) > 2000:
                    failures[seed] = f"not one line: {error}"
            except BaseException as error:  # whatever it is, it is what is looked for
                failures[seed] = f"{type(error).__name__}: {error}"[:300]
            if time.monotonic() - started > SECONDS:
                failures[seed] = f"{time.monotonic() - started:.0f} s"
    return {**counts, "failures": failures}


def bound_memory(more: int = MEMORY_BYTES) -> None:
    """Let this process have no more than this much more address space; where the system can."""
    try:
        import resource
    except ImportError:
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    import torch

    import supersimplenet.inference.detector  # noqa: F401  # so that its memory is there before the bound

    torch.set_num_threads(1)
    names, first, count = sys.argv[1].split(","), int(sys.argv[2]), int(sys.argv[3])
    for name in names:
        campaign(name, range(first, first + 1))
    bound_memory()
    print(json.dumps({name: campaign(name, range(first, first + count)) for name in names}))
