"""How wide the smallest defects are, and whether the network sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from supersimplenet.cli.main import main
from supersimplenet.datasets.defect_sizes import (
    DefectSize,
    NetworkInput,
    describe_limit,
    describe_smallest,
    fitting_input,
    how_seen,
    region_widths,
    smallest_defect,
)


def test_the_width_of_a_region_is_that_of_its_widest_place():
    mask = np.zeros((60, 80), dtype=bool)
    mask[5:6, 5:40] = True  # a line of 1 px
    mask[10:15, 5:60] = True  # a bar of 5 px
    mask[20:26, 5:60] = True  # 6 px
    rows, columns = np.mgrid[:60, :80]
    mask |= (rows - 45) ** 2 + (columns - 40) ** 2 <= 10.2**2  # a dot of 21 px
    for step in range(8):
        mask[30 + step, 60 + step] = True  # a diagonal: one region, 1 px wide
    widths = region_widths(mask)
    assert len(widths) == 5
    assert sorted(widths) == pytest.approx([1.0, 1.0, 5.0, 6.0, 21.0], abs=1.0)
    assert region_widths(np.zeros((4, 4), dtype=bool)) == []


def test_the_smallest_is_that_of_the_network_but_for_slips_of_the_brush():
    wide, tall = DefectSize(width_px=9.0, image_px=(480, 640)), DefectSize(width_px=10.0, image_px=(960, 640))
    assert wide.at(NetworkInput()) == pytest.approx(3.6)  # 256 of 640
    assert tall.at(NetworkInput((128, 128))) == pytest.approx(10 * 128 / 960)
    assert wide.at(NetworkInput(fit="tiles", scale=0.5)) == 4.5
    assert smallest_defect([wide, tall], NetworkInput()) == tall
    speck = DefectSize(width_px=1.0, image_px=(640, 640))
    assert smallest_defect([speck, *[wide] * 18], NetworkInput()) == speck
    assert smallest_defect([speck, *[wide] * 19], NetworkInput()) == wide  # one of twenty
    assert smallest_defect([], NetworkInput()) is None


def test_what_is_said_of_it():
    assert [how_seen(width) for width in (1.9, 2.0, 4.9, 5.0)] == ["not seen", "hard to see", "hard to see", "seen"]
    small = DefectSize(width_px=9.0, image_px=(640, 640))
    assert describe_smallest(small, NetworkInput((128, 128))) == (
        "smallest defects: 9 px wide of 640x640; at 128x128 that is 1.8 px, not seen; "
        "--model.image_size '[384,384]' shows them"
    )
    assert fitting_input(small) == NetworkInput((384, 384))
    assert describe_smallest(small, NetworkInput((384, 384))).endswith("at 384x384 that is 5.4 px, seen")
    tiny = DefectSize(width_px=6.0, image_px=(2000, 3000))
    assert describe_smallest(tiny, NetworkInput()).endswith("0.5 px, not seen; --view.fit tiles shows them")
    assert describe_smallest(tiny, NetworkInput(fit="tiles")).endswith("in tiles that is 6.0 px, seen")
    dust = DefectSize(width_px=1.5, image_px=(2000, 3000))
    assert describe_smallest(dust, NetworkInput()).endswith("photograph from closer")
    assert describe_limit([(480, 640)] * 2, NetworkInput()) == (
        "of images of 480x640, at 256x256, defects are seen from some 12 px of width on, and hardly any below 5 px"
    )
    sizes = [(2000, 3000), (480, 640), (100, 100)]
    assert describe_limit(sizes, NetworkInput()).startswith("of images of 480x640 (median), at 256x256, defects")
    measured = DefectSize(width_px=3.97214, image_px=(320, 320))
    assert describe_smallest(measured, NetworkInput()).startswith("smallest defects: 4 px wide of 320x320")


@pytest.fixture
def parts(tmp_path, monkeypatch) -> Path:
    """Photographs of 320x320, eight of them with a dot of 4 px and its mask."""
    monkeypatch.chdir(tmp_path)
    for kind, count in (("good", 10), ("bad", 8)):
        (tmp_path / "parts" / kind).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng([number, count]).integers(90, 160, (320, 320), dtype=np.uint8)
            if kind == "bad":
                mask = np.zeros((320, 320), dtype=np.uint8)
                mask[100:104, 60:64] = 255
                pixels[mask > 0] = 0
                (tmp_path / "parts" / "masks").mkdir(exist_ok=True)
                Image.fromarray(mask).save(tmp_path / "parts" / "masks" / f"{number}.png")
            Image.fromarray(pixels).save(tmp_path / "parts" / kind / f"{number}.png")
    return tmp_path / "parts"


def test_the_size_follows_the_defects(parts, capsys):
    with pytest.raises(SystemExit):
        main(["train", "parts", "--print_config"])
    said = capsys.readouterr()
    assert "smallest defects: 3.5 px wide of 320x320; at 256x256 that is 2.8 px, hard to see" in said.err
    assert "--model.image_size=[512,512]" in said.err
    assert "image_size:\n  - 512" in said.out
    with pytest.raises(SystemExit):
        main(["train", "parts", "--model.image_size", "[128,128]", "--print_config"])
    assert "image_size:\n  - 128" in capsys.readouterr().out  # what is typed wins
    assert main(["data", "check", "parts"]) == 0
    assert "at 256x256 that is 2.8 px, hard to see" in capsys.readouterr().out
