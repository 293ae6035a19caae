"""Pictures of every kind become eight bits of red, green and blue, upright; what is no picture is one line."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from models.errors import UserError
from models.vision.images import read_image, write_png

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.fixture
def read(tmp_path):
    """Return a function that saves a picture of Pillow, or bytes, and reads the file."""

    def saved(picture, kind="png", **options):
        path = tmp_path / f"picture.{kind}"
        if isinstance(picture, bytes):
            path.write_bytes(picture)
        else:
            picture.save(path, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return read_image(path)

    return saved


def encoded(kind="PNG", size=(60, 50)):
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)).save(data, kind)
    return data.getvalue()


def test_colours_are_kept(read):
    pixels = read(Image.fromarray(PIXELS))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, PIXELS)


def test_grey_and_black_and_white_are_three_equal_channels(read):
    grey = PIXELS[..., 0]
    np.testing.assert_array_equal(read(Image.fromarray(grey)), np.stack([grey] * 3, axis=-1))
    np.testing.assert_array_equal(read(Image.fromarray(grey > 99)), np.stack([255 * (grey > 99)] * 3, axis=-1))


def test_a_palette_is_looked_up(read):
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8), mode="P")
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    np.testing.assert_array_equal(read(picture), [[[10, 20, 30], [40, 50, 60]], [[70, 80, 90], [40, 50, 60]]])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_shows_white(read, mode):
    alpha = np.arange(0, 245, 7, dtype=np.uint8).reshape(5, 7)
    colours = PIXELS if mode == "RGBA" else PIXELS[..., :1]
    pixels = read(Image.fromarray(np.concatenate([colours, alpha[..., None]], axis=-1)))
    share = alpha[..., None] / 255
    np.testing.assert_allclose(pixels, np.broadcast_to(share * colours + (1 - share) * 255, PIXELS.shape), atol=1)
    assert (pixels[0, 0] == 255).all()


def test_a_transparent_colour_of_a_palette_or_of_grey_shows_white(read):
    picture = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), mode="P")
    picture.putpalette([10, 20, 30, 40, 50, 60])
    for transparency in (1, b"\xff\x00"):  # an index, and the opacity of each colour
        np.testing.assert_array_equal(read(picture, transparency=transparency), [[[10, 20, 30], [255] * 3]])
    grey = Image.fromarray(np.array([[7, 8]], dtype=np.uint8))
    np.testing.assert_array_equal(read(grey, transparency=7), [[[255] * 3, [8] * 3]])


@pytest.mark.parametrize("kind", ["png", "tiff", "ppm"])
def test_sixteen_bits_are_scaled_to_eight(read, kind):
    grey = np.array([[0, 128, 129, 4000], [25700, 32768, 65534, 65535]], dtype=np.uint16)
    pixels = read(Image.fromarray(grey), kind)
    np.testing.assert_array_equal(pixels[..., 0], np.round(grey / 257))
    assert (pixels == pixels[..., :1]).all()


def test_grey_of_more_than_sixteen_bits_or_in_floating_point_is_refused(read):
    with pytest.raises(UserError, match=r"expected a picture, got grey from 0 to 70000, expected 0 to"):
        read(Image.fromarray(np.array([[0, 70000]], dtype=np.int32)), "tiff")
    with pytest.raises(UserError, match="pixels in floating point, whose white is not known"):
        read(Image.fromarray(np.array([[0, 0.5]], dtype=np.float32)), "tiff")


def test_cmyk_is_converted(read):
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255]]], dtype=np.uint8)
    pixels = read(Image.fromarray(inks, mode="CMYK"), "tiff")
    np.testing.assert_array_equal(pixels, [[[255] * 3, [0, 255, 255], [0] * 3]])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright(read, orientation):
    """Store a picture in each of EXIF's eight orientations; what is read is upright."""
    upright = PIXELS
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(read(Image.fromarray(np.ascontiguousarray(stored)), exif=exif), upright)


def test_the_first_frame_of_an_animation_is_read(read):
    frames = [Image.fromarray(np.full((2, 2), grey, dtype=np.uint8)) for grey in (30, 200)]
    assert (read(frames[0], "gif", save_all=True, append_images=frames[1:]) == 30).all()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width, height):
    """Return a PNG that says it has so many pixels, and has none."""
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


BROKEN = {
    "empty": (b"", "expected a picture, got an empty file"),
    "text": (b"a cat\n" * 9, "expected a picture, got a file of another kind, or without pixels"),
    "start only": (header(1, 1)[:8], "expected a picture, got a file of another kind, or without pixels"),
    "no width": (header(0, 5), "expected a picture, got a file of another kind, or without pixels"),
    "no height": (header(5, 0), "expected a picture, got a file of another kind, or without pixels"),
    "half a JPEG": (encoded("JPEG")[:800], "expected a picture, got a broken file: image file is truncated"),
    "half a PNG": (encoded()[:800], "expected a picture, got a broken file: image file is truncated"),
    "a flipped byte": (encoded()[:90] + b"?" + encoded()[91:], "expected a picture, got a broken file: "),
    "large": (header(10_000, 9_000), "expected at most 89478485 pixels, got more, which may fill the memory"),
    "huge": (header(2**31 - 1, 2**31 - 1), "expected at most 89478485 pixels, got more, which may fill the memory"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_picture_is_one_line(read, tmp_path, kind):
    data, message = BROKEN[kind]
    with pytest.raises(UserError) as raised:
        read(data)
    assert str(raised.value).startswith(f"image {tmp_path / 'picture.png'}: {message}")
    assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    for path, reason in ((tmp_path / "none.png", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(UserError) as raised:
            read_image(path)
        assert str(raised.value) == f"image {path}: expected a readable file, got: {reason}"


def test_what_is_written_is_read_again(tmp_path):
    write_png(tmp_path / "new" / "picture.png", PIXELS)
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "picture.png"), PIXELS)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["picture.png"]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="expected a place to write, got: "):
        write_png(tmp_path / "file" / "picture.png", PIXELS)
