"""Export a model folder as one file: trace, convert, quantize, verify. Only a verified file is kept."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import timm

from supersimplenet.errors import ConfigError, OutputError
from supersimplenet.export.formats import convert
from supersimplenet.export.graph import at_size, score_inputs, step_px, trace, trace_scores
from supersimplenet.export.images import quantization_images, verification_images
from supersimplenet.export.quantization import quantize
from supersimplenet.export.recalibration import recalibrate
from supersimplenet.export.verification import TOLERANCES, Tolerance, verify
from supersimplenet.inference.config import WEIGHTS_FILE
from supersimplenet.inference.detector import Detector, warn_of_few_steps
from supersimplenet.inference.model_folder import hash_weights, load_model, load_preprocessor, read_calibration
from supersimplenet.inference.record import stated_hash
from supersimplenet.model.config import SMALLEST_SIDE_PX
from supersimplenet.model.folded import output_names_of
from supersimplenet.model.layers import require_fitting_size
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.preprocessing.loading import OnError
from supersimplenet.preprocessing.preprocessor import Preprocessor
from supersimplenet.preprocessing.resizing import Resize
from supersimplenet.runtime import Inspector
from supersimplenet.runtime.bundle import (
    Bundle,
    Certificate,
    FileFormat,
    FilePrecision,
    ViewImage,
    describe_outputs,
    encode_png,
    require_opset,
    require_precision,
)
from supersimplenet.runtime.file_kinds import require_suffix
from supersimplenet.utils.console import console
from supersimplenet.utils.files import Paths, as_paths, to_disk
from supersimplenet.utils.formatting import shown_size
from supersimplenet.utils.locks import writing_file
from supersimplenet.utils.serialization import to_plain

_VERSIONED = (
    "supersimplenet",
    "torch",
    "timm",
    "numpy",
    "pillow",
    "simplejpeg",
    "onnx",
    "onnxscript",
    "openvino",
    "nncf",
)
_RESIZES: dict[Resize, str] = {
    "antialiased": "Pillow's antialiased bilinear resize",
    "bilinear": "OpenCV's bilinear resize (cv2.INTER_LINEAR, not antialiased)",
}


def export_model(
    model: str | Path,
    output: str | Path,
    *,
    file_format: FileFormat,
    precision: FilePrecision = "fp32",
    size_px: tuple[int, int] | None = None,
    dynamic: bool = False,
    max_drop: float = 0.01,
    images: Paths = (),
    tolerance: Tolerance | None = None,
    opset: int | None = None,
    on_error: OnError = "stop",
) -> Bundle:
    """Export a model folder as one file, and verify the file against the model.

    Args:
        model: the model folder.
        output: the file to write; an earlier file is replaced only after the new one has passed the verification.
        file_format: ``onnx``, ``openvino`` or ``torch``.
        precision: ``fp32``; ``fp16``: weights are kept in 16 bits; ``bf16``: computed in bfloat16 where the CPU can;
            ``int8``: quantised.
        size_px: (height, width) of the file's input; by default that of the training. The thresholds hold at the size
            of the training only.
        dynamic: leave height and width open.
        max_drop: for int8: largest loss of accuracy; see `quantize`.
        images: image files or folders, one or several, for the verification, and for int8; by default those of the
            model's own dataset.
        tolerance: tolerance of the verification; by default the one of the precision, see `TOLERANCES`.
        opset: version of ONNX's operators, from 18 on, for an engine that does not read torch's default.
        on_error: whether an unreadable image stops the export or is left out.

    Returns:
        The file's metadata, which include the certificate of the verification.

    Raises:
        SuperSimpleNetError: the subclass names the cause; no file is written then.
    """
    model, output, images = Path(model), Path(output), as_paths(images)
    require_precision(file_format, precision)
    require_opset(file_format, opset)
    require_suffix(output, file_format)
    if output.is_dir():
        raise OutputError(f"{output}: a folder; name the file to write, such as {output / 'model'}.{file_format}")
    if dynamic and size_px is not None:
        raise ConfigError("size and dynamic: a file has one size or leaves it open; give one of the two")
    detector, trained_size_px = _detector_at(model, size_px, dynamic=dynamic)
    postprocessor, preprocessor = detector.postprocessor, detector.preprocessor
    with writing_file(output), tempfile.TemporaryDirectory() as drawn:
        compared, source = verification_images(
            model, detector.record, images, Path(drawn), preprocessor, on_error=on_error
        )
        program = trace(detector.network, precision=precision, dynamic=dynamic, masked=not preprocessor.is_plain)
        artifact = convert(program, file_format, opset=opset)
        drop, drop_of = None, None
        if precision == "int8":
            chosen = quantization_images(model, detector.record, images, preprocessor, on_error=on_error)
            artifact.model, drop, drop_of = quantize(
                artifact.model,
                file_format,
                chosen,
                names=output_names_of(detector.network),
                postprocessor=postprocessor,
                preprocessor=preprocessor,
                max_drop=max_drop,
            )
        bundle = _bundle(model, detector, file_format, precision, trained_size_px=trained_size_px, dynamic=dynamic)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as unfinished:
            file = Path(unfinished) / output.name
            calibration = postprocessor.calibration
            if calibration is not None and not replace(calibration, applied_to=bundle.computation).holds:
                artifact.write(file, bundle)
                again = recalibrate(
                    model, detector.record, calibration, Inspector.load(file, trust=True), on_error=on_error
                )
                if again is not None:
                    bundle = replace(bundle, calibration=again[0], recalibrated=again[1])
            artifact.append(
                trace_scores(
                    detector.network,
                    bundle.make_postprocessor(bundle.size_px),
                    gives_verdict=_sees_whole(preprocessor, dynamic=dynamic),
                    dynamic=dynamic,
                    masked=not preprocessor.is_plain,
                ),
                score_inputs(detector.network, masked=not preprocessor.is_plain),
            )
            artifact.write(file, bundle)
            certificate = _verified(
                file, detector, compared, source, tolerance or TOLERANCES[precision], dynamic=dynamic
            )
            bundle = replace(bundle, certificate=replace(certificate, measured_drop=drop, drop_of=drop_of))
            artifact.write(file, bundle)
            to_disk(file)
            file.replace(output)
            to_disk(output.parent)
    return bundle


def _detector_at(model: Path, size_px: tuple[int, int] | None, *, dynamic: bool) -> tuple[Detector, tuple[int, int]]:
    """Return the model's detector at the size of the export, on the CPU, and the size of the training.

    At another size the detector is not calibrated, which is printed.
    """
    network, record = load_model(model)
    warn_of_few_steps(model, record)
    trained_size_px = network.config.size_px
    preprocessor = load_preprocessor(model, record, network.config)
    size_px = trained_size_px if size_px is None else size_px
    _check_size(network, size_px, dynamic=dynamic)
    if dynamic and not preprocessor.is_plain:
        raise ConfigError("dynamic: a model with a view of its own (view.fit, view.roi, view.align) has one size")
    network = at_size(network, size_px)
    preprocessor = Preprocessor(
        preprocessor.config,
        size_px=size_px,
        reading=preprocessor.reading,
        strides=network.config.strides,
        roi=preprocessor.roi,
        reference=None if preprocessor.aligner is None else preprocessor.aligner.reference,
    )
    calibration = read_calibration(model, weights_sha256=stated_hash(record, WEIGHTS_FILE))
    detector = Detector.of(network, record, calibration, preprocessor=preprocessor, device="cpu")
    if size_px != trained_size_px and detector.postprocessor.zones is not None:
        raise ConfigError(
            f"size: {shown_size(size_px)}; zones decide, and their areas are pixels at {shown_size(trained_size_px)}; "
            "export at that size, or calibrate with another --image-score, which drops the zones"
        )
    if size_px != trained_size_px and detector.postprocessor.calibration is not None:
        console().print(
            f"not calibrated at this size: the thresholds hold at {shown_size(trained_size_px)} alone", style="bold red"
        )
        detector.calibration = None
    return detector, trained_size_px


def _bundle(
    model: Path,
    detector: Detector,
    file_format: FileFormat,
    precision: FilePrecision,
    *,
    trained_size_px: tuple[int, int],
    dynamic: bool,
) -> Bundle:
    """Return the metadata of the file, but for the certificate."""
    network, preprocessor, postprocessor = detector.network, detector.preprocessor, detector.postprocessor
    calibration = postprocessor.calibration
    return Bundle(
        engine=file_format,
        precision=precision,
        size_px=detector.image_size,
        trained_size_px=trained_size_px,
        step_px=step_px(network) if dynamic else None,
        strides=network.config.strides,
        view=_named(preprocessor),
        reading=preprocessor.reading,
        view_images=_view_images(preprocessor),
        masked=not preprocessor.is_plain,
        preprocessing=_preprocessing(network, preprocessor),
        outputs=describe_outputs(
            postprocessor.image_score,
            whole=_sees_whole(preprocessor, dynamic=dynamic),
            calibrated=postprocessor.calibration is not None,
            heads=network.heads is not None,
            subspace=network.subspace is not None,
            shown=postprocessor.score_scale.shown_weight > 0,
        ),
        image_score=postprocessor.image_score,
        score_scale=postprocessor.score_scale,
        calibration=None if calibration is None else replace(calibration, applied_to=None),
        backbone=_backbone(network, detector.record),
        weights_sha256=hash_weights(model),
        versions=_versions(),
        config=detector.record,
        date=date.today().isoformat(),
        sealed=True,
    )


def _verified(
    file: Path,
    detector: Detector,
    images: Sequence[Path],
    source: str,
    tolerance: Tolerance,
    *,
    dynamic: bool,
) -> Certificate:
    if dynamic:  # verify another size first, to prove that the size is open
        (height, width), step = detector.image_size, step_px(detector.network)
        size_px = (height + step, width + 2 * step)
        other = Detector(
            at_size(detector.network, size_px),
            calibration=detector.calibration,
            image_score=detector.image_score,
            score_scale=detector.score_scale,
            preprocessor=Preprocessor(
                detector.preprocessor.config, size_px=size_px, reading=detector.preprocessor.reading
            ),
            device="cpu",
        ).without_thresholds(detector.image_score, detector.postprocessor.zones)  # a file has none at another size
        verify(file, images, other.predict([*images]), tolerance=tolerance, source=source, size_px=size_px)
    return verify(file, images, detector.predict([*images]), tolerance=tolerance, source=source)


def _check_size(network: SuperSimpleNet, size_px: tuple[int, int], *, dynamic: bool) -> None:
    least = SMALLEST_SIDE_PX
    if min(size_px) < least:
        raise ConfigError(f"size: {size_px[0]}x{size_px[1]} px; each side must be at least {least} px")
    if network.backbone.origin != "module":
        require_fitting_size(replace(network.config, image_size=size_px))
    step = step_px(network)
    if dynamic and (size_px[0] % step or size_px[1] % step):
        raise ConfigError(
            f"dynamic: sides must be multiples of {step} px, and the model's own are {size_px[0]}x{size_px[1]}; "
            "export at that size, without --dynamic"
        )


def _sees_whole(preprocessor: Preprocessor, *, dynamic: bool) -> bool:
    """Return whether the graph sees whole images at the size of the training, so that it can give verdicts."""
    return not dynamic and preprocessor.config.fit != "tiles"


def _named(preprocessor: Preprocessor) -> dict[str, Any]:
    """Return the settings of the view. The bundle holds the view's files, so only the files' names are kept."""
    config = preprocessor.config
    roi, reference = (None if path is None else Path(path.name) for path in (config.roi, config.reference))
    return to_plain(replace(config, roi=roi, reference=reference))  # type: ignore[no-any-return]


def _view_images(preprocessor: Preprocessor) -> dict[ViewImage, str]:
    images: dict[ViewImage, str] = {}
    if preprocessor.roi is not None:
        images["roi"] = encode_png(preprocessor.roi.astype(np.uint8) * np.uint8(255))
    if preprocessor.aligner is not None:
        images["reference"] = encode_png(preprocessor.aligner.reference)
    return images


def _preprocessing(network: SuperSimpleNet, preprocessor: Preprocessor) -> dict[str, Any]:
    return {
        "input": "image: (B, H, W, 3) uint8, RGB",
        "before_the_graph": f"EXIF orientation, {preprocessor.reading.bit_depth} bits to 8, alpha over black, grey to "
        f"RGB; then {_RESIZES[preprocessor.config.resize]} on 8 bits, aspect not kept",
        "inside_the_graph": "(x / 255 - mean) / std",
        "mean": network.backbone.mean.flatten().tolist(),
        "std": network.backbone.std.flatten().tolist(),
    }


def _backbone(network: SuperSimpleNet, record: dict[str, Any]) -> dict[str, Any]:
    name, origin = network.config.backbone, network.backbone.origin
    if origin in ("package", "extra"):
        licence = "Apache-2.0"
    else:
        published = timm.get_pretrained_cfg(name) if origin == "hub" else None
        licence = getattr(published, "license", None) or "unknown"
    return {"name": name, "origin": origin, "sha256": record["backbone"]["sha256"], "licence": licence}


def _versions() -> dict[str, str]:
    installed = {distribution.name.lower(): distribution.version for distribution in distributions()}
    return {"python": platform.python_version()} | {name: installed[name] for name in _VERSIONED if name in installed}
