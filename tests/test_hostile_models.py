"""What is loaded is bounded and validated: a damaged or hostile file is refused in one line, at little cost."""

from __future__ import annotations

import io
import json
import pickle
import random
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import onnx
import pytest
import torch
import yaml
from hostile import FIXTURES, mutated_bytes
from safetensors.torch import load_file, save_file
from test_runtime import BUNDLE, drawn_network, write

from supersimplenet.errors import ConfigError, ModelFolderError, SuperSimpleNetError
from supersimplenet.inference.detector import Detector
from supersimplenet.inference.image_records import read_image_records, read_known_images, trained_on
from supersimplenet.inference.import_weights import import_weights
from supersimplenet.inference.model_folder import load_model, read_calibration
from supersimplenet.inference.record import read_record
from supersimplenet.model.config import ModelConfig
from supersimplenet.model.weight_files import read_state_dict
from supersimplenet.runtime import Inspector
from supersimplenet.runtime.bundle import KEY, read_bundle
from supersimplenet.runtime.seal import seal_onnx, seal_openvino, seal_zip
from supersimplenet.utils.documents import parse_json, parse_yaml, read_yaml
from supersimplenet.utils.serialization import from_plain


@pytest.fixture
def model(tmp_path) -> Path:
    return Path(shutil.copytree(FIXTURES / "plain", tmp_path / "model"))


def refused(call, *given, match: str, kind: type[SuperSimpleNetError] = ModelFolderError) -> None:
    with pytest.raises(kind, match=match) as error:
        call(*given)
    assert len(str(error.value).splitlines()) == 1


# --- documents ----------------------------------------------------------------------------------------------------


def test_plain_yaml_is_read_as_pyyaml_reads_it():
    for name in ("plain", "tiles"):
        for file in ("config.yaml", "calibration.yaml"):
            text = (FIXTURES / name / file).read_text()
            assert parse_yaml(text) == yaml.safe_load(text)
    assert parse_yaml("\ufeffa: 1".encode().decode("utf-8-sig")) == {"a": 1}
    assert parse_yaml("day: 2026-11-25\nnone: ~\nhex: 0x10") == {"day": "2026-11-25", "none": None, "hex": 16}
    assert parse_yaml("") is None


BILLION_LAUGHS = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [{a * 9}]\n" for a, b in [("*a, ", "b")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BILLION_LAUGHS, "an anchor or alias in line 1"),
        ("a: &a [*a]", "an anchor or alias in line 1"),
        ("a:\n  <<: {b: 1}", "a merge key in line 2"),
        ("a: 1\na: 2", "'a' stands twice"),
        ("a: !!python/object/apply:os.getcwd []", "the tag 'tag:yaml.org,2002:python/object/apply:os.getcwd'"),
        ("a: !!set {b}", "the tag 'tag:yaml.org,2002:set' in line 1"),
        ("a: 9223372036854775808", "the number 9223372036854775808 has more than 64 bits"),
        ("a: 1" + "0" * 5000, "has more than 64 bits"),
        ("[" * 100_000, "more than 32 lists or mappings inside each other"),
        ("a: [" + "1, " * 100_001 + "]", "more than 100,000 values"),
        ("1: 2", "1 is no name"),
        ("a: !!int '-'", "'-' in line 1 is no int"),
        ("a: 1\n---\nb: 2", "more than one document"),
        ("a: [", "did not find expected node content, line 2"),
        ("a: \x01", "control characters are not allowed"),
    ],
    ids=range(15),
)
def test_other_yaml_is_refused(text, message, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    wanted = rf"config\.yaml: not readable as YAML \(.*{re.escape(message)}.*\); bring it back"
    refused(lambda: read_yaml(path, advice="bring it back"), match=wanted)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "more than 32 lists"),
        ("[" * 40 + "]" * 40, "more than 32 lists"),
        ('{"a": 1, "a": 1}', "'a' stands twice"),
        ("1" * 30, "more than 64 bits"),
        ("[" + "0," * 1_000_000 + "0]", "more than 1,000,000 values"),
        ("[1,", "Expecting value"),
    ],
    ids=range(6),
)
def test_other_json_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text)


# --- types --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Inner:
    count: int
    path: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    size_px: tuple[int, int] | None = None
    rates: tuple[float, ...] = ()
    way: Literal["a", "b"] | Literal["auto"] = "auto"
    flag: bool = False
    inner: Inner | None = None
    names: dict[str, str] | None = None


def test_plain_values_become_the_declared_types():
    values = {"name": "x", "size_px": [1, 2], "rates": [1, 0.5], "way": "b", "inner": {"count": 3, "path": "y"}}
    found = from_plain(Outer, values, where="f.yaml")
    assert found == Outer(name="x", size_px=(1, 2), rates=(1.0, 0.5), way="b", inner=Inner(count=3, path=Path("y")))
    assert [type(rate) for rate in found.rates] == [float, float]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "o: lacks name; bring back the file"),
        ({"name": "x", "colour": 1}, "o: unknown colour; written by another version?"),
        ({"name": "x", "a\nb": 1}, "o: unknown 'a\\nb'; written by another version?"),
        ({"name": 3}, "o.name: 3; wanted text"),
        ({"name": "x", "size_px": "12x"}, "o.size_px: '12x'; wanted two whole numbers or null"),
        ({"name": "x", "size_px": [1, 2, 3]}, "o.size_px: [1, 2, 3]; wanted two whole numbers or null"),
        ({"name": "x", "size_px": [1, True]}, "o.size_px: [1, True]; wanted two whole numbers or null"),
        ({"name": "x", "rates": [1, float("nan")]}, "o.rates[1]: nan; wanted a finite number"),
        ({"name": "x", "rates": 1.0}, "o.rates: 1.0; wanted a list of finite numbers"),
        ({"name": "x", "way": "c"}, "o.way: 'c'; wanted a, b or auto"),
        ({"name": "x", "flag": 1}, "o.flag: 1; wanted true or false"),
        ({"name": "x", "inner": {"count": 1.0}}, "o.inner.count: 1.0; wanted a whole number"),
        ({"name": "x", "inner": {"count": 1, "path": "a\0"}}, "o.inner.path: 'a\\x00'; wanted a path or null"),
        ({"name": "x", "inner": []}, "o.inner: []; wanted names with values or null"),
        ({"name": "x", "names": {"a": 1}}, "o.names: {'a': 1}; wanted names with values or null"),
        ([], "o: []; wanted names with values"),
    ],
)
def test_a_wrong_value_is_named(values, message):
    with pytest.raises(ModelFolderError) as error:
        from_plain(Outer, values, where="f.yaml", name="o")
    assert str(error.value) == f"f.yaml: {message}"


# --- model folders ------------------------------------------------------------------------------------------------


def changed(model: Path, name: str, value: object) -> None:
    """Put a value in config.yaml, at a dotted name; drop the name where it is ``...``."""
    record = yaml.safe_load((model / "config.yaml").read_text())
    *groups, last = name.split(".")
    holder = record
    for group in groups:
        holder = holder[group]
    if value is ...:
        del holder[last]
    else:
        holder[last] = value
    (model / "config.yaml").write_text(yaml.safe_dump(record))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model.image_size", "12x", "model.image_size: '12x'; wanted two whole numbers or null"),
        ("model.image_size", [100_000, 64], "model.image_size: 100000x64 px; give height and width, .* at most 8,192"),
        ("model.feature_strides", ["4"], r"model\.feature_strides\[0\]: '4'; wanted a whole number"),
        ("model.backbone", 3, "model.backbone: 3; wanted text"),
        ("model", [], r"model: \[\]; wanted names with values"),
        ("backbone", None, "backbone: None; wanted names with values"),
        ("backbone.sha256", ..., "lacks backbone.sha256; bring back the file that `train` wrote"),
        ("backbone.origin", "moon", "backbone.origin: 'moon'; wanted package, extra, hub, file or module"),
        ("backbone.origin", "package", "backbone.origin does not fit model.backbone"),
        ("training.plan", "long", "training.plan: 'long'; wanted names with values"),
        ("training.list_sha256", ..., "lacks training.list_sha256"),
        ("seed", True, "seed: True; wanted a whole number"),
        ("trainer", ..., "lacks trainer"),
        ("trainer.holdout_fraction", "a lot", "trainer.holdout_fraction: 'a lot'; wanted a finite number"),
        ("view_files", {"../../x": "0"}, r"a name in view_files: '../../x'; wanted roi.png or reference.png"),
        ("view.scale", 1e9, "view.scale: 1000000000.0; wanted above 0, at most 16"),
        ("map_shift_px", [1, 2.5], r"map_shift_px\[1\]: 2.5; wanted a whole number"),
        ("map_shift_px", [3, 9], r"map_shift_px: \[3, 9\]; wanted two whole numbers from 0 to 8"),
        ("score_scale.images", 1.5, "score_scale.images: 1.5; wanted a whole number"),
        ("versions", {"torch": 2}, "versions.torch: 2; wanted text"),
        ("format", "1" * 999, "format '1+...1+'; this version reads format 1"),
    ],
)
def test_a_wrong_key_of_the_record_is_named(name, value, message, model):
    changed(model, name, value)
    refused(read_record, model, match=rf"model/config\.yaml: {message}")


def test_a_wrong_argument_of_the_dataset_is_named(model):
    changed(model, "data.init_args.test_fraction", "some")
    wanted = r"model/config\.yaml: data\.init_args\.test_fraction: 'some'; wanted a finite number"
    refused(lambda: trained_on(read_record(model), model), match=wanted)
    changed(model, "data.init_args", {"root": "x"})
    refused(lambda: trained_on(read_record(model), model), match=r"config\.yaml: data\.init_args: unknown root")


@pytest.mark.parametrize("content", [b"\xff\xfea\0", b"a: [", b"- 1", b"", b"image_score: fused\n"])
def test_a_calibration_that_is_none_is_refused(content, model):
    (model / "calibration.yaml").write_bytes(content)
    refused(
        read_calibration, model, match=r"calibration\.yaml.*: (not UTF-8|not readable as YAML|lacks|.*wanted names)"
    )


def test_weights_that_do_not_fit_are_refused_before_a_network_is_built(model, monkeypatch):
    """A config that names a network of 4 GB beside a file of 1 MB."""
    changed(model, "model.backbone", "convnext_xxlarge")
    monkeypatch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, *_, **__: tensor)
    built = []
    monkeypatch.setattr("supersimplenet.inference.model_folder.SuperSimpleNet", lambda *a, **k: built.append(a))
    refused(load_model, model, match=r"model\.safetensors: does not fit its config\.yaml: lacks backbone")
    assert built == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("shape", r"'heads\.map\.weight' is \(1, 7\) float32, the network needs \(1, \d+\) float32"),
        ("type", r"'heads\.map\.weight' is \(1, \d+\) float64, the network needs"),
        ("missing", r"lacks heads\.map\.weight"),
        ("unknown", r"has 'more', which the network has not"),
        ("header", r"damaged \(a header of 4,294,967,296 bytes; at most 16,777,216 are read\)"),
        ("short", r"damaged \(3 bytes\)"),
        ("torn", r"damaged"),
    ],
)
def test_damaged_weights_are_refused(damage, message, model):
    path = model / "model.safetensors"
    tensors = load_file(path)
    if damage == "shape":
        tensors["heads.map.weight"] = torch.zeros(1, 7)
    elif damage == "type":
        tensors["heads.map.weight"] = tensors["heads.map.weight"].double()
    elif damage == "missing":
        del tensors["heads.map.weight"]
    elif damage == "unknown":
        tensors["more"] = torch.zeros(1)
    if damage == "header":
        path.write_bytes(struct.pack("<Q", 1 << 32) + path.read_bytes())
    elif damage == "short":
        path.write_bytes(b"abc")
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        save_file(tensors, path)
    refused(load_model, model, match=rf"model\.safetensors: .*{message}")


def test_a_damaged_list_of_known_images_is_refused(model):
    (model / "known_images.txt").write_text("abc trained\n")
    refused(read_known_images, model, match=r"known_images\.txt: damaged")
    (model / "images.csv").write_text("name,sha256\na,b\n")
    refused(read_image_records, model, match=r"images\.csv: damaged \(columns 'name', 'sha256'; wanted name, sha256,")


def test_many_mutants_of_each_kind_load_or_are_refused_in_one_line():
    """Within 1 GiB beyond what the process has before."""
    command = [sys.executable, str(Path(__file__).parent / "hostile.py")]
    command += ["folder,records,metadata,import,journal", "1000", "16"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for kind, found in json.loads(done.stdout).items():
        assert found["failures"] == {}, kind
        assert found["refused"] >= 4, kind


# --- weights of other programs ------------------------------------------------------------------------------------


def test_a_compressed_checkpoint_is_refused(tmp_path):
    torch.save({"a": torch.zeros(4)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as source, zipfile.ZipFile(tmp_path / "weights.pt", "w") as archive:
        for name in source.namelist():
            content = bytes(50_000_000) if name.endswith("data/0") else source.read(name)
            archive.writestr(name, content, zipfile.ZIP_DEFLATED)
    assert (tmp_path / "weights.pt").stat().st_size < 100_000
    config = ModelConfig(backbone="compact")

    def load() -> None:
        import_weights(tmp_path / "weights.pt", source="official", config=config, output=tmp_path / "model")

    refused(load, match=r"weights\.pt: damaged \(the member .* is compressed or encrypted; it is written as it is\)")


class Large:
    """Allocates what a number says as soon as an unpickler meets it, and torch's own list of safe names has it."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return bytearray, (1 << 33,)


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_checkpoint_that_allocates_by_a_number_is_refused(as_zip, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"a": Large()}, path, _use_new_zipfile_serialization=as_zip)
    wanted = r"weights\.pt: holds something else than tensors.*\(it asks for '__builtin__ bytearray'\)"
    refused(read_state_dict, path, match=wanted, kind=SuperSimpleNetError)


def test_an_old_checkpoint_that_declares_more_than_it_holds_is_refused(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.arange(4.0)}, path, _use_new_zipfile_serialization=False)
    assert read_state_dict(path)["a"].tolist() == [0, 1, 2, 3]
    content = path.read_bytes()
    numel = pickle.dumps(4, protocol=2)[2:-1]  # K\x04
    large = pickle.dumps(1 << 30, protocol=2)[2:-1]
    place = content.index(b"cpu") + content[content.index(b"cpu") :].index(numel)
    path.write_bytes(content[:place] + large + content[place + len(numel) :])
    wanted = r"weights\.pt: .*it declares more values than its [\d,]+ bytes can hold"
    refused(read_state_dict, path, match=wanted, kind=SuperSimpleNetError)


def test_a_checkpoint_with_a_changed_byte_is_refused(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.full((64,), 0.5)}, path)
    content = path.read_bytes()
    place = content.index(struct.pack("<f", 0.5) * 8)
    path.write_bytes(content[:place] + b"\x01" + content[place + 1 :])
    refused(read_state_dict, path, match=r"weights\.pt: damaged \(Bad CRC-32", kind=SuperSimpleNetError)


# --- exported files -----------------------------------------------------------------------------------------------


def sealed(path: Path, engine: str = "onnx") -> Path:
    """The drawn network as `export` writes it."""
    bundle = replace(BUNDLE, engine=engine, sealed=True)
    write(path, bundle)
    if engine == "onnx":
        path.write_bytes(seal_onnx(path.read_bytes()))
    else:
        with zipfile.ZipFile(path) as archive:
            xml, weights = archive.read("model.xml"), archive.read("model.bin")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model.xml", seal_openvino(xml, weights))
            archive.writestr("model.bin", weights)
    return path


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_no_damage_of_a_sealed_file_is_accepted(engine, tmp_path):
    file = sealed(tmp_path / "parts", engine)
    Inspector.load(file)
    content = file.read_bytes()
    for seed in range(150):
        file.write_bytes(mutated_bytes(content, random.Random(seed)))
        try:
            refused(Inspector.load, file, match="parts: ")
        except pytest.fail.Exception:
            assert engine == "openvino"  # the zip also holds dates, which say nothing about the model
            assert members(file.read_bytes()) == members(content)


def members(content: bytes) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [archive.read(name) for name in ("model.xml", "model.bin")]


def test_a_seal_that_is_cut_off_is_missed(tmp_path):
    file = sealed(tmp_path / "parts.onnx")
    network = onnx.load(file)
    del network.metadata_props[-1]
    file.write_bytes(network.SerializeToString())
    refused(Inspector.load, file, match=r"parts\.onnx: damaged \(its end is missing\); copy it again, or export")


def test_the_seal_covers_the_unpacked_pair(tmp_path):
    with zipfile.ZipFile(sealed(tmp_path / "parts", "openvino")) as archive:
        archive.extractall(tmp_path / "pair")
    Inspector.load(tmp_path / "pair" / "model.xml")
    weights = bytearray((tmp_path / "pair" / "model.bin").read_bytes())
    weights[0] ^= 1
    (tmp_path / "pair" / "model.bin").write_bytes(weights)
    wanted = r"model\.xml: damaged \(its content is not the one that was exported\)"
    refused(Inspector.load, tmp_path / "pair" / "model.xml", match=wanted)


def test_the_seal_covers_a_torch_program(tmp_path):
    file = tmp_path / "parts.pt2"
    shutil.copy(FIXTURES / "plain.pt2", file)
    with zipfile.ZipFile(file, "a") as archive:
        seal_zip(archive)
    Inspector.load(file, trust=True)
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(tmp_path / "other.pt2", "w") as archive:
        for name in source.namelist():
            content = source.read(name)
            archive.writestr(name, content[:-1] + b"\x01" if name.endswith("weight_0") else content)
        archive.comment = source.comment
    wanted = r"other\.pt2: damaged \(its content is not the one that was exported\)"
    refused(lambda: Inspector.load(tmp_path / "other.pt2", trust=True), match=wanted)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("compressed", "'model.bin' is compressed or encrypted"),
        ("list", "its list of members has [0-9,]+ bytes, at most 4,194,304 are read"),
        ("torn", "damaged"),
    ],
)
def test_a_hostile_zip_is_refused(way, message, tmp_path):
    file = tmp_path / "parts"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.xml", "<?xml version='1.0'?>")
        if way == "list":
            for index in range(70):
                archive.writestr(f"{index}{'x' * 60_000}", "")
        else:
            archive.writestr("model.bin", bytes(50_000_000), zipfile.ZIP_DEFLATED)
    if way == "torn":
        file.write_bytes(file.read_bytes()[:-30])
    refused(Inspector.load, file, match=message)


def test_a_graph_that_refers_to_other_files_is_refused(tmp_path):
    network = drawn_network()
    onnx.helper.set_model_props(network, {KEY: BUNDLE.as_json()})
    values = onnx.numpy_helper.to_array(network.graph.initializer[0])
    network.graph.initializer[0].raw_data = values.tobytes()
    network.graph.initializer[0].ClearField("int64_data")
    onnx.save(network, tmp_path / "parts.onnx", save_as_external_data=True, location="other", size_threshold=0)
    assert (tmp_path / "other").is_file()
    refused(Inspector.load, tmp_path / "parts.onnx", match=r"parts\.onnx: refers to another file for its weights")


def test_a_graph_without_its_outputs_is_refused(tmp_path):
    network = drawn_network()
    onnx.helper.set_model_props(network, {KEY: BUNDLE.as_json()})
    network.graph.output.pop()
    onnx.save(network, tmp_path / "parts.onnx")
    refused(Inspector.load, tmp_path / "parts.onnx", match=r"parts\.onnx: its graph has no map; copy it again")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size_px": [1 << 20, 32]}, r"size_px: \(1048576, 32\); wanted sides of 1 to 32,768 px"),
        ({"strides": []}, r"strides: \(\); wanted one or more whole numbers above 0, ascending"),
        ({"engine": "abacus"}, "engine: 'abacus'; wanted onnx, openvino or torch"),
        ({"view": {"fit": "fold"}}, "view.fit: 'fold'; wanted stretch, pad or tiles"),
        ({"view_images": {"roi": "AAAA"}}, "view.roi and view_images do not fit"),
        ({"view_images": {"../x": ""}}, "a name in view_images: '../x'; wanted roi or reference"),
        ({"certificate": {"images": 1}}, "certificate: lacks source, "),
        ({"score_scale": None}, "score_scale: None; wanted names with values"),
        ({"step_px": 0}, "step_px: 0; wanted 1 or more, or null"),
    ],
)
def test_wrong_metadata_are_named(values, message):
    text = json.dumps({**json.loads(BUNDLE.as_json()), **values})
    refused(lambda: read_bundle(text, where="parts.onnx"), match=rf"parts\.onnx: {message}")


def test_a_picture_in_the_metadata_is_bounded(monkeypatch):
    from supersimplenet.runtime import bundle as module

    view = {"roi": "roi.png"}
    for text, message in (("!", "Only base64|base64"), ("AAAA", "view_images.roi: not a readable image")):
        drawn = replace(BUNDLE, view=view, view_images={"roi": text})
        refused(lambda drawn=drawn: drawn.make_preprocessor((32, 48)), match=message)
    roi = module.encode_png(torch.ones(40, 50, dtype=torch.uint8).numpy())
    monkeypatch.setenv("SUPERSIMPLENET_MAX_PIXELS", "1999")
    drawn = replace(BUNDLE, view=view, view_images={"roi": roi})
    refused(
        lambda: drawn.make_preprocessor((32, 48)),
        match=r"view_images\.roi: 40 x 50 px .* above the limit of 1,999 pixels",
    )


def test_settings_of_a_network_have_bounds():
    with pytest.raises(ConfigError, match="at most 8,192 px"):
        ModelConfig(image_size=(8193, 64))
    assert Detector.load(FIXTURES / "plain", device="cpu").image_size == (64, 64)
