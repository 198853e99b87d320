"""Import of the weights of the authors' code and of anomalib. No object in their files is unpickled."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from torch import Tensor

from supersimplenet.errors import BackboneError, ModelFolderError, OutputError
from supersimplenet.inference.model_folder import save_model
from supersimplenet.model.config import ModelConfig
from supersimplenet.model.heads import Heads
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.model.weight_files import read_state_dict
from supersimplenet.preprocessing.preprocessor import ViewConfig
from supersimplenet.preprocessing.resizing import Resize
from supersimplenet.utils.locks import is_unused, writing_into
from supersimplenet.utils.serialization import to_plain

Source = Literal["official", "anomalib"]
# Name of each of our layers in the other implementations.
_LAYERS: dict[Source, dict[str, str]] = {
    "official": {
        "adaptor": "feature_adaptor.projection",
        "hidden": "discriminator.seg.0",
        "hidden_norm": "discriminator.seg.1",
        "map": "discriminator.seg.3",
        "conv": "discriminator.dec_head.0",
        "conv_norm": "discriminator.dec_head.1",
        "score": "discriminator.fc_score",
    },
    "anomalib": {
        "adaptor": "adaptor.projection",
        "hidden": "segdec.seg_head.0",
        "hidden_norm": "segdec.seg_head.1",
        "map": "segdec.seg_head.3",
        "conv": "segdec.cls_conv.0",
        "conv_norm": "segdec.cls_conv.1",
        "score": "segdec.cls_fc",
    },
}
_ALIGN_CORNERS = {"official": True, "anomalib": False}
_RESIZE: dict[Source, Resize] = {"official": "bilinear", "anomalib": "antialiased"}
_PREFIX = "model."  # of the names in a Lightning checkpoint


def import_weights(file: Path, *, source: Source, config: ModelConfig, output: Path) -> SuperSimpleNet:
    """Turn a file of another implementation into a model folder.

    Args:
        file: the authors' ``weights.pt``, or a checkpoint or state dict of anomalib.
        source: the implementation that wrote the file; decides the names of the weights, ``align_corners`` and the
            resize of images.
        config: the architecture; its backbone's weights are not taken from the file.
        output: the model folder to write.

    Returns:
        The network, in eval mode.

    Raises:
        ModelFolderError: the file lacks weights, or they belong to another architecture.
        OutputError: ``output`` exists already and is not an empty folder.
        BackboneError: the backbone's weights cannot be loaded.
    """
    if not is_unused(output):  # asked here for a quick answer, and again when nobody else writes there
        raise _not_empty(output)
    try:
        tensors = read_state_dict(file)
    except BackboneError as error:
        raise ModelFolderError(str(error)) from error
    network = SuperSimpleNet(dataclasses.replace(config, align_corners=_ALIGN_CORNERS[source]))
    heads = network.trained_heads
    heads.load_state_dict(_translate(tensors, heads, source, file))
    view = to_plain(ViewConfig(resize=_RESIZE[source]))
    with writing_into(output):
        if not is_unused(output):
            raise _not_empty(output)
        save_model(output, network, {"view": view, "imported": {"source": source, "file": file.name}})
    return network.eval()


def _not_empty(output: Path) -> OutputError:
    return OutputError(f"{output}: is not an empty folder; choose another --output")


def _translate(tensors: Mapping[str, Tensor], heads: Heads, source: Source, file: Path) -> dict[str, Tensor]:
    """Return the heads' state dict, with each weight found by its name in ``source``; other weights are ignored."""
    available = {name.removeprefix(_PREFIX): value for name, value in tensors.items()}
    found, missing, misfits = {}, [], []
    for name, wanted in heads.state_dict().items():
        layer, parameter = name.split(".")
        theirs = f"{_LAYERS[source][layer]}.{parameter}"
        value = available.get(theirs)
        if value is None:
            missing.append(theirs)
        elif value.numel() != wanted.numel() or value.shape[:2] != wanted.shape[:2]:
            misfits.append(f"{theirs} {tuple(value.shape)} where {tuple(wanted.shape)} is needed")
        elif not value.is_floating_point() and wanted.is_floating_point():
            misfits.append(f"{theirs} is of the type {value.dtype}")
        elif value.is_floating_point() and not value.isfinite().all():
            raise ModelFolderError(f"{file}: the weights {theirs} are not all finite; fetch the file again")
        else:
            found[name] = value.reshape(wanted.shape).to(wanted.dtype)  # 1x1 convolutions there are matrices here
    if missing:
        others = [kind for kind in _LAYERS if kind != source and f"{_LAYERS[kind]['adaptor']}.weight" in available]
        hint = f"; it looks like --source {others[0]}" if others else ""
        raise ModelFolderError(
            f"{file}: lacks {len(missing)} of the {len(heads.state_dict())} weights of --source {source}: "
            f"{', '.join(missing)}{hint}"
        )
    if misfits:
        raise ModelFolderError(
            f"{file}: weights of another architecture: {'; '.join(misfits)}; "
            "name the backbone it was trained with: --model.backbone NAME"
        )
    return found
