"""Memory and time of large images predicted in tiles, each measurement in a process of its own.

    python experiments/tiles.py --megapixels 20 --backbone compact
    python experiments/tiles.py --megapixels 20 --export openvino      # an exported file, by the runtime without torch

Memory is the most that was ever resident of the process (VmHWM), Python, torch and the decoded image included; the
overlay and the table are written, as `predict --overlays` does. ``--seams`` compares the blended map with that of a
network whose input is the whole image.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

_SIDE_RATIO = 1.5
_BLOT_PX = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[5.0, 20.0])
    parser.add_argument("--backbone", default="compact")
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument(
        "--images", type=int, default=2, help="predicted one after another, by as many threads as usual"
    )
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--export", choices=("onnx", "openvino"), help="instead: of an exported file")
    parser.add_argument("--seams", action="store_true")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        predicted = predict(options.child, options.engine) if options.export is None else inspect(options.child)
        print(json.dumps(predicted))
    elif options.seams:
        seams(options)
    else:
        measure(options)


def measure(options: argparse.Namespace) -> None:
    print("megapixels  size         tiles  seconds an image  most resident, MiB  at rest, MiB")
    for megapixels in options.megapixels:
        height = round((megapixels * 1e6 / _SIDE_RATIO) ** 0.5)
        size_px = (height, round(height * _SIDE_RATIO))
        with tempfile.TemporaryDirectory() as folder:
            make_model(Path(folder) / "model", options)
            (Path(folder) / "images").mkdir()
            for number in range(options.images):
                Image.fromarray(draw(size_px, number)).save(Path(folder) / "images" / f"{number}.png")
            command = [sys.executable, __file__, "--child", folder, "--engine", options.engine]
            if options.export is not None:
                export(Path(folder), options.export)
                command += ["--export", options.export]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        tiles = tile_count(size_px, options)
        print(
            f"{megapixels:10g}  {size_px[0]}x{size_px[1]:<7} {tiles:5}  {found['seconds'] / options.images:16.1f}  "
            f"{found['peak_mib']:18.0f}  {found['resting_mib']:12.0f}",
            flush=True,
        )


def draw(size_px: tuple[int, int], seed: int) -> np.ndarray:
    """Noise on a gradient, and a dark blot."""
    rng = np.random.default_rng(seed)
    image = rng.integers(100, 156, (*size_px, 3), dtype=np.uint8)
    y, x = (int(rng.integers(0, side - _BLOT_PX)) for side in size_px)
    image[y : y + _BLOT_PX, x : x + _BLOT_PX] = 10
    return image


def make_model(folder: Path, options: argparse.Namespace) -> None:
    from supersimplenet.benchmark.config import SpeedConfig
    from supersimplenet.benchmark.speed import _network
    from supersimplenet.inference.model_folder import save_model

    network = _network(SpeedConfig(backbone=options.backbone, image_size=(options.tile, options.tile)))
    view = {"fit": "tiles", "tile_overlap": options.overlap}
    save_model(folder, network.eval(), {"view": view, "view_files": {}})


def tile_count(size_px: tuple[int, int], options: argparse.Namespace) -> int:
    from supersimplenet.preprocessing.tiling import TileGrid

    return len(TileGrid.of(size_px, (options.tile, options.tile), overlap=options.overlap, step_px=16))


def predict(folder: Path, engine: str) -> dict[str, float]:
    from supersimplenet import Detector
    from supersimplenet.prediction.inputs import find_inputs
    from supersimplenet.prediction.job import predict_to_folder

    detector = Detector.load(folder / "model", device="cpu", engine=engine)
    resting = resident_mib("VmRSS")
    begin = time.perf_counter()
    inputs = find_inputs([str(folder / "images")])
    predict_to_folder(detector, inputs, folder / "out", model_folder=folder / "model", overlays=True)
    return {
        "seconds": time.perf_counter() - begin,
        "resting_mib": resting,
        "peak_mib": resident_mib("VmHWM"),
    }


def export(folder: Path, file_format: str) -> None:
    from supersimplenet.export.export import export_model

    small = folder / "small.png"
    Image.fromarray(draw((600, 700), 9)).save(small)
    export_model(folder / "model", folder / "exported", file_format=file_format, images=[small])


def inspect(folder: Path) -> dict[str, float]:
    """By the runtime alone, images one after another; only the predictions are kept."""
    from supersimplenet.runtime import Inspector

    inspector = Inspector.load(folder / "exported")
    resting = resident_mib("VmRSS")
    begin = time.perf_counter()
    for item in inspector.predict_files(sorted((folder / "images").iterdir())):
        assert item.prediction.map_logit.size
    return {"seconds": time.perf_counter() - begin, "resting_mib": resting, "peak_mib": resident_mib("VmHWM")}


def resident_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(field))) / 1024


def seams(options: argparse.Namespace) -> None:
    """How far the blended map is from the whole one, in logits, by overlap and `align_corners`."""
    import torch

    from supersimplenet import Detector, ModelConfig, SuperSimpleNet
    from supersimplenet.export.graph import at_size
    from supersimplenet.preprocessing.preprocessor import Preprocessor, ViewConfig

    tile, whole = options.tile, 3 * options.tile
    print("align_corners  period, px  overlap  largest difference  mean  spread of the map")
    for align_corners in (False, True):
        config = ModelConfig(backbone=options.backbone, image_size=(tile, tile), align_corners=align_corners)
        network = SuperSimpleNet(config, seed=1).eval()
        with torch.no_grad():  # a map that is not nearly flat
            for name, buffer in network.heads.named_buffers():
                if name.endswith(("running_mean", "running_var")):
                    buffer.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(2))
        whole_network = Detector(at_size(network, (whole, whole)), device="cpu")
        for period in (16, 48):
            pixels = np.random.default_rng(0).integers(0, 256, (period, period, 3), dtype=np.uint8)
            times = -(-whole // period)
            image = np.tile(pixels, (times, times, 1))[:whole, :whole]
            wanted = whole_network.predict(image).map_logit
            for overlap in (0.0, 0.125, 0.25, 0.5, 0.75):
                preprocessor = Preprocessor(ViewConfig(fit="tiles", tile_overlap=overlap), size_px=(tile, tile))
                found = Detector(network, device="cpu", preprocessor=preprocessor).predict(image).map_logit
                off = np.abs(found - wanted)
                print(
                    f"{align_corners!s:13}  {period:10}  {overlap:7}  {off.max():18.1e}  {off.mean():.1e}  "
                    f"{np.ptp(wanted):.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
