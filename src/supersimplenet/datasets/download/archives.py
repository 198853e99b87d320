"""List of the published datasets: publisher, address, licence and contents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

ON_REQUEST = "SensumSODF"
REQUEST_PAGE = "https://www.sensum.eu/sensumsodf-dataset/"
SPLITS_PAGE = "https://github.com/blaz-r/SuperSimpleNet"  # its README links to the authors' split files of SensumSODF


class Counts(NamedTuple):
    """Numbers of images of a dataset or of one category."""

    train_good: int
    train_bad: int
    test_good: int
    test_bad: int

    def __str__(self) -> str:
        train = f"{self.train_good:,} good, {self.train_bad:,} bad"
        return f"train {train}; test {self.test_good:,} good, {self.test_bad:,} bad"


@dataclass(frozen=True, kw_only=True)
class Archive:
    """The archive of a published dataset.

    Attributes:
        name: name of the dataset's class in this package.
        page: web page where the publisher describes and offers the dataset; it stays valid longer than ``url``.
        url: address of the archive.
        file: file name of the archive; the suffix gives its format.
        size: size of the archive in bytes.
        checksum: algorithm and hexadecimal digits.
        unpacked_at_most: largest allowed size when unpacked, in bytes.
        licence: name of the licence and the uses that it forbids.
        counts: numbers of images by category; a category is a folder at the top of the archive. The only key is ""
            where there are no categories.
        layout: other files or folders at the top of the archive; without them the dataset counts as missing.
    """

    name: str
    page: str
    url: str
    file: str
    size: int
    checksum: str
    unpacked_at_most: int
    licence: str
    counts: Mapping[str, Counts]
    layout: tuple[str, ...] = ()


_MVTEC_AD = Archive(
    name="MVTecAD",
    page="https://www.mvtec.com/research-teaching/datasets/mvtec-ad",
    # MVTec sometimes changes the address of its share: both earlier addresses in anomalib answer 404 (anomalib's issues
    # 3121 and 3608). Others have since fetched a file of this size and checksum from this address; anomalib's code and
    # several public audits state the checksum.
    url="https://www.mydrive.ch/shares/150996/b52ecdcbf521176e9db9c731f2304b27/"
    "download/420938113-1629960298/mvtec_anomaly_detection.tar.xz",
    file="mvtec_anomaly_detection.tar.xz",
    size=5_264_982_680,
    checksum="sha256:cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
    unpacked_at_most=8_000_000_000,
    licence="CC BY-NC-SA 4.0: no commercial use",
    counts={  # table 1 of the paper: 3629 training and 1725 test images
        "bottle": Counts(209, 0, 20, 63),
        "cable": Counts(224, 0, 58, 92),
        "capsule": Counts(219, 0, 23, 109),
        "carpet": Counts(280, 0, 28, 89),
        "grid": Counts(264, 0, 21, 57),
        "hazelnut": Counts(391, 0, 40, 70),
        "leather": Counts(245, 0, 32, 92),
        "metal_nut": Counts(220, 0, 22, 93),
        "pill": Counts(267, 0, 26, 141),
        "screw": Counts(320, 0, 41, 119),
        "tile": Counts(230, 0, 33, 84),
        "toothbrush": Counts(60, 0, 12, 30),
        "transistor": Counts(213, 0, 60, 40),
        "wood": Counts(247, 0, 19, 60),
        "zipper": Counts(240, 0, 32, 119),
    },
)
_VISA = Archive(
    name="VisA",
    page="https://github.com/amazon-science/spot-diff",
    # The page above and the registry of open data on AWS (registry.opendata.aws/visa) name the bucket; anomalib and
    # several public audits state the file's name, size and checksum. The licence is in the file LICENSE-DATASET of that
    # page; anomalib and others state a wrong licence.
    url="https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",
    file="VisA_20220922.tar",
    size=1_929_840_640,
    checksum="sha256:2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
    unpacked_at_most=2_500_000_000,
    licence="CC BY 4.0",
    counts={  # the page's table (9,621 normal, 1,200 anomalous), split by split_csv/1cls.csv
        "candle": Counts(900, 0, 100, 100),
        "capsules": Counts(542, 0, 60, 100),
        "cashew": Counts(450, 0, 50, 100),
        "chewinggum": Counts(453, 0, 50, 100),
        "fryum": Counts(450, 0, 50, 100),
        "macaroni1": Counts(900, 0, 100, 100),
        "macaroni2": Counts(900, 0, 100, 100),
        "pcb1": Counts(904, 0, 100, 100),
        "pcb2": Counts(901, 0, 100, 100),
        "pcb3": Counts(905, 0, 101, 100),
        "pcb4": Counts(904, 0, 101, 100),
        "pipe_fryum": Counts(450, 0, 50, 100),
    },
    layout=("split_csv",),
)
_KSDD2 = Archive(
    name="KSDD2",
    page="https://www.vicos.si/resources/kolektorsdd2/",
    # The address is from the authors' code (SuperSimpleNet, mixed-segdec-net-comind2021); it leads to data.vicos.si.
    # The authors' code states the checksum, public audits the size. The archive holds the five split_weakly_*.pyb, and
    # a stray copy of one image and its mask, train/10301 (copy).png, which does not belong to the dataset.
    url="https://go.vicos.si/kolektorsdd2",
    file="KolektorSDD2.zip",
    size=853_126_555,
    checksum="md5:1ed0f628122776ace4965afa30dfe316",
    unpacked_at_most=1_500_000_000,
    licence="CC BY-NC-SA 4.0: no commercial use",
    counts={"": Counts(2085, 246, 894, 110)},
    layout=("train", "test"),
)
ARCHIVES: dict[str, Archive] = {entry.name: entry for entry in (_MVTEC_AD, _VISA, _KSDD2)}
