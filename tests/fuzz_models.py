"""Targets of the campaign that the package writes itself: model folders, weights, exported files, journals."""

from __future__ import annotations

import io
import json
import pickle
import random
import re
import shutil
import struct
import tempfile
import zipfile
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import zoo
from fuzz_case import Case, Files, Target, damaged, perhaps

from supersimplenet.errors import SuperSimpleNetError

FIXTURES = hostile.FIXTURES
_TEXTS = (
    b"&a [*a]",
    b"{a: 1, a: 2}",
    b"!!set {a}",
    b"[" * 99,
    b"1" * 30,
    b"1: 2",
    b"a: .nan",
    b"--- 1\n--- 2",
    b"a: !!int '-'",
)


# --- model folders ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def models() -> Path:
    """A folder with model folders: two of version 0.1, and one as it is written today."""
    import torch
    import yaml

    from supersimplenet import ModelConfig, SuperSimpleNet
    from supersimplenet.inference.image_records import IMAGES_FILE, ImageRecord, write_image_records
    from supersimplenet.inference.model_folder import describe_model, save_preprocessor, save_weights, write_yaml
    from supersimplenet.preprocessing.preprocessor import Preprocessor, ViewConfig
    from supersimplenet.utils.files import file_sha256

    folder = Path(tempfile.mkdtemp(prefix="fuzz-models-"))
    for name in ("plain", "tiles"):
        shutil.copytree(FIXTURES / name, folder / name)
    torch.set_num_threads(1)
    network = SuperSimpleNet(ModelConfig(backbone="compact", image_size=(32, 32)), seed=1)
    new = folder / "new"
    new.mkdir()
    roi = np.ones((40, 60), dtype=bool)
    reference = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    view = ViewConfig(align="translation", roi=Path("roi.png"), reference=Path("reference.png"))
    preprocessor = Preprocessor(view, size_px=(32, 32), strides=(8, 16), roi=roi, reference=reference)
    hashes = save_preprocessor(new, preprocessor)
    write_image_records(
        new, [ImageRecord(name=f"{n}.png", sha256="a" * 64, split="train", role="trained") for n in "ab"]
    )
    (new / "images.csv").write_text(hostile.RECORDS)
    files = {"model.safetensors": save_weights(new, network.eval()), IMAGES_FILE: file_sha256(new / IMAGES_FILE)}
    old = yaml.safe_load((FIXTURES / "plain" / "config.yaml").read_text())
    kept = {name: old[name] for name in old if name not in describe_model(network, {}, files=files)}
    plain = {"align": "translation", "roi": "roi.png", "reference": "reference.png"}
    write_yaml(new / "config.yaml", describe_model(network, {**kept, "view": plain, "view_files": hashes}, files=files))
    calibration = yaml.safe_load((FIXTURES / "plain" / "calibration.yaml").read_text())
    calibration["weights_sha256"] = files["model.safetensors"]
    write_yaml(new / "calibration.yaml", calibration)
    return folder


def make_model(draw: random.Random) -> Files:
    """One file of a model folder is changed; the others are added when it is read."""
    model = draw.choice(("plain", "tiles", "new"))
    paths = sorted(path for path in (models() / model).iterdir() if path.suffix != ".safetensors")
    path = draw.choice([*paths, *(path for path in paths if path.suffix == ".yaml")])
    content = path.read_bytes()
    if path.suffix == ".yaml" and draw.random() < 0.8:
        content = hostile.mutated_document(content, draw, "yaml")
        if draw.random() < 0.05:
            content += draw.choice(_TEXTS)
    elif path.name == "images.csv" and draw.random() < 0.5:
        content = re.sub(rb"64|96|250|train|held-out", draw.choice((b"x", b"", b"-1", b"9" * 12, b"\xff")), content)
    else:
        content = perhaps(content, draw, 0.9)
    return {f"{model}/{path.name}": content}


def _completed(case: Case) -> Path:
    (model,) = case.here.iterdir()
    for path in (models() / model.name).iterdir():
        if not (model / path.name).exists():
            shutil.copyfile(path, model / path.name)
    return model


def read_model(case: Case) -> None:
    from supersimplenet.inference.config import HERE
    from supersimplenet.inference.detector import load_detector

    detector = case.attempt(load_detector, _completed(case), HERE)
    if detector is not None:
        _check_calibration(detector.calibration)


def read_model_files(case: Case) -> None:
    """The same without the network, which is fast."""
    from supersimplenet.inference.image_records import (
        held_out_samples,
        read_image_records,
        read_known_images,
        samples_to_choose_by,
        trained_on,
    )
    from supersimplenet.inference.model_folder import load_preprocessor, read_calibration
    from supersimplenet.inference.record import model_config, read_record

    model = _completed(case)
    known = case.attempt(lambda: [read_known_images(model)])
    case.attempt(lambda: [read_image_records(model)])
    _check_calibration(case.attempt(read_calibration, model))
    record = case.attempt(read_record, model)
    if record is None:
        return
    config = case.attempt(model_config, record, model)
    if config is not None:
        case.attempt(load_preprocessor, model, record, config)
    source = case.attempt(trained_on, record, model)
    if source is not None and known is not None:
        case.attempt(lambda: [held_out_samples(model, source, record)])
        case.attempt(lambda: [samples_to_choose_by(model, [], record)])


def _check_calibration(calibration: Any) -> None:
    """What decides the verdict is a number, and a guarantee can be put into words."""
    if calibration is None:
        return
    thresholds = (calibration.threshold_logit, calibration.pixel_logit, *calibration.part_logits)
    assert np.isfinite(thresholds).all(), "a threshold that is not finite was accepted"
    assert 0 < calibration.p_value(0.0) <= 1
    assert calibration.guarantee()


# --- documents and regions of interest ----------------------------------------------------------------------------


def make_document(draw: random.Random) -> Files:
    kind = draw.choice(("json", "yaml"))
    base = draw.choice([path.read_bytes() for path in sorted(FIXTURES.rglob("*.yaml"))])
    if kind == "json":
        base = draw.choice(
            (
                b"[[1, 2], [30, 2], [30.5, 20]]",
                b"[[[1, 2], [30, 2], [3e1, 20]], [[5, 5], [9, 5], [9, 9]]]",
                b'{"image_size_px": [24, 60], "zones": [{"name": "rim", "polygon": [[1, 2], [30, 2], [3e1, 20]], '
                b'"margin_logit": -1.5, "min_area_px": 4}], "elsewhere": {"min_area_px": 9}}',
                b'{"findings": [{"code": "mask-vanishes"}], "AP-det": 0.5}',
            )
        )
    content = hostile.mutated_document(base, draw, kind) if draw.random() < 0.8 else damaged(base, draw)
    if draw.random() < 0.1:
        content = draw.choice(
            (*_TEXTS, b"[" + b"1," * 200_000 + b"1]", b"\xef\xbb\xbf[1]", b"a: {" + b"b: {" * 50, b"[" * 5000)
        )
    return {f"file.{kind}": content}


def read_document(case: Case) -> None:
    from supersimplenet.datasets.checks.check import remove_report
    from supersimplenet.postprocessing.zone_file import read_zones
    from supersimplenet.postprocessing.zones import zones_on_map
    from supersimplenet.preprocessing.geometry import Placement
    from supersimplenet.preprocessing.preprocessor import read_roi
    from supersimplenet.utils.documents import read_json, read_yaml
    from supersimplenet.utils.serialization import to_plain

    (path,) = case.here.iterdir()
    value = case.attempt(lambda: [(read_yaml if path.suffix == ".yaml" else read_json)(path, advice="bring it back")])
    if value is not None:
        to_plain(value)
    if path.suffix == ".json":
        case.attempt(read_roi, path, (24, 60))
        zones = case.attempt(read_zones, path)
        if zones is not None:
            case.attempt(lambda: [zones_on_map(zones, Placement.whole((8, 20), zones.image_size_px), "image")])
        path = path.rename(path.with_name("check.json"))
        case.attempt(lambda: [remove_report(case.here)])


# --- weights and checkpoints --------------------------------------------------------------------------------------


def _tensors() -> dict[str, Any]:
    import torch

    generator = torch.Generator().manual_seed(0)
    return {f"layer{size}.weight": torch.rand(4, size, generator=generator) for size in range(1, 4)}


def make_weights(draw: random.Random) -> Files:
    import torch
    from safetensors.torch import save

    form = draw.choice(("safetensors", "pt", "old.pt", "ckpt"))
    if form == "safetensors":
        content = save(_tensors())
        length = struct.unpack_from("<Q", content)[0]
        head = content[8 : 8 + length]
        if draw.random() < 0.5:
            head = hostile.mutated_document(head.strip(), draw, "json")
            return {"weights.safetensors": struct.pack("<Q", len(head)) + head + content[8 + length :]}
        return {"weights.safetensors": perhaps(content, draw, 0.95)}
    value: Any = _tensors()
    if form == "ckpt":
        keys = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "epoch", "global_step")
        value = {name: 3 for name in keys if draw.random() < 0.98} | {"supersimplenet_run": draw.choice("abb")}
    elif draw.random() < 0.3:
        value = draw.choice(({"state_dict": value}, [1], {1: value}, {"a": 1}, print, {"a": {1, 2}}, random.Random(0)))
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=form != "old.pt")
    whole = buffer.getvalue()
    if form == "ckpt":
        other = {"checkpoints/previous.ckpt": perhaps(whole, draw)} if draw.random() < 0.7 else {}
        return {"checkpoints/last.ckpt": perhaps(whole, draw, 0.7)} | other
    files = {
        "weights.pt": _repacked(whole, draw) if form == "pt" and draw.random() < 0.2 else perhaps(whole, draw, 0.9)
    }
    return files | ({"whole.pt": whole} if form == "pt" else {})


def _repacked(content: bytes, draw: random.Random) -> bytes:
    """The same zip with one member compressed, doubled, renamed, or another pickle."""
    way, buffer = draw.randrange(5), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(buffer, "w") as archive:
        names = source.namelist()
        chosen = draw.choice(names)
        for name in names:
            data = source.read(name)
            hit = name == chosen
            if name.endswith(".pkl") and way == 4:
                data = draw.choice((pickle.dumps(print), pickle.dumps([1] * 9, 4), b"\x80\x02]", damaged(data, draw)))
            odd = draw.choice(("../x", "/x", "a\\b", "a:b", "x\0y"))
            info = zipfile.ZipInfo(odd if hit and way == 2 else name)
            info.compress_type = zipfile.ZIP_DEFLATED if hit and way == 0 else zipfile.ZIP_STORED
            archive.writestr(info, data)
            if hit and way == 1:
                archive.writestr(zipfile.ZipInfo(name.upper()), data)
    return buffer.getvalue()


def read_weights(case: Case) -> None:
    import torch

    from supersimplenet.model.weight_files import read_state_dict
    from supersimplenet.training.checkpoints import usable_checkpoint

    if (case.here / "checkpoints").is_dir():
        found = case.attempt(lambda: [usable_checkpoint(case.here, "b")])
        assert found is None or found[0].epochs == 4
        return
    path = next(path for path in sorted(case.here.iterdir()) if path.stem == "weights")
    tensors = case.attempt(read_state_dict, path)
    for name, values in (tensors or {}).items():
        copy = values.clone()
        if (case.here / "whole.pt").is_file() and name in _tensors():
            assert torch.equal(copy, _tensors()[name]), "damaged weights were accepted"


# --- exported files -----------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def exported() -> dict[str, bytes]:
    """A tiny network of each engine, with its seal, and one without."""
    import onnx
    import openvino
    import torch
    from onnx import helper
    from test_runtime import BUNDLE, drawn_network

    from supersimplenet.runtime.bundle import KEY, describe_outputs
    from supersimplenet.runtime.seal import seal_onnx, seal_openvino, seal_zip

    sealed = replace(BUNDLE, sealed=True, outputs={"score": "the score", "map": "the map"})
    describe_outputs("map", whole=True, calibrated=True)
    files = {}
    for name, bundle in (("old.onnx", BUNDLE), ("sealed.onnx", sealed)):
        network = drawn_network()
        helper.set_model_props(network, {KEY: bundle.as_json()})
        content = network.SerializeToString()
        files[name] = seal_onnx(content) if bundle.sealed else content
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.onnx"
        onnx.save(drawn_network(), plain)
        model = openvino.convert_model(plain)
        model.set_rt_info(replace(sealed, engine="openvino").as_json(), [KEY])
        openvino.save_model(model, Path(folder) / "model.xml", compress_to_fp16=False)
        weights = (Path(folder) / "model.bin").read_bytes()
        xml = seal_openvino((Path(folder) / "model.xml").read_bytes(), weights)
        files["pair.xml"], files["pair.bin"] = xml, weights
        pair = Path(folder) / "pair.zip"
        with zipfile.ZipFile(pair, "w") as archive:
            archive.writestr("model.xml", xml)
            archive.writestr("model.bin", weights)
        files["sealed.openvino"] = pair.read_bytes()

        class Drawn(torch.nn.Module):
            def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
                plane = image.float().mean(dim=3)
                return {"map": plane, "score": plane.mean(dim=(1, 2))}

        program = torch.export.export(Drawn(), (torch.zeros(1, *sealed.size_px, 3, dtype=torch.uint8),))
        path = Path(folder) / "drawn.pt2"
        torch.export.save(program, path, extra_files={KEY: replace(sealed, engine="torch").as_json()})
        with zipfile.ZipFile(path, "a") as archive:
            seal_zip(archive)
        files["sealed.pt2"] = path.read_bytes()
    return files


def make_export(draw: random.Random) -> Files:
    """An exported file: whole, damaged, or put together otherwise."""
    files = exported()
    name = draw.choice(("sealed.onnx", "old.onnx", "sealed.openvino", "pair.xml", "sealed.pt2"))
    beside = {"pair.bin": perhaps(files["pair.bin"], draw, 0.3)} if name == "pair.xml" and draw.random() < 0.9 else {}
    if draw.random() < 0.04:
        return {name: files[name]} | beside
    if name == "sealed.openvino" and draw.random() < 0.4:
        return {"odd.openvino": _repacked(files[name], draw)}
    content = damaged(files[name], draw)
    if name == "old.onnx" and draw.random() < 0.1:  # weights in another file
        content = files[name] + b"\x0a" + draw.choice((b"\x08", b"\x88\x80\0")) + b"location\x12\x05other"
    suffix = draw.choice((Path(name).suffix,) * 9 + (".pt", ".onnx", ".bin"))
    return {f"{Path(name).stem}{suffix}": content} | beside


def read_export(case: Case) -> None:
    from supersimplenet.runtime.backends import open_file

    path = max(case.here.iterdir(), key=lambda path: path.suffix != ".bin")
    known = [content for name, content in exported().items() if name != "pair.bin"]
    is_whole = path.read_bytes() in known
    # An unsealed program of torch is torch's own to read, and may run code: only a sealed one is trusted here.
    backend = case.attempt(open_file, path, threads=1, trust=path.stem == "sealed")
    if backend is None:
        return
    beside = path.with_suffix(".bin")
    if path.stem in ("sealed", "pair"):
        assert _meaning(path.read_bytes()) in map(_meaning, known), "damage was accepted"
        assert path.stem != "pair" or not beside.is_file() or beside.read_bytes() == exported()["pair.bin"], (
            "damaged weights were accepted"
        )
    if is_whole and (path.suffix != ".bin"):
        size = backend.bundle.size_px
        pixels = np.full((1, *size, 3), 100, dtype=np.uint8)
        case.attempt(lambda: [backend.prepare(size)])
        found = case.attempt(backend.run, pixels)
        assert np.allclose(found[0], 100, atol=0.5)
        assert case.attempt(backend.outputs, pixels).keys() >= {"map", "score"}
        assert backend.version()
        with backend.worker_threads():
            backend.run(pixels)


def _meaning(content: bytes) -> Any:
    """What of an exported file counts: of a zip, its members' names and contents."""
    if not content.startswith(b"PK"):
        return content.strip()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


@lru_cache(maxsize=1)
def _metadata() -> tuple[bytes, ...]:
    import onnx

    (entry,) = onnx.load(FIXTURES / "tiles.onnx").metadata_props
    return entry.value.encode(), _with_reference(entry.value)


def _with_reference(text: str) -> bytes:
    from supersimplenet.runtime.bundle import encode_png

    values = json.loads(text)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    values["view"] |= {"align": "translation", "reference": "reference.png"}
    values["view_images"]["reference"] = encode_png(pixels)
    return json.dumps(values).encode()


def make_metadata(draw: random.Random) -> Files:
    text = draw.choice(_metadata())
    if draw.random() < 0.2:  # the pictures inside
        values = json.loads(text)
        name = draw.choice(list(values["view_images"]))
        import base64

        image = perhaps(base64.b64decode(values["view_images"][name]), draw)
        other = draw.choice((image, zoo.zoo()[draw.choice(("png-1-uint16", "png-3-uint8", "png-1-uint8"))].content))
        values["view_images"][name] = base64.b64encode(other).decode()
        return {"parts.json": json.dumps(values).encode()}
    return {"parts.json": hostile.mutated_document(text, draw, "json")}


def read_metadata(case: Case) -> None:
    from supersimplenet.runtime.bundle import read_bundle

    text = (case.here / "parts.json").read_bytes().decode(errors="replace")
    bundle = case.attempt(read_bundle, text or None, where=str(case.here / "parts.json"))
    if bundle is None:
        return
    _check_calibration(bundle.calibration)
    assert repr(bundle)
    assert bundle.computation
    bundle.make_postprocessor(bundle.size_px)
    with suppress(SuperSimpleNetError):  # of the metadata: the caller knows the file
        bundle.make_preprocessor(bundle.size_px)


# --- journals -----------------------------------------------------------------------------------------------------

_RUN: dict[str, Any] = {
    **dict.fromkeys(("key", "dataset", "category", "regime"), "a"),
    **dict.fromkeys(("masks", "masks_from")),
    **dict.fromkeys(("seed", "fold", "epochs", "steps"), 1),
    **dict.fromkeys(("train_seconds", "test_seconds"), 1.5),
    "metrics": {"AP-det": 0.5},
    "training_images": {"good": 3},
    "image_size": [64, 64],
    "resumed": False,
    "settings": {"model": {"variant": "jims"}},
    "versions": {"torch": "2"},
}


def make_journal(draw: random.Random) -> Files:
    from supersimplenet.utils.journals import as_line

    if draw.random() < 0.5:
        lines = [json.dumps(_RUN).encode() + b"\n", as_line({**_RUN, "key": "b"})]
        if draw.random() < 0.5:
            lines.append(as_line(hostile.mutated_value(_RUN, draw) or {"key": 1}))
        return {"runs.jsonl": perhaps(b"".join(lines), draw)}
    rows = [{"path": f"{name}.png", "score": index / 3, "error": None} for index, name in enumerate("äbcdef")]
    whole = b"".join(map(as_line, rows))
    identity = json.dumps({"supersimplenet": "0.2.0", "watched": None, "overlays": False}).encode()
    return {
        "predictions.partial.jsonl": perhaps(whole, draw, 0.95),
        "whole.jsonl": whole,
        "predictions.partial.json": perhaps(identity, draw) if draw.random() < 0.8 else draw.randbytes(9),
    }


def read_journal(case: Case) -> None:
    from supersimplenet.benchmark.journal import check_settings, read_lines
    from supersimplenet.prediction.identity import check_identity
    from supersimplenet.utils import journals

    runs, journal = case.here / "runs.jsonl", case.here / "predictions.partial.jsonl"
    if runs.is_file():
        lines = case.attempt(read_lines, runs)
        case.attempt(lambda: [check_settings(runs, lines or [], _RUN["settings"])])
        return
    first = {"first": "path"}
    rows = list(journals.read_journal(case.here / "whole.jsonl", **first))
    content = journal.read_bytes()
    for tidy in (journals.mend_journal, lambda path, **options: journals.cut_journal(path, 2, **options)):
        journal.write_bytes(content)
        case.attempt(lambda: [list(journals.read_journal(journal, **first))])
        kept = case.attempt(tidy, journal, **first)
        left = list(journals.read_journal(journal, **first))
        assert len(left) == kept.rows
        assert all(row in rows for row in left), "a damaged row was kept"
    journals.append_line(journal, rows[0])
    assert list(journals.read_journal(journal, **first))[-1] == rows[0]
    identity = {"supersimplenet": "0.2.0", "watched": None, "overlays": False, "list_all": False}
    case.attempt(lambda: [check_identity(journal, identity, model=case.here)])


TARGETS = {
    "models": Target(make_model, read_model, spare=True),
    "folders": Target(make_model, read_model_files),
    "documents": Target(make_document, read_document),
    "weights": Target(make_weights, read_weights),
    "exports": Target(make_export, read_export),
    "metadata": Target(make_metadata, read_metadata),
    "journals": Target(make_journal, read_journal),
}
