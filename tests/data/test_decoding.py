"""What each kind of image file means: pixel values that were written by hand, and failures of one class."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from sk_transformers.data.decoding import MAX_ASPECT_RATIO, MAX_PIXELS, UnreadableImage, available_formats, decode

CASES = Path(__file__).parent / "cases"


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(content):
    """`(height, width, 3)` of a file's content."""
    image = decode(io.BytesIO(content))
    assert image.mode == "RGB"
    return np.asarray(image)


def grays(content):
    """The gray values of an image one pixel high."""
    red, green, blue = pixels(content)[0].T.tolist()
    assert red == green == blue
    return red


def tiff(values, bits=16, order="<", sample_format=1, photometric=1):
    """A gray TIFF one pixel high, written here; `values` is the array of its bytes."""
    data = values.tobytes()
    tags = [
        (256, 4, values.size * values.itemsize * 8 // bits), (257, 4, 1), (258, 3, bits), (259, 3, 1),
        (262, 3, photometric), (273, 4, 8), (277, 3, 1), (278, 4, 1), (279, 4, len(data)), (339, 3, sample_format),
    ]  # fmt: skip
    fields = b"".join(
        struct.pack(f"{order}HHI", tag, kind, 1) + struct.pack(f"{order}I" if kind == 4 else f"{order}Hxx", value)
        for tag, kind, value in tags
    )
    start = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(data))
    return start + data + struct.pack(f"{order}H", len(tags)) + fields + bytes(4)


# Gray values


SIXTEEN = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
EIGHT = [0, 0, 1, 128, 255]


@pytest.mark.parametrize(
    "content",
    [
        encoded(Image.fromarray(SIXTEEN)),
        encoded(Image.fromarray(SIXTEEN), "JPEG2000", irreversible=False),
        b"P5 5 1 65535\n" + SIXTEEN.astype(">u2").tobytes(),
        b"P2 5 1 65535\n0 255 256 32768 65535\n",
        tiff(SIXTEEN.astype("<u2")),
        tiff(SIXTEEN.astype(">u2"), order=">"),
        tiff(SIXTEEN.astype("<u4"), bits=32),
        tiff(SIXTEEN.astype(">i4"), bits=32, order=">", sample_format=2),
        tiff(SIXTEEN.astype("<f4"), bits=32, sample_format=3),
    ],
    ids=["PNG", "JPEG 2000", "PGM", "plain PGM", "TIFF", "big-endian TIFF", "uint32", "big-endian int32", "float"],
)
def test_sixteen_bits_are_scaled_and_not_cut_off(content):
    assert grays(content) == EIGHT


@pytest.mark.parametrize("mode", ["I", "I;16", "I;16B", "F"])
def test_images_that_somebody_else_opened_mean_the_same(mode):
    image = Image.fromarray(SIXTEEN.astype(np.float32 if mode == "F" else np.int32))
    image = image if mode in ("F", "I") else image.convert("I;16" if mode == "I;16" else "I;16B")
    assert np.asarray(decode(image))[0, :, 0].tolist() == EIGHT


def test_colors_of_sixteen_bits_keep_their_high_byte_as_gray_does():
    values = np.array([[0, 255, 256], [32768, 65535, 5000]], dtype=">u2")
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    rows = b"\0" + values.tobytes()
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    assert pixels(content)[0].tolist() == [[0, 0, 1], [128, 255, 19]]


def test_fewer_bits_fill_the_range_where_the_file_says_how_many():
    assert grays(b"P5 4 1 4095\n" + np.array([0, 255, 2048, 4095], ">u2").tobytes()) == [0, 15, 128, 255]
    twelve = np.frombuffer(bytes.fromhex("0000ff800fff"), np.uint8)  # 0, 255, 2048, 4095
    assert grays(tiff(twelve, bits=12)) == [0, 15, 128, 255]
    assert grays(b"P5 4 1 15\n" + bytes([0, 1, 8, 15])) == [0, 17, 136, 255]


def test_twelve_bits_in_sixteen_are_told_of_once():
    content = encoded(Image.fromarray(np.array([[0, 4095]], np.uint16)))
    with pytest.warns(UserWarning, match="16 bits has no value above 4095 of 65535, and is read as nearly black"):
        assert grays(content) == [0, 15]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grays(encoded(Image.fromarray(np.array([[0, 4096]], np.uint16))))
        grays(encoded(Image.fromarray(np.array([[0, 0]], np.uint16))))


@pytest.mark.parametrize(
    "values, white",
    [(np.array([0, 1, 128, 255]), 255), (np.array([0, 2**24, 2**31, 2**32 - 1], np.int64), 2**32 - 1)],
)
def test_integers_of_32_bits_fill_8_16_or_32(values, white):
    assert grays(tiff(values.astype("<u4"), bits=32)) == [0, 1, 128, 255], white


def test_signed_integers():
    assert grays(tiff(np.array([0, 2**30, 2**31 - 1], "<i4"), bits=32, sample_format=2)) == [0, 128, 255]
    assert grays(tiff(np.array([0, 2**14, 2**15 - 1], "<i2"), sample_format=2)) == [0, 128, 255]


def test_floats_are_of_1_or_255_or_65535():
    of_one = np.array([0, 1 / 255, 0.5, 128 / 255, 1], "<f4")
    assert grays(tiff(of_one, bits=32, sample_format=3)) == [0, 1, 128, 128, 255]
    assert grays(tiff((of_one * 255).astype("<f4"), bits=32, sample_format=3)) == [0, 1, 127, 128, 255]
    assert grays(b"Pf\n3 1\n-1.0\n" + np.array([0, 0.5, 1], "<f4").tobytes()) == [0, 128, 255]


def test_white_is_zero():
    assert grays(tiff(SIXTEEN.astype("<u2"), photometric=0)) == [255, 255, 254, 127, 0]
    assert grays(tiff(np.array([0, 1, 255], np.uint8), bits=8, photometric=0)) == [255, 254, 0]


@pytest.mark.parametrize(
    "values, message",
    [
        ([0, -0.5], "values from -0.5 to 0, expected none below 0"),
        ([0, np.nan], "values from nan to nan"),
        ([np.inf, 0], "values from 0 to inf"),
        ([0, 70000], "values up to 70000, expected at most 65535: rescale it"),
    ],
)
def test_values_without_a_meaning_as_a_picture_are_refused(values, message):
    with pytest.raises(UnreadableImage, match=message):
        pixels(tiff(np.array(values, "<f4"), bits=32, sample_format=3))


# Colors


def test_palettes_one_bit_and_other_color_spaces():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 0])
    palette.putdata([0, 1])
    assert pixels(encoded(palette))[0].tolist() == [[10, 20, 30], [200, 100, 0]]
    assert pixels(encoded(palette, "GIF"))[0].tolist() == [[10, 20, 30], [200, 100, 0]]
    assert grays(encoded(Image.frombytes("1", (2, 1), b"\x40"), "TIFF")) == [0, 255]
    cmyk = Image.merge("CMYK", [Image.new("L", (8, 8), level) for level in (255, 0, 0, 0)])
    assert pixels(encoded(cmyk, "TIFF"))[0, 0].tolist() == [0, 255, 255]
    assert np.abs(pixels(encoded(cmyk, "JPEG", quality=95))[0, 0] - np.array([0, 255, 255])).max() < 5
    lab = pixels(encoded(Image.merge("LAB", [Image.new("L", (8, 8), level) for level in (137, 208, 195)]), "TIFF"))
    assert np.abs(lab[0, 0] - np.array([255, 0, 0])).max() < 12  # L* 53.7, a* 80, b* 67: red


TRANSPARENT = np.array([[[200, 10, 0, 0], [0, 30, 90, 255], [5, 5, 5, 128]]], np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_dropped(kind):
    exact = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    assert pixels(encoded(Image.fromarray(TRANSPARENT), kind, **exact)).tolist() == TRANSPARENT[..., :3].tolist()
    gray = Image.fromarray(TRANSPARENT[..., [0, 3]], "LA")
    assert grays(encoded(gray)) == [200, 0, 5]


def test_the_color_of_transparency_is_dropped():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 0])
    palette.putdata([0, 1])
    assert pixels(encoded(palette, transparency=0))[0].tolist() == [[10, 20, 30], [200, 100, 0]]
    assert grays(encoded(Image.frombytes("L", (2, 1), b"\x07\xf0"), transparency=7)) == [7, 240]


def test_a_picture_in_its_transparency_alone_is_refused():
    icon = Image.new("RGBA", (8, 8))
    icon.putalpha(Image.linear_gradient("L").resize((8, 8)))
    with pytest.raises(UnreadableImage, match="one color, whose transparency is the picture: put it on a background"):
        pixels(encoded(icon))
    assert not pixels(encoded(Image.new("RGBA", (8, 8)))).any()  # nothing is lost where nothing is


# Frames, pages and turns


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG", "AVIF", "MPO"])
def test_the_first_frame_or_page_counts(kind):
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue", "lime")]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(pixels(content)[8, 8].astype(int) - [255, 0, 0]).max() < 5


def test_avif_and_jpeg_2000():
    image = Image.new("RGB", (32, 32), (10, 120, 240))
    for content in (encoded(image, "AVIF", quality=95), encoded(image, "JPEG2000")):
        assert np.abs(pixels(content)[16, 16].astype(int) - [10, 120, 240]).max() < 5


def test_heic_is_read_where_its_package_is_and_else_named(monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(Image.new("RGB", (64, 64), (10, 120, 240))).save(buffer, quality=95)
    assert np.abs(pixels(buffer.getvalue())[32, 32].astype(int) - [10, 120, 240]).max() < 8
    without = tuple(name for name in available_formats() if name != "HEIF")
    monkeypatch.setattr("sk_transformers.data.decoding.available_formats", lambda: without)
    with pytest.raises(UnreadableImage, match="HEIC, which needs the package pillow-heif: pip install pillow-heif"):
        pixels(buffer.getvalue())


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright_as_pillow_does_it(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8))
    content = encoded(image, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    assert expected.size == ((6, 4) if orientation < 5 else (4, 6))
    assert pixels(content).tolist() == np.asarray(expected).tolist()
    decoded = decode(io.BytesIO(content))
    assert np.asarray(ImageOps.exif_transpose(decoded)).tolist() == np.asarray(decoded).tolist()  # and not once more


def test_sixteen_bits_are_turned_upright_too():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 270 degrees
    assert pixels(encoded(Image.fromarray(SIXTEEN), exif=exif))[:, 0, 0].tolist() == EIGHT


@pytest.mark.parametrize("case", sorted(CASES.glob("damaged_exif_*.jpg")), ids=lambda path: path.stem)
def test_damaged_exif_does_not_cost_the_picture(case):
    opened = Image.open(case)
    with pytest.raises((struct.error, TypeError, AttributeError)):
        ImageOps.exif_transpose(opened)
    stored = Image.open(case).convert("RGB")
    expected = stored.transpose(Image.Transpose.ROTATE_270)  # its orientation, 6, is still to be read
    assert pixels(case.read_bytes()).tolist() == np.asarray(expected).tolist()


def test_a_damaged_orientation_is_none(monkeypatch):
    def fail(image):
        raise AttributeError("'bytes' object has no attribute 'get'")

    monkeypatch.setattr(Image.Image, "getexif", fail)
    assert decode(Image.new("RGB", (4, 3))).size == (4, 3)


# What cannot be read


def bomb(width, height):
    """A PNG of few bytes that decodes to `width * height` pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 99)), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return content


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "^empty$"),
        (b"some text" * 30, "^not an image that Pillow can read: expected AVIF, BMP, GIF, "),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "^not an image that Pillow can read"),
        (encoded(Image.radial_gradient("L"))[:-900], "^damaged or cut off: "),
        (encoded(Image.radial_gradient("L"), "JPEG")[:-900], "^damaged or cut off: "),
        (bomb(30000, 30000), f"^too many pixels, expected at most {MAX_PIXELS}: make it smaller"),
        (bomb(400_000_000, 1), "^too many pixels"),
        (bomb(2010, 10), f"^2010x10 pixels, expected sides of at most 1:{MAX_ASPECT_RATIO}: crop it"),
    ],
    ids=["empty", "text", "PostScript", "cut PNG", "cut JPEG", "bomb", "long bomb", "narrow"],
)
def test_what_cannot_be_read_is_of_one_class_and_says_why(content, message):
    with pytest.raises(UnreadableImage, match=message) as error:
        pixels(content)
    assert "\n" not in str(error.value)


def test_a_stricter_limit_and_none_of_pillows(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(UnreadableImage, match="100x60 pixels, expected at most 5000 in all: make it smaller"):
        decode(io.BytesIO(bomb(100, 60)), max_pixels=5000)
    with pytest.raises(UnreadableImage, match="30000x30000 pixels, expected at most"):
        decode(io.BytesIO(bomb(30000, 30000)))


def test_any_exception_of_a_decoder_is_this_one(monkeypatch):
    for error in (KeyError("tag"), RecursionError(), MemoryError(), AttributeError("two\nlines"), OverflowError(1)):

        def fail(*arguments, error=error):
            raise error

        monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_end", fail)
        with pytest.raises(UnreadableImage, match="^damaged or cut off: [^\n]+$"):
            pixels(encoded(Image.new("L", (8, 8))))
