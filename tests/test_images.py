"""Every kind of file and array that reaches the one way of reading an image, by the values that come out."""

import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from supersimplenet.errors import ConfigError, DataError, ImageError
from supersimplenet.preprocessing.decoding import image_size
from supersimplenet.preprocessing.image_file import Limits
from supersimplenet.preprocessing.images import prepare_pixels, read_image, read_mask
from supersimplenet.preprocessing.listing import IMAGE_SUFFIXES, list_images, natural_key

CORNER = (255, 255, 255)


def noise(height: int, width: int, channels: int = 3, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def saved(pixels: np.ndarray, path: Path, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def png_header(width: int, height: int) -> bytes:
    """A PNG that states a size and holds no pixel."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = b"IDAT"
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, end)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff(bits: int, values: list[int], *, sample_format: int = 1, order: str = "<") -> bytes:
    """An uncompressed grey TIFF of one row; Pillow itself cannot write all of these."""
    if bits == 12:
        row = int("".join(f"{v:012b}" for v in values), 2).to_bytes(len(values) * 12 // 8, "big")
    else:
        row = struct.pack(f"{order}{len(values)}{ {16: 'H', 32: 'I'}[bits] }", *values)
    tags = [(256, len(values)), (257, 1), (258, bits), (259, 1), (262, 1), (273, 8)]
    tags += [(277, 1), (278, 1), (279, len(row)), (339, sample_format)]
    entries = b"".join(struct.pack(order + "HHI", tag, 4, 1) + struct.pack(order + "I", v) for tag, v in tags)
    magic = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(row))
    return magic + row + struct.pack(order + "H", len(tags)) + entries + bytes(4)


# --- modes and formats -------------------------------------------------------------------------------------------


def test_rgb_png_is_read_unchanged(tmp_path):
    pixels = noise(5, 7)
    read = read_image(saved(pixels, tmp_path / "a.png"))
    np.testing.assert_array_equal(read, pixels)
    assert read.dtype == np.uint8
    assert read.flags.writeable  # torch warns of arrays that are not


@pytest.mark.parametrize("suffix", [".bmp", ".png", ".ppm", ".tif", ".jp2", ".webp"])
def test_lossless_formats_keep_every_value(tmp_path, suffix):
    pixels = noise(16, 24)
    options = {".webp": {"lossless": True}, ".jp2": {"irreversible": False}}.get(suffix, {})
    np.testing.assert_array_equal(read_image(saved(pixels, tmp_path / f"a{suffix}", **options)), pixels)


def test_grey_is_repeated_in_three_channels(tmp_path):
    grey = noise(5, 7, 1)[:, :, 0]
    np.testing.assert_array_equal(read_image(saved(grey, tmp_path / "a.png")), np.stack([grey] * 3, axis=2))


def test_one_bit_is_black_and_white(tmp_path):
    path = saved(np.array([[False, True], [True, False]]), tmp_path / "a.png")
    with Image.open(path) as image:
        assert image.mode == "1"
    np.testing.assert_array_equal(read_image(path)[:, :, 1], [[0, 255], [255, 0]])


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (128, 0), (129, 1), (257, 1), (32767, 127), (65535, 255)])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bits_are_rounded_to_eight(tmp_path, suffix, value, expected):
    # 65535 = 255 x 257, so 128 rounds down (0.498) and 129 up (0.502)
    path = tmp_path / f"a{suffix}"
    if suffix == ".pgm":
        path.write_bytes(b"P5 1 1 65535\n" + value.to_bytes(2, "big"))
    else:
        saved(np.array([[value]], dtype=np.uint16), path)
    assert read_image(path).tolist() == [[[expected] * 3]]


def test_big_endian_sixteen_bit_tiff(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(16, [0, 257, 65535], order=">"))
    with Image.open(path) as image:
        assert image.mode == "I;16B"
    assert read_image(path)[0, :, 0].tolist() == [0, 1, 255]


def test_twelve_bit_tiff_uses_its_own_range(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(12, [0, 16, 2048, 4095]))
    assert read_image(path)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_sixteen_bits_are_scaled_before_the_resize(tmp_path):
    wide = np.random.default_rng(0).integers(0, 65536, (12, 9), dtype=np.uint16)
    narrow = ((wide.astype(np.uint32) + 128) // 257).astype(np.uint8)
    of_wide = read_image(saved(wide, tmp_path / "wide.png"), size_px=(4, 5))
    np.testing.assert_array_equal(of_wide, read_image(saved(narrow, tmp_path / "narrow.png"), size_px=(4, 5)))


@pytest.mark.parametrize(("bits", "sample_format", "kind"), [(32, 3, "floating-point"), (32, 1, "32-bit integer")])
def test_pixels_without_a_known_range_are_refused(tmp_path, bits, sample_format, kind):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(bits, [0, 1], sample_format=sample_format))
    with pytest.raises(ImageError, match=rf"a\.tif: .*{kind} pixels, whose range is unknown; scale them and save as 8"):
        read_image(path)


def test_alpha_is_laid_over_black(tmp_path):
    pixels = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 51, 128]]], dtype=np.uint8)
    read = read_image(saved(pixels, tmp_path / "a.png"))
    assert read.tolist() == [[[200, 100, 50], [0, 0, 0], [100, 50, 26]]]  # 200 x 128 / 255 = 100.4; 51 x ... = 25.6


def test_grey_with_alpha_is_laid_over_black(tmp_path):
    image = Image.merge("LA", [Image.fromarray(np.array([[200, 200]], np.uint8)) for _ in range(2)])
    image.putalpha(Image.fromarray(np.array([[255, 0]], np.uint8)))
    image.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[[200] * 3, [0] * 3]]


def test_palette_gives_its_colours(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255])])
def test_palette_with_transparency_is_laid_over_black(tmp_path, transparency):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.save(tmp_path / "a.png", transparency=transparency)
    assert read_image(tmp_path / "a.png").tolist() == [[[10, 20, 30], [0, 0, 0], [70, 80, 90]]]


def test_cmyk_jpeg_becomes_rgb(tmp_path):
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[:, :, 1] = 255  # magenta
    Image.frombytes("CMYK", (16, 16), ink.tobytes()).save(tmp_path / "a.jpg", quality=100)
    # A JPEG at quality 100 keeps a flat colour to a level or two.
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg").reshape(-1, 3).mean(axis=0), [255, 0, 255], atol=2)


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.tif", "a.webp", "a.png"):
        options = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert read_image(tmp_path / name)[1, 1].tolist() == [255, 0, 0]


# --- orientation and size ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("orientation", "corner"),
    # where the stored top left corner belongs, as (row, column) of the upright picture; EXIF 2.3, tag 0x0112
    [(1, (0, 0)), (2, (0, -1)), (3, (-1, -1)), (4, (-1, 0)), (5, (0, 0)), (6, (0, -1)), (7, (-1, -1)), (8, (-1, 0))],
)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_orientation_puts_the_corner_where_it_belongs(tmp_path, orientation, corner, suffix):
    stored = np.zeros((2, 4, 3), np.uint8)
    stored[0, 0] = CORNER
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {".webp": {"lossless": True}, ".jpg": {"quality": 100, "subsampling": 0}}.get(suffix, {})
    path = saved(stored, tmp_path / f"a{suffix}", exif=exif, **options)

    upright = read_image(path)
    assert upright.shape == ((4, 2, 3) if orientation >= 5 else (2, 4, 3))
    assert upright[corner].min() > 200  # a JPEG at quality 100 rings by a few levels
    assert (upright.max(axis=2) > 100).sum() == 1
    assert image_size(path) == upright.shape[:2]


def test_orientation_agrees_with_pillow_on_noise(tmp_path):
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = saved(noise(6, 9), tmp_path / "a.png", exif=exif)
        with Image.open(path) as image:
            np.testing.assert_array_equal(read_image(path), np.asarray(ImageOps.exif_transpose(image)))


def test_image_size_decodes_nothing(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png_header(300, 200))  # no pixel behind the header
    assert image_size(path) == (200, 300)
    with pytest.raises(ImageError, match=r"a\.png"):
        read_image(path)


def test_size_px_is_height_then_width_and_the_filter_is_antialiased(tmp_path):
    pixels = noise(40, 60)
    path = saved(pixels, tmp_path / "a.png")
    read = read_image(path, size_px=(10, 20))
    assert read.shape == (10, 20, 3)
    expected = np.asarray(Image.fromarray(pixels).resize((20, 10), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(read, expected)


def test_halving_weighs_four_neighbours(tmp_path):
    # Antialiased bilinear by 2: weights 1, 3, 3, 1 over 8. A filter without antialiasing would give 0 or 128.
    row = np.zeros((1, 8), np.uint8)
    row[0, 3] = 240
    assert read_image(saved(row, tmp_path / "a.png"), size_px=(1, 4))[0, :, 0].tolist() == [0, 90, 30, 0]


@pytest.mark.parametrize("size_px", [(0, 4), (4, -1), (4.0, 4.0), (4,), (4, 4, 3)])
def test_a_size_that_cannot_be(tmp_path, size_px):
    path = saved(noise(4, 4), tmp_path / "a.png")
    for reader in (read_image, lambda p, size_px: read_mask(p, size_px=size_px, image_size_px=None)):
        with pytest.raises(ConfigError, match="wanted \\(height, width\\), whole numbers of at least 1"):
            reader(path, size_px=size_px)


# --- arrays ------------------------------------------------------------------------------------------------------


@given(
    height=st.integers(1, 12), width=st.integers(1, 12), channels=st.sampled_from([1, 3, 4]), seed=st.integers(0, 99),
    resized=st.booleans(),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_a_file_and_its_pixels_as_an_array_agree(tmp_path_factory, height, width, channels, seed, resized):
    pixels = noise(height, width, channels, seed=seed)
    plain = pixels[:, :, 0] if channels == 1 else pixels
    path = saved(plain, tmp_path_factory.mktemp("same") / "a.png")
    size_px = (5, 3) if resized else None
    np.testing.assert_array_equal(read_image(path, size_px=size_px), prepare_pixels(pixels, size_px=size_px))
    np.testing.assert_array_equal(prepare_pixels(plain), prepare_pixels(pixels))


def test_sixteen_bit_arrays_of_either_byte_order_agree_with_the_file(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 65536, (6, 5), dtype=np.uint16)
    expected = read_image(saved(pixels, tmp_path / "a.png"))
    np.testing.assert_array_equal(prepare_pixels(pixels), expected)
    np.testing.assert_array_equal(prepare_pixels(pixels.astype(">u2")), expected)
    assert prepare_pixels(np.full((1, 1, 3), 65535, np.uint16)).tolist() == [[[255, 255, 255]]]


def test_an_array_is_never_handed_back_itself():
    pixels = noise(3, 3)
    prepare_pixels(pixels)[:] = 0
    assert pixels.max() > 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_, np.uint32])
def test_arrays_without_a_known_range_are_refused_with_what_to_pass(dtype):
    message = (
        rf"array: {np.dtype(dtype)} pixels, whose range is unknown; pass uint8 \(0 to 255\) or uint16 \(0 to 65535"
    )
    with pytest.raises(ImageError, match=message):
        prepare_pixels(np.zeros((4, 4, 3), dtype))


@pytest.mark.parametrize("shape", [(4,), (4, 4, 2), (3, 4, 4, 3), (0, 4, 3), (4, 4, 5)])
def test_arrays_of_another_shape_are_refused(shape):
    with pytest.raises(ImageError, match=r"array: shape .*; wanted \(H, W\), \(H, W, 1\), \(H, W, 3\) or \(H, W, 4\)"):
        prepare_pixels(np.zeros(shape, np.uint8))


# --- masks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 255, 0], [False, True, False]),
        ([0, 1, 1], [False, True, True]),  # a mask of nothing but 0 and 1 is taken at its word
        ([1, 1, 1], [True, True, True]),
        ([0, 0, 0], [False, False, False]),
        ([127, 128, 254], [False, True, True]),
        ([0, 1, 255], [False, False, True]),
        ([0, 1, 3], [False, False, False]),  # faint remains of compression are no defect
        ([0, 2, 2], [False, False, False]),  # and neither are class numbers
    ],
)
def test_what_a_mask_calls_defective(tmp_path, values, expected):
    path = saved(np.array([values], np.uint8), tmp_path / "a.png")
    assert read_mask(path, image_size_px=(1, 3)).tolist() == [expected]


def test_half_of_sixteen_bits(tmp_path):
    path = saved(np.array([[0, 255, 32767, 32768]], np.uint16), tmp_path / "a.png")
    assert read_mask(path, image_size_px=None).tolist() == [[False, False, False, True]]


def test_zero_and_one_in_a_lossy_mask_are_noise(tmp_path):
    path = tmp_path / "a.jpg"
    saved(np.full((8, 8), 1, np.uint8), path, quality=100)
    with Image.open(path) as image:
        assert image.getextrema() == (1, 1)
    assert not read_mask(path, image_size_px=(8, 8)).any()


def test_every_value_but_0_where_the_data_set_says_so(tmp_path):
    values = np.array([[0, 1, 2, 127, 128, 255]], dtype=np.uint8)
    path = saved(values, tmp_path / "m.png")
    assert read_mask(path, image_size_px=(1, 6), any_value=True).tolist() == [[False, True, True, True, True, True]]
    assert read_mask(path, image_size_px=(1, 6)).tolist() == [[False, False, False, False, True, True]]
    path = saved(values.astype(np.uint16), tmp_path / "m16.png")
    assert read_mask(path, image_size_px=(1, 6), any_value=True).sum() == 5


def test_one_bit_mask(tmp_path):
    path = saved(np.array([[False, True]]), tmp_path / "a.png")
    assert read_mask(path, image_size_px=(1, 2)).tolist() == [[False, True]]


def test_a_coloured_mask_counts_by_its_brightest_channel(tmp_path):
    pixels = np.array([[[255, 0, 0], [0, 128, 0], [127, 127, 127], [0, 0, 0]]], np.uint8)
    assert read_mask(saved(pixels, tmp_path / "a.png"), image_size_px=None).tolist() == [[True, True, False, False]]
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 128, 0, 0])  # as PASCAL VOC colours class 1
    image.save(tmp_path / "p.png")
    assert read_mask(tmp_path / "p.png", image_size_px=None).tolist() == [[False, True]]


def test_a_transparent_mask_is_normal_where_nothing_is_painted(tmp_path):
    pixels = np.array([[[255, 0, 0, 255], [255, 0, 0, 0]]], np.uint8)
    assert read_mask(saved(pixels, tmp_path / "a.png"), image_size_px=None).tolist() == [[True, False]]


def test_a_mask_of_another_size_names_both(tmp_path):
    path = saved(np.zeros((3, 4), np.uint8), tmp_path / "m.png")
    message = r"m\.png: the mask is 3 x 4 px \(height x width\), its image 4 x 3 px; export both at one size"
    with pytest.raises(ImageError, match=message):
        read_mask(path, image_size_px=(4, 3))


def test_a_mask_is_turned_like_its_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = saved(noise(4, 6), tmp_path / "i.jpg", exif=exif)
    mask = saved(np.eye(4, 6, dtype=np.uint8) * 255, tmp_path / "m.png", exif=exif)
    np.testing.assert_array_equal(read_mask(mask, image_size_px=image_size(image)), np.rot90(np.eye(4, 6), -1) > 0)


def test_a_resized_mask_is_defective_from_half_a_pixel_on(tmp_path):
    # By 2, weights 1, 3, 3, 1 over 8: pixel 3 alone gives 3/8 and 1/8; pixels 2 and 3 give 6/8 and 1/8; the four
    # pixels 4 to 7 give 1/8, 7/8, 8/8. Pixels 0 and 2 of a row: the edge renormalises 3, 3, 1 to 3/7 + 1/7 = 4/7.
    for on, expected in [
        ([3], [0, 0, 0, 0]),
        ([2, 3], [0, 1, 0, 0]),
        ([4, 5, 6, 7], [0, 0, 1, 1]),
        ([0, 2], [1, 0, 0, 0]),
    ]:
        row = np.zeros((1, 8), np.uint8)
        row[0, on] = 255
        mask = read_mask(saved(row, tmp_path / "a.png"), image_size_px=(1, 8), size_px=(1, 4))
        assert mask.astype(int).tolist() == [expected]


def test_exactly_half_is_defective_whatever_the_factor(tmp_path):
    for width in (2, 4, 6, 10, 12, 14):  # one output pixel over a row that is half defective
        row = np.zeros((1, width), np.uint8)
        row[0, : width // 2] = 255
        assert read_mask(saved(row, tmp_path / "a.png"), image_size_px=None, size_px=(1, 1)).tolist() == [[True]]


# --- files that cannot be used -----------------------------------------------------------------------------------


READERS = [read_image, image_size, lambda path: read_mask(path, image_size_px=None)]


@pytest.mark.parametrize("reader", READERS)
def test_files_that_are_none(tmp_path, reader):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image at all")
    for name, message in [
        ("gone.png", "no such file; check the path"),
        ("", "a folder; pass one of the images in it"),
        ("empty.png", r"empty \(0 bytes\); re-export it"),
        ("text.png", "not a readable image; wanted BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF or WebP; re-export it"),
    ]:
        path = tmp_path / name
        with pytest.raises(ImageError, match=f"^{path}: {message}"):
            reader(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".gif", ".ppm"])
def test_a_truncated_file_says_where_it_ends(tmp_path, suffix):
    path = saved(noise(40, 60), tmp_path / f"a{suffix}")
    half = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(half)
    message = rf"^{path}: truncated after {len(half):,} bytes; re-export it$"
    with pytest.raises(ImageError, match=message):
        read_image(path)


def test_damage_of_other_kinds_names_the_file_and_the_cause(tmp_path):
    def read_damaged(name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        read_image(tmp_path / name)

    png, webp, jp2 = (saved(noise(40, 60), tmp_path / f"a{s}").read_bytes() for s in (".png", ".webp", ".jp2"))
    middle = len(png) // 2
    repair = "; re-export it$"
    with pytest.raises(
        ImageError, match=rf"^{tmp_path}/b\.png: damaged \(wrong check sum of the PNG chunk 'IDAT'\){repair}"
    ):
        read_damaged("b.png", png[:middle] + bytes(8) + png[middle + 8 :])
    with pytest.raises(ImageError, match=rf"^{tmp_path}/b\.webp: damaged \(OSError: could not create .*\){repair}"):
        read_damaged("b.webp", webp[: len(webp) // 2])
    with pytest.raises(ImageError, match=rf"^{tmp_path}/b\.jp2: truncated after {len(jp2) // 2:,} bytes{repair}"):
        read_damaged("b.jp2", jp2[: len(jp2) // 2])


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_damage_escapes_as_another_error(tmp_path_factory, data):
    path = (
        tmp_path_factory.mktemp("damage") / f"a{data.draw(st.sampled_from(['.png', '.jpg', '.tif', '.gif', '.bmp']))}"
    )
    content = bytearray(saved(noise(8, 8), path).read_bytes())
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=6)
    ):
        content[place] = value
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        assert read_image(path, limits=Limits(max_pixels=10**6)).shape[2] == 3
    except ImageError as error:
        assert str(error).startswith(str(path))  # noqa: PT017  # either outcome is right, another error is not


def test_a_huge_header_is_refused_before_decoding(tmp_path):
    path = tmp_path / "huge.png"
    path.write_bytes(png_header(60_000, 50_000))
    message = (
        rf"^{path}: 50,000 x 60,000 px \(height x width\) are above the limit of 200,000,000 pixels; "
        r"make it smaller, or raise SUPERSIMPLENET_MAX_PIXELS$"
    )
    for reader in READERS:
        with pytest.raises(ImageError, match=message):
            reader(path)


def test_our_limit_stands_in_for_pillows(tmp_path, monkeypatch):
    for suffix in (".png", ".tif"):  # Pillow asks a TIFF's size a second time, as it decodes
        path = saved(noise(10, 10), tmp_path / f"a{suffix}")
        for limit in (60, 10):  # Pillow would warn, and refuse
            monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
            assert read_image(path).shape == (10, 10, 3)
            assert limit == Image.MAX_IMAGE_PIXELS  # and is left as it was
            with pytest.raises(ImageError, match=r"10 x 10 px .* limit of 99 pixels"):
                read_image(path, limits=Limits(max_pixels=99))
            assert limit == Image.MAX_IMAGE_PIXELS


def test_threads_leave_pillows_limit_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    path = saved(noise(30, 30), tmp_path / "a.png")
    failures: list[Exception] = []

    def read_many() -> None:
        try:
            for _ in range(50):
                read_image(path)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=read_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert Image.MAX_IMAGE_PIXELS == 50


def test_ghostscript_is_never_started(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with Image.open(path) as image:
        assert image.format == "EPS"
    with pytest.raises(ImageError, match="not a readable image"):
        read_image(path)


# --- listing -----------------------------------------------------------------------------------------------------


def test_images_are_listed_in_natural_order_without_hidden_ones(tmp_path):
    names = [
        "10.png",
        "2.PNG",
        "a/1.jpg",
        "a/b/3.TIFF",
        ".hidden.png",
        ".cache/4.png",
        "notes.txt",
        "a.png.txt",
        "B/5.png",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert found == ["2.PNG", "10.png", "a/1.jpg", "a/b/3.TIFF", "B/5.png"]
    assert list_images(str(tmp_path)) == list_images(tmp_path)


def test_natural_order():
    shuffled = ["b2", "b10", "B1", "a/10", "a/9", "a", "007", "7", "x1y2", "x1y10"]
    ordered = [path.as_posix() for path in sorted(map(Path, shuffled), key=natural_key)]
    assert ordered == ["007", "7", "a", "a/9", "a/10", "B1", "b2", "b10", "x1y2", "x1y10"]


def test_a_file_lists_itself(tmp_path):
    path = tmp_path / "photo.dat"
    path.touch()
    assert list_images(path) == [path]


def test_nothing_to_list(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=rf"^{tmp_path}: no image in it; wanted files that end in \.apng, \.bmp"):
        list_images(tmp_path)
    with pytest.raises(DataError, match="gone: no such file or folder; check the path"):
        list_images(tmp_path / "gone")


def test_every_listed_suffix_can_be_read(tmp_path):
    formats = Image.registered_extensions() | {".dib": "BMP"}  # a DIB with the header of a file is a BMP
    for suffix in IMAGE_SUFFIXES:
        image = Image.fromarray(noise(16, 16))
        image = image.convert({".pbm": "1", ".pgm": "L"}.get(suffix, "RGB"))
        image.save(tmp_path / f"a{suffix}", format=formats[suffix])
        assert read_image(tmp_path / f"a{suffix}").shape == (16, 16, 3)


@pytest.mark.parametrize("module", ["preprocessing.images", "datasets.registry", "metrics.ranking"])
def test_torch_is_not_imported(module):
    code = f"import sys, supersimplenet.{module}; sys.exit('torch' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- real photographs --------------------------------------------------------------------------------------------


def test_real_masks_fit_their_images(shared_dir):
    folder = shared_dir / "magnetic_tile"
    empty = []
    for mask in list_images(folder / "ground_truth" / "test"):
        relative = mask.relative_to(folder / "ground_truth").with_suffix(".jpg")
        size_px = image_size(folder / relative)
        defective = read_mask(mask, image_size_px=size_px)
        with Image.open(mask) as stored:
            np.testing.assert_array_equal(defective, np.asarray(stored) >= 128)
        if not defective.any():
            empty.append(relative.as_posix())
    assert empty == ["test/uneven/exp3_num_45042.jpg", "test/uneven/exp4_num_45057.jpg"]  # bad, yet nothing is marked
