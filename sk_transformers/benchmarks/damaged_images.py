"""Damaged images of every format and mode, and what the decoder makes of them: each in a process of its own."""

import io
import json
import random
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from PIL import Image

from ..data.decoding import UnreadableImage, decode

SIZE = (40, 30)
ORIENTATION_6 = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"


class Outcome(NamedTuple):
    """What became of the damaged copies of one file.

    `failures` are exceptions of any other class than the decoder's; `died` is whether the process was lost.
    """

    name: str
    damages: int
    read: int
    refused: int
    failures: list[str]
    slowest_seconds: float
    peak_megabytes: int
    died: bool = False


def picture(mode: str) -> Image.Image:
    """Return a small photograph-like image."""
    noise = Image.effect_noise(SIZE, 40)
    rgb = Image.merge("RGB", [Image.radial_gradient("L").resize(SIZE), noise, Image.linear_gradient("L").resize(SIZE)])
    if mode in ("I", "F", "I;16", "I;16B"):
        scaled = rgb.convert("L").convert("I").point(lambda value: value * 257)
        return scaled.convert(mode)
    return Image.merge("LAB", rgb.split()) if mode == "LAB" else rgb.convert(mode)


def encoded(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    """Return a small image as a file."""
    buffer = io.BytesIO()
    picture(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def two_frames() -> dict[str, Any]:
    """Return how to save an image with a second one; a new one each time, since Pillow's writers leave traces in it."""
    return {"save_all": True, "append_images": [Image.effect_noise(SIZE, 90).convert("RGB")]}


FILES: dict[str, Callable[[], bytes]] = {
    "JPEG, EXIF": lambda: encoded("JPEG", exif=ORIENTATION_6),
    "JPEG, progressive CMYK": lambda: encoded("JPEG", "CMYK", progressive=True),
    "MPO": lambda: encoded("MPO", **two_frames()),
    "PNG": lambda: encoded("PNG"),
    "PNG, EXIF": lambda: encoded("PNG", exif=ORIENTATION_6),
    "PNG, 16 bits": lambda: encoded("PNG", "I;16"),
    "PNG, palette": lambda: encoded("PNG", "P", transparency=3),
    "PNG, animated": lambda: encoded("PNG", **two_frames()),
    "GIF, animated": lambda: encoded("GIF", **two_frames()),
    "WebP": lambda: encoded("WEBP", exif=ORIENTATION_6),
    "WebP, animated": lambda: encoded("WEBP", **two_frames()),
    "AVIF": lambda: encoded("AVIF"),
    "JPEG 2000": lambda: encoded("JPEG2000"),
    "BMP": lambda: encoded("BMP"),
    "TIFF, pages": lambda: encoded("TIFF", **two_frames()),
    "TIFF, LZW, 16 bits": lambda: encoded("TIFF", "I;16", compression="tiff_lzw"),
    "TIFF, float": lambda: encoded("TIFF", "F"),
    "TIFF, LAB": lambda: encoded("TIFF", "LAB"),
    "TIFF, JPEG": lambda: encoded("TIFF", compression="jpeg"),
    "PGM, 16 bits": lambda: encoded("PPM", "I;16"),
    "TGA": lambda: encoded("TGA", compression="tga_rle"),
    "PCX": lambda: encoded("PCX"),
    "SGI": lambda: encoded("SGI"),
    "ICO": lambda: encoded("ICO"),
}


def damage(content: bytes, dice: random.Random) -> bytes:
    """Return a copy with one to three damages: bytes changed, cut off, taken out, doubled, or numbers made large."""
    damaged = bytearray(content)
    for _ in range(dice.randint(1, 3)):
        kind = dice.randrange(7)
        # Half of them hit the start, where most of the structure is.
        place = dice.randrange(min(len(damaged), 80) if dice.random() < 0.5 else len(damaged))
        length = dice.randint(1, 30)
        if kind == 0:
            damaged[place] ^= 1 << dice.randrange(8)
        elif kind == 1:
            damaged[place : place + length] = dice.randbytes(length)
        elif kind == 2:
            damaged[place : place + 4] = dice.choice(
                [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\x40\0"]
            )
        elif kind == 3:
            damaged[place : place + 2] = bytes.fromhex(dice.choice(["0000", "ffff", "7fff", "2000"]))
        elif kind == 4:
            del damaged[place : place + length]
        elif kind == 5:
            damaged[place:place] = damaged[place : place + length]
        else:
            del damaged[place:]
        if not damaged:
            break
    return bytes(damaged)


def decode_damaged(name: str, damages: int, seed: int = 0) -> Outcome:
    """Decode damaged copies of a file in this process."""
    torch.set_num_threads(1)
    content, dice = FILES[name](), random.Random(f"{name} {seed}")
    read, refused, slowest = 0, 0, 0.0
    failures: list[str] = []
    decode(io.BytesIO(content))
    for _ in range(damages):
        damaged = damage(content, dice)
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = decode(io.BytesIO(damaged))
            assert image.mode == "RGB", image.mode
            read += 1
        except UnreadableImage:
            refused += 1
        except BaseException as error:
            failures.append(f"{type(error).__name__}: {error}")
        slowest = max(slowest, time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return Outcome(name, damages, read, refused, failures, slowest, peak)


def decode_damaged_elsewhere(name: str, damages: int, seed: int = 0) -> Outcome:
    """Decode damaged copies of a file in a process of their own, which a decoder may end."""
    code = (
        "import json, sys; from sk_transformers.benchmarks.damaged_images import decode_damaged;"
        " print(json.dumps(decode_damaged(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))"
    )
    command = [sys.executable, "-c", code, name, str(damages), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        return Outcome(name, damages, 0, 0, [f"status {done.returncode}: {done.stderr[-300:]}"], 0.0, 0, died=True)
    return Outcome(*json.loads(done.stdout.splitlines()[-1]))


def render(outcomes: list[Outcome]) -> str:
    """Return the outcomes as a table in Markdown."""
    lines = [
        "| file | damages | read | refused | other exceptions | slowest, s | peak memory, MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for outcome in outcomes:
        failures = "died" if outcome.died else len(outcome.failures)
        lines.append(
            f"| {outcome.name} | {outcome.damages} | {outcome.read} | {outcome.refused} | {failures} |"
            f" {outcome.slowest_seconds:.2f} | {outcome.peak_megabytes} |"
        )
    return "\n".join(lines)
