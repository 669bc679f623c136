"""Image files as a network sees them: upright RGB, 8 bits a channel. One definition for everything that reads images.

Training, evaluation, prediction, the demo and the check of an ONNX export decode with this file, and a copy of it goes
into every exported folder, where `handler.py` imports it. So it needs Pillow and torch alone, and opens no path itself.

| file | what the network sees |
| --- | --- |
| 8 bits: gray, RGB, palette, CMYK, LAB, YCbCr, 1 bit | as Pillow converts it to RGB; color profiles are not applied |
| transparency, in any form | dropped: the colors beneath it are seen; refused where they are all one |
| 16 bits gray (PNG, PGM, JPEG 2000, TIFF of any byte order) | the high byte, 0 to 65535 being black to white |
| 9 to 15 bits gray, where the file says so (TIFF, PGM, JPEG 2000) | the high 8 bits of those |
| 32 bits gray, integers | black is 0, white the first of 255, 65535 and the type's largest that no value exceeds |
| floats, gray | black is 0, white the first of 1, 255 and 65535 that no value exceeds |
| TIFF that counts from white to black | inverted |
| several frames or pages | the first |
| EXIF or XMP orientation | turned upright; damaged EXIF is passed over |
"""

import warnings
from functools import cache
from typing import IO, Any

import torch
from PIL import Image

try:
    from pillow_heif import register_heif_opener
except ImportError:  # optional: HEIC photos are then refused with the hint to install it
    pass
else:
    register_heif_opener()

# Not what Pillow reads by starting another program, such as PostScript. MPO comes as JPEG.
FORMATS = (
    "AVIF", "BMP", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "SGI", "TGA", "TIFF", "WEBP",
)  # fmt: skip
MAX_PIXELS = 178_956_970  # Pillow's own limit
MAX_ASPECT_RATIO = 200  # an image processor that scales the shorter side to 224 would make more than 10 million pixels
ORIENTATION = 0x0112  # EXIF and TIFF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
WHITE_IS_ZERO, SIGNED = 0, 2  # their values
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


class UnreadableImage(ValueError):
    """An image that cannot be read; the message is a reason to stand in brackets, and does not name the image."""


def decode(file: IO[bytes] | Image.Image, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return the upright RGB image that the table above defines.

    Args:
        file: an image file, open for reading, or an image that was opened by Pillow.
        max_pixels: how many pixels it may have; they are counted before any is decoded.

    Raises:
        UnreadableImage: whatever is wrong with the file.
    """
    try:
        image = file if isinstance(file, Image.Image) else open_image(file, max_pixels)
        check_size(image.size, max_pixels)
        image.load()  # some formats tell how the image lies after its pixels
        rgb = to_rgb(image)
        turn = TURNS.get(orientation(image))
        rgb = rgb if turn is None else rgb.transpose(turn)
        rgb.info = {}  # or others would turn it once more
        return rgb
    except UnreadableImage:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnreadableImage(f"damaged or cut off: {reason}") from error


def open_image(file: IO[bytes], max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return the image of a file, of which the header was read and nothing decoded yet.

    Raises:
        UnreadableImage: if it is not an image of one of `FORMATS`.
    """
    try:
        return Image.open(file, formats=available_formats())
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"too many pixels, expected at most {max_pixels}: make it smaller") from error
    except Exception as error:  # Pillow's readers raise many kinds
        raise UnreadableImage(describe_foreign_file(file)) from error


@cache
def available_formats() -> tuple[str, ...]:
    """Return those of `FORMATS` that this Pillow reads."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def describe_foreign_file(file: IO[bytes]) -> str:
    """Return why a file could not be opened as an image."""
    file.seek(0)
    start = file.read(12)
    if not start:
        return "empty"
    if start[4:8] == b"ftyp" and start[8:12] in HEIC_BRANDS and "HEIF" not in available_formats():
        return "HEIC, which needs the package pillow-heif: pip install pillow-heif"
    return f"not an image that Pillow can read: expected {', '.join(available_formats())}"


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Raise UnreadableImage if an image is too large to decode, or so narrow that resizing it would make it so."""
    width, height = size
    if width * height > max_pixels:
        raise UnreadableImage(f"{width}x{height} pixels, expected at most {max_pixels} in all: make it smaller")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise UnreadableImage(f"{width}x{height} pixels, expected sides of at most 1:{MAX_ASPECT_RATIO}: crop it")


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1, upright, where there is none or it is damaged."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # of any tag's reader: what is damaged beside the picture does not cost it
        return 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a loaded image as RGB; UnreadableImage if its values have no meaning as a picture."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return to_8_bits(image).convert("RGB")
    if image.mode in ("La", "RGBa"):  # multiplied by their transparency
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    rgb = image.convert("RGB")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        check_colors_beneath(rgb, image)
    return rgb


def check_colors_beneath(rgb: Image.Image, image: Image.Image) -> None:
    """Raise UnreadableImage if all of a picture is in its transparency, and nothing is left without it."""
    extrema: Any = rgb.getextrema()
    if all(low == high for low, high in extrema):
        low, high = image.convert("RGBA").getchannel("A").getextrema()
        if low != high:
            raise UnreadableImage("one color, whose transparency is the picture: put it on a background")


def to_8_bits(image: Image.Image) -> Image.Image:
    """Return a gray image of more than 8 bits in mode L."""
    values = pixel_values(image)
    low, high = (value.item() for value in values.aminmax())
    if not (low >= 0 and high < float("inf")):  # not a number fails both
        raise UnreadableImage(f"values from {low:g} to {high:g}, expected none below 0 and all finite: rescale it")
    white = white_level(image, high)
    if high > white:
        raise UnreadableImage(f"values up to {high:g}, expected at most {white:g}: rescale it")
    if white == 65535 and 0 < high < 4096:
        warnings.warn(
            "an image of 16 bits has no value above 4095 of 65535, and is read as nearly black: if the images have"
            " fewer bits, rescale them to 16 or save them with 8.",
            stacklevel=2,
        )
    steps = 1 if white == 1 else white + 1
    levels = (values.to(torch.float32) * (256 / steps)).clamp(max=255).to(torch.uint8)
    if tiff_tag(image, PHOTOMETRIC) == WHITE_IS_ZERO:
        levels = 255 - levels
    return Image.frombytes("L", image.size, levels.numpy().tobytes())


def pixel_values(image: Image.Image) -> torch.Tensor:
    """Return the values of a gray image as one row, floats or integers as they are."""
    mode, dtype = ("F", torch.float32) if image.mode == "F" else ("I", torch.int32)
    values = torch.frombuffer(bytearray(image.convert(mode).tobytes()), dtype=dtype)
    if tiff_bits(image) == 32 and dtype == torch.int32 and not is_signed(image):
        return values.to(torch.int64) & 0xFFFFFFFF  # Pillow holds them in signed ones
    return values


def white_level(image: Image.Image, high: float) -> float:
    """Return the value that stands for white, where `high` is the largest that the image has."""
    if image.mode == "F":
        return 1 if high <= 1 else 255 if high <= 255 else 65535
    bits = tiff_bits(image)
    if image.format in ("JPEG2000", "PNG", "PPM") or (bits is None and image.mode != "I"):
        return 65535  # to which Pillow scales what has fewer bits
    full = 2 ** ((bits or 32) - is_signed(image)) - 1
    if bits is not None and bits <= 16:
        return full
    return 255 if high <= 255 else 65535 if high <= 65535 else full


def tiff_bits(image: Image.Image) -> int | None:
    """Return the bits of a gray TIFF's values; None where the image is no TIFF."""
    return tiff_tag(image, BITS_PER_SAMPLE)


def is_signed(image: Image.Image) -> bool:
    """Return whether the values of an integer image may be negative."""
    return tiff_tag(image, SAMPLE_FORMAT) == SIGNED


def tiff_tag(image: Image.Image, tag: int) -> int | None:
    """Return a tag's first value; None where the image is no TIFF or has no such tag."""
    value = getattr(image, "tag_v2", {}).get(tag)
    return value[0] if isinstance(value, tuple) else value
