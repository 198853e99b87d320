"""Memory of `predict` over very many images, and what writing the results costs.

    python experiments/many_images.py --images 100000 --photographs ../shared/magnetic_tile

The photographs are hard-linked over and over, so that each is opened and decoded anew. The network is `compact` with
random weights at 64x64, so that the run is short: what is held for an image does not depend on it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path


def resident_mib() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--photographs", type=Path, required=True, help="folder of small real images")
    parser.add_argument("--size", type=int, default=64, help="of the network's input, px")
    parser.add_argument("--format", default="csv,jsonl,parquet")
    options = parser.parse_args()

    from supersimplenet import Detector, ModelConfig, SuperSimpleNet
    from supersimplenet.inference.model_folder import save_model
    from supersimplenet.prediction import job as module
    from supersimplenet.prediction.inputs import find_inputs
    from supersimplenet.prediction.tables import parse_formats
    from supersimplenet.preprocessing.listing import list_images

    distinct = list_images(options.photographs)
    with tempfile.TemporaryDirectory() as folder:
        model, many, output = (Path(folder) / name for name in ("model", "many", "output"))
        config = ModelConfig(backbone="compact", image_size=(options.size, options.size))
        save_model(model, SuperSimpleNet(config, seed=1).eval(), {})
        for index in range(options.images):
            source = distinct[index % len(distinct)]
            target = many / f"{index // 1000:04d}" / f"{index:07d}{source.suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except OSError:  # another file system: one copy there, then links to it
                copy = Path(folder) / f"{index % len(distinct)}{source.suffix}"
                copy.write_bytes(source.read_bytes())
                distinct[index % len(distinct)] = copy
                os.link(copy, target)
        detector = Detector.load(model, device="cpu")
        inputs = find_inputs([str(many)])
        done, samples, began = 0, [], time.monotonic()
        row_seconds = 0.0
        as_row = module.as_row

        def progress(images: int) -> None:
            nonlocal done
            done += images
            if done % max(1, options.images // 20) == 0 and images:
                samples.append((done, resident_mib()))
                rate = done / (time.monotonic() - began)
                print(f"{done:8d} images  {samples[-1][1]:7.1f} MiB resident  {rate:6.1f} images/s", flush=True)

        def timed(*arguments, **keywords):
            nonlocal row_seconds
            start = time.perf_counter()
            row = as_row(*arguments, **keywords)
            row_seconds += time.perf_counter() - start
            return row

        module.as_row = timed
        print(f"{resident_mib():.1f} MiB resident after listing {inputs.total} images", flush=True)
        module.predict_to_folder(
            detector, inputs, output, model_folder=model, formats=parse_formats(options.format), progress=progress
        )
        print(f"{resident_mib():.1f} MiB resident at the end, {time.monotonic() - began:.0f} s in all")
        print(f"making a row: {1e6 * row_seconds / options.images:.0f} microseconds an image")
        settled = [memory for count, memory in samples if count >= options.images // 4]
        print(f"from a quarter of the images on: {min(settled):.1f} to {max(settled):.1f} MiB")
        for path in sorted(output.iterdir()):
            print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
