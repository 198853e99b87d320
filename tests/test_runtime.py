"""The line's part: an exported file, three packages and one engine. Networks drawn by hand, whose values are known."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
from onnx import TensorProto, helper
from PIL import Image

from supersimplenet.errors import ConfigError, ImageError, ModelFolderError
from supersimplenet.postprocessing.calibration import Calibration
from supersimplenet.postprocessing.score_scale import ScoreScale
from supersimplenet.runtime import Bundle, Inspector
from supersimplenet.runtime.__main__ import main
from supersimplenet.runtime.bundle import KEY, read_bundle
from supersimplenet.runtime.predictor import IndexedPrediction
from supersimplenet.types import Defect

VERSION_0_1 = Path(__file__).parent / "fixtures" / "version_0_1"
SIZE = (32, 48)
CALIBRATION = Calibration(
    image_score="map",
    threshold_logit=200.0,
    accept_logit=150.0,
    pixel_logit=180.0,
    min_area_px=4,
    chosen_by="false-alarms",
    max_false_alarms=0.1,
    max_escapes=None,
    confidence=0.95,
    part_logits=(10.0, 20.0, 30.0, 160.0),
    images=4,
    bad_parts=0,
    escapes=0,
    basis="drawn",
    list_sha256="0",
    weights_sha256="1",
    date="2026-11-25",
)
BUNDLE = Bundle(
    engine="onnx",
    precision="fp32",
    size_px=SIZE,
    trained_size_px=SIZE,
    preprocessing={},
    outputs={},
    image_score="map",
    score_scale=ScoreScale(head_mean=1.0, head_std=2.0, map_mean=5.0, map_std=4.0, images=9),
    calibration=CALIBRATION,
    backbone={"name": "none"},
    weights_sha256="1",
    versions={},
    config={"seed": 0},
    date="2026-11-25",
)


def drawn_network() -> onnx.ModelProto:
    """The map is the mean over colours, the score the mean over all."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["B", "H", "W", 3])
    outputs = [
        helper.make_tensor_value_info("score", TensorProto.FLOAT, ["B"]),
        helper.make_tensor_value_info("map", TensorProto.FLOAT, ["B", "H", "W"]),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "colours"], ["map"], keepdims=0),
        helper.make_node("ReduceMean", ["map", "sides"], ["score"], keepdims=0),
    ]
    axes = [
        helper.make_tensor("colours", TensorProto.INT64, [1], [3]),
        helper.make_tensor("sides", TensorProto.INT64, [2], [1, 2]),
    ]
    graph = helper.make_graph(nodes, "drawn", [image], outputs, axes)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def write(path: Path, bundle: Bundle | None = BUNDLE) -> Path:
    """The drawn network as a file of the bundle's engine."""
    network = drawn_network()
    if bundle is not None and bundle.engine == "openvino":
        onnx.save(network, path.with_suffix(".onnx"))
        model = openvino.convert_model(path.with_suffix(".onnx"))
        model.set_rt_info(bundle.as_json(), [KEY])
        openvino.save_model(model, path.parent / "model.xml", compress_to_fp16=False)
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("model.xml", "model.bin"):
                archive.write(path.parent / name, name)
        return path
    if bundle is not None:
        helper.set_model_props(network, {KEY: bundle.as_json()})
    onnx.save(network, path)
    return path


@pytest.fixture(scope="module", params=["onnx", "openvino"])
def inspector(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Inspector:
    folder = tmp_path_factory.mktemp(request.param)
    return Inspector.load(write(folder / "drawn", replace(BUNDLE, engine=request.param)), threads=2)


def grey(level: int, *, spot: int | None = None) -> np.ndarray:
    """An image of twice the network's size, with a spot of 8 x 12 px of another level."""
    pixels = np.full((64, 96, 3), level, dtype=np.uint8)
    if spot is not None:
        pixels[16:24, 40:52] = spot
    return pixels


def test_what_is_said_of_an_image_follows_from_map_and_score(inspector):
    bad, unsure, good = inspector.predict([grey(10, spot=250), grey(155), grey(25)])
    assert [p.verdict for p in (bad, unsure, good)] == ["bad", "unsure", "good"]
    assert (good.head_logit, good.map_max_logit, good.score_logit) == pytest.approx((25, 25, 25), rel=1e-6)
    # ((25 - 5) / 4 * 2 + 1 + 25) / 2
    assert good.fused_logit == pytest.approx(18, rel=1e-6)
    # Of four good parts one, two, none score at least as high.
    assert [p.p_value for p in (unsure, good, bad)] == [2 / 5, 3 / 5, 1 / 5]
    (defect,) = bad.defects
    # The map is half as large, its box is given in the image's own pixels; antialiasing leaves the spot its size.
    assert (defect.left, defect.top, defect.width, defect.height) == (40, 16, 12, 8)
    # No region reaches the pixel threshold: the first pixel of the level map stands for it, 2 px of the image.
    assert [replace(peak, peak_logit=0.0, outline_logit=0.0) for peak in unsure.defects] == [
        Defect(
            left=0,
            top=0,
            width=2,
            height=2,
            area_px=4.0,
            peak_logit=0.0,
            centroid_x=0.5,
            centroid_y=0.5,
            below_threshold=True,
            outline_logit=0.0,
            outline_left=0,
            outline_top=0,
            outline_width=2,
            outline_height=2,
            outline_area_px=4.0,
        )
    ]
    assert unsure.defects[0].peak_logit == unsure.map_max_logit
    assert (good.defects, bad.regions, unsure.regions) == ((), bad.defects, ())
    assert bad.map_logit.shape == SIZE
    assert bad.map_logit[0, 0] == pytest.approx(10)


def test_files_arrays_and_lists_agree_and_stay_in_order(inspector, tmp_path):
    paths = []
    for index in range(12):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(grey(20 * index, spot=255 - index)).save(paths[-1])
    alone = [inspector.predict(str(path)) for path in paths]
    many = list(inspector.predict_files(paths))
    assert [item.index for item in many] == list(range(12))
    for index, (item, one) in enumerate(zip(many, alone, strict=True)):
        assert isinstance(item, IndexedPrediction)
        assert item.prediction.score_logit == one.score_logit
        assert item.prediction.path == one.path == str(paths[index])
        from_array = inspector.predict(grey(20 * index, spot=255 - index))
        np.testing.assert_array_equal(from_array.map_logit, one.map_logit)


def test_what_is_no_image_is_refused(inspector, tmp_path):
    with pytest.raises(ImageError, match=r"gone\.png: no such file"):
        inspector.predict(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="int: wanted a path, a PIL image or a numpy array"):
        inspector.predict([1])
    half = np.zeros(SIZE, dtype=np.bool_)
    half[:, : SIZE[1] // 2] = True
    with pytest.raises(ConfigError, match="ignored: this exported network has no input for ignored pixels"):
        inspector.predict_prepared([inspector.preprocessor.prepare(np.zeros((*SIZE, 3), np.uint8), half)], [None])


def test_an_open_size_is_taken_in_steps_and_calibrated_at_the_trainings_alone(tmp_path):
    file = write(tmp_path / "open.onnx", replace(BUNDLE, step_px=16))
    assert Inspector.load(file).calibration == CALIBRATION
    other = Inspector.load(file, size_px=(64, 96))
    prediction = other.inspect(grey(10, spot=250))
    assert prediction.map_logit.shape == (64, 96)
    assert (other.calibration, prediction.p_value, prediction.defects) == (None, None, None)
    with pytest.raises(ConfigError, match="size: 40x96; wanted multiples of 16, from two of them on"):
        Inspector.load(file, size_px=(40, 96))
    with pytest.raises(ConfigError, match="size: 64x96, but the file was exported for 32x48; export with --dynamic"):
        Inspector.load(write(tmp_path / "fixed.onnx"), size_px=(64, 96))


def test_metadata_survives_the_way_through_text():
    assert read_bundle(BUNDLE.as_json(), where="here") == BUNDLE


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be opened"),
        (b"", "no exported model; wanted a file that `supersimplenet export` wrote"),
        (b"\x89PNG", "no exported model"),
        (b"PK\x03\x04 and no more", "damaged"),
        (b"\x08\x0a garbage", "not readable as ONNX"),
        ("bare", r"not made by `supersimplenet export` \(no metadata in it\)"),
        ("zip", "no exported model"),
        ("half", "not readable as OpenVINO's IR"),
        ("folder", "a folder; wanted a file"),
        ("old", "format 99; this version reads formats 1 and 2"),
        ("unknown", "unknown abacus; written by another version"),
        ("torn", "damaged metadata"),
    ],
)
def test_other_files_are_refused_by_name(content, message, tmp_path):
    path = tmp_path / ("file.openvino" if content == "half" else "file.onnx")
    plain = json.loads(BUNDLE.as_json())
    texts = {"old": json.dumps({**plain, "format": 99}), "unknown": json.dumps({**plain, "abacus": 1}), "torn": "{"}
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "bare":
        write(path, None)
    elif content == "folder":
        path.mkdir()
    elif content in ("zip", "half"):
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("something",) if content == "zip" else ("model.xml", "model.bin"):
                archive.writestr(name, "nothing")
    elif content is not None:
        network = drawn_network()
        helper.set_model_props(network, {KEY: texts[content]})
        onnx.save(network, path)
    with pytest.raises(ModelFolderError, match=message) as caught:
        Inspector.load(path)
    assert str(caught.value).startswith(str(path))


def test_the_command_prints_a_line_an_image(tmp_path, capsys):
    file = write(tmp_path / "drawn.onnx")
    Image.fromarray(grey(10, spot=250)).save(tmp_path / "1.png")
    assert main([str(file), str(tmp_path / "1.png"), "--maps", str(tmp_path / "maps"), "--about"]) == 0
    about, row = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert about["calibration"]["threshold_logit"] == 200
    assert about["engine_version"].startswith("onnxruntime ")
    assert (row["path"], row["verdict"], row["calibrated"]) == (str(tmp_path / "1.png"), "bad", True)
    assert row["defects"][0]["left"] == 40
    assert np.load(tmp_path / "maps" / "000000.npy").shape == SIZE
    Image.fromarray(grey(10, spot=199)).save(tmp_path / "2.png")  # good, with a region
    no_grey_zone = replace(BUNDLE, calibration=replace(CALIBRATION, accept_logit=None))
    file = write(tmp_path / "two.onnx", no_grey_zone)
    for more, listed in (([], []), (["--list-all"], [False])):
        assert main([str(file), str(tmp_path / "2.png"), *more]) == 0
        row = json.loads(capsys.readouterr().out)
        assert (row["verdict"], [defect["below_threshold"] for defect in row["defects"]]) == ("good", listed)
    assert main([str(tmp_path / "gone.onnx")]) == 2
    assert "gone.onnx: no such file" in capsys.readouterr().err


def test_the_command_takes_patterns_and_goes_on_past_an_unreadable_image(tmp_path, capsys):
    file = write(tmp_path / "drawn.onnx")
    for name in ("1.png", "3.png"):
        Image.fromarray(grey(10, spot=250)).save(tmp_path / name)
    (tmp_path / "2.png").write_bytes(b"no picture")
    assert main([str(file), "--threads", "1", str(tmp_path / "*.png")]) == 1
    assert "2.png: not a readable image" in (error := capsys.readouterr().err)
    assert error.endswith("re-export it; --on-error skip goes on with the next\n")
    assert main([str(file), "--on-error", "skip", str(tmp_path / "*.png")]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["verdict"] for row in rows] == ["bad", None, "bad"]
    assert "2.png: not a readable image" in rows[1]["error"]
    assert main([str(file), str(tmp_path / "*.jpg")]) == 1
    assert "no file fits this pattern" in capsys.readouterr().err
    assert main([str(file)]) == 2
    assert "no image is named" in capsys.readouterr().err


def test_the_program_of_the_documentation_runs_as_it_stands(tmp_path):
    text = (Path(__file__).parents[1] / "docs" / "deploy.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len([line for line in program.splitlines() if line]) <= 15
    write(tmp_path / "parts.onnx")
    camera = tmp_path / "camera"
    camera.mkdir()
    for name, pixels in (("1.png", grey(25)), ("2.png", grey(10, spot=250)), ("3.png", grey(155))):
        Image.fromarray(pixels).save(camera / name)
    (camera / "4.png").write_bytes((camera / "1.png").read_bytes()[:60])
    line = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while any(camera.glob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.05)
    (camera / "stop").touch()
    printed, _ = line.communicate(timeout=60)
    assert line.returncode == 0
    assert [text.split()[:2] for text in printed.splitlines()] == [
        ["1.png", "good"],
        ["2.png", "bad"],
        ["3.png", "unsure"],
    ]
    assert sorted(str(path.relative_to(tmp_path / "done")) for path in (tmp_path / "done").rglob("*.png")) == [
        "bad/2.png",
        "good/1.png",
        "unreadable/4.png",
        "unsure/3.png",
    ]


REFUSE = """
import sys

ALLOWED = {allowed}

class Line:
    '''The line's computer: the standard library, numpy, Pillow, simplejpeg, and what is allowed beside them.'''
    def __init__(self, finders):
        self.finders = finders
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in ALLOWED or top in sys.stdlib_module_names:
            return next(filter(None, (finder.find_spec(name, path, target) for finder in self.finders)), None)

sys.meta_path[:] = [Line(sys.meta_path[:])]
"""
BASE = {"supersimplenet", "numpy", "PIL", "simplejpeg"}


def on_the_line(code: str, *arguments: str, allowed: set[str]) -> subprocess.CompletedProcess[str]:
    program = REFUSE.format(allowed=sorted(allowed)) + code
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_nothing_but_numpy_pillow_and_one_engine_is_needed(engine, tmp_path):
    file = write(tmp_path / "drawn", replace(BUNDLE, engine=engine))
    Image.fromarray(grey(10, spot=250)).save(tmp_path / "1.png")
    code = "from supersimplenet.runtime.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    package = {"onnx": "onnxruntime", "openvino": "openvino"}[engine]
    done = on_the_line(code, str(file), str(tmp_path / "1.png"), allowed={*BASE, package})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "bad"
    without = on_the_line(code, str(file), str(tmp_path / "1.png"), allowed=BASE)
    assert without.returncode == 2
    assert without.stderr.startswith(
        f"python -m supersimplenet.runtime: {package}: not installed, and this file needs it; pip install"
    )
    assert f"'supersimplenet[{engine}]'" in without.stderr


COMMAND_LINE = {
    *("jsonargparse", "docstring_parser", "typeshed_client", "typing_extensions", "importlib_resources", "yaml"),
    *("rich", "markdown_it", "mdurl", "pygments"),
}
PROGRAM = "from supersimplenet.__main__ import main\nsys.exit(main())"


def test_the_program_says_in_one_line_what_it_lacks():
    done = on_the_line(PROGRAM, "predict", allowed={*BASE, "onnxruntime"})
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "supersimplenet: jsonargparse is not installed, and this command needs it; pip install 'supersimplenet[cli]'"
    ]


def predict(model: Path, output: Path) -> list[str]:
    return ["predict", "--model", str(model), str(VERSION_0_1 / "images"), "--output", str(output)]


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_the_command_line_needs_no_torch_for_an_exported_file(engine, tmp_path):
    package = {"onnx": "onnxruntime", "openvino": "openvino"}[engine]
    thin = predict(VERSION_0_1 / f"plain.{engine}", tmp_path / "thin")
    done = on_the_line(PROGRAM, *thin, allowed={*BASE, *COMMAND_LINE, package})
    assert done.returncode == 0, done.stderr
    full = predict(VERSION_0_1 / f"plain.{engine}", tmp_path / "full")
    subprocess.run([sys.executable, "-m", "supersimplenet", *full], check=True, capture_output=True)
    assert_same_tables(tmp_path / "thin", tmp_path / "full")


def assert_same_tables(one: Path, other: Path) -> None:
    for table in ("predictions.csv", "predictions.jsonl", "defects.csv"):
        assert (one / table).read_bytes() == (other / table).read_bytes(), table


def test_what_needs_more_says_so_before_it_begins(tmp_path):
    allowed = {*BASE, *COMMAND_LINE, "onnxruntime"}
    command = predict(VERSION_0_1 / "plain.onnx", tmp_path / "rows")
    done = on_the_line(PROGRAM, *command, "--format", "csv,parquet", allowed=allowed)
    assert done.returncode == 2
    assert "parquet is written by pyarrow, which is not installed" in done.stderr
    done = on_the_line(PROGRAM, *command, "--overlays", allowed=allowed)
    assert done.returncode == 2
    assert "drawn by matplotlib, which is not installed" in done.stderr
    assert not (tmp_path / "rows").exists()
    done = on_the_line(PROGRAM, *predict(VERSION_0_1 / "plain", tmp_path / "rows"), allowed=allowed)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "supersimplenet: torch is not installed, and this command needs it; pip install 'supersimplenet[train]'"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_an_environment_of_its_own_without_torch(engine, tmp_path):
    """Installs the package with the engine's extra alone; needs an index of packages."""
    root = Path(__file__).parents[1]
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "-c", str(root / "constraints.txt")]
    subprocess.run([*pip, f"{root}[{engine}]"], check=True)
    file = write(tmp_path / "drawn", replace(BUNDLE, engine=engine))
    Image.fromarray(grey(10, spot=250)).save(tmp_path / "1.png")
    run: dict[str, Any] = {"capture_output": True, "text": True, "cwd": tmp_path, "check": False}
    done = subprocess.run([str(python), "-m", "supersimplenet.runtime", str(file), "1.png"], **run)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "bad"
    listed = subprocess.run([str(python), "-m", "pip", "list", "--format", "json"], **run).stdout
    installed = {entry["name"].lower() for entry in json.loads(listed)}
    assert not installed & {"torch", "torchvision", "timm", "lightning", "scipy", "matplotlib", "pyarrow"}
    program = str(python.with_name("supersimplenet"))
    model = VERSION_0_1 / f"plain.{engine}"
    done = subprocess.run([program, *predict(model, tmp_path / "thin")], **run)
    assert done.returncode == 0, done.stderr
    subprocess.run([sys.executable, "-m", "supersimplenet", *predict(model, tmp_path / "full")], check=True)
    assert_same_tables(tmp_path / "thin", tmp_path / "full")
    missing = subprocess.run([program, *predict(VERSION_0_1 / "plain", tmp_path / "none")], **run)
    assert (missing.returncode, len(missing.stderr.splitlines())) == (1, 1)


FIRST_IMAGES_AT_ONCE = """
import sys, threading
import numpy as np, openvino
from supersimplenet.runtime import Inspector
sys.setswitchinterval(1e-6)
inspector = Inspector.load(sys.argv[1])
pixels = np.zeros((64, 96, 3), np.uint8)
together, found = threading.Barrier(8), []
def inspect():
    together.wait()
    openvino.Type.u8.to_dtype()  # what each first image needs
    found.append(inspector.inspect(pixels).verdict)
threads = [threading.Thread(target=inspect, daemon=True) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(found))
"""


def test_the_first_images_may_be_inspected_in_several_threads_at_once():
    """In OpenVINO's bindings, two threads that need its table of number types first once waited for each other."""
    file = VERSION_0_1 / "plain.openvino"
    done = subprocess.run(
        [sys.executable, "-c", FIRST_IMAGES_AT_ONCE, str(file)],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout == "8\n"
