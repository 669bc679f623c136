"""The common corruptions of images, by name and severity (Hendrycks and Dietterich, arXiv 1903.12261).

They are `imagecorruptions-imaug`'s, which has them for images of any size and does without ImageMagick. Its motion blur
and frost are not those of the published ImageNet-C: compare models under it with each other, not with published ones.
Its strengths are ImageNet-C's, meant for 224x224 images: smaller images suffer more.
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.metadata import version

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import BaseImageProcessor

COMMON_CORRUPTIONS = {
    "noise": ["gaussian_noise", "shot_noise", "impulse_noise"],
    "blur": ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur"],
    "weather": ["snow", "frost", "fog", "brightness"],
    "digital": ["contrast", "elastic_transform", "pixelate", "jpeg_compression"],
}
EXTRA_CORRUPTIONS = ["speckle_noise", "gaussian_blur", "spatter", "saturate"]  # in none of the paper's means
GROUPS = {**COMMON_CORRUPTIONS, "extra": EXTRA_CORRUPTIONS}
GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}
CORRUPTIONS = list(GROUP_OF)
SEVERITIES = (1, 2, 3, 4, 5)

LIBRARY = "imagecorruptions-imaug"
SEEDED_BY_ARGUMENT = ("impulse_noise", "glass_blur")  # the others draw from numpy's global generator
SMALLEST_SIDE = 32  # that the library takes


def choose_corruptions(names: list[str]) -> list[str]:
    """The corruptions that these names and groups stand for, in the paper's order; its 15 when there are none.

    Raises:
        ValueError: if a name is unknown.
    """
    known = {"all": CORRUPTIONS, **GROUPS, **{name: [name] for name in CORRUPTIONS}}
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected a group ({', '.join(GROUPS)}, all) or a name."
            raise ValueError(f"--corruptions has {name!r}, which is not a corruption: {hint}")
    chosen = {corruption for name in names or COMMON_CORRUPTIONS for corruption in known[name]}
    return [name for name in CORRUPTIONS if name in chosen]


def library_version() -> str:
    """Name and version of the library; ImportError that says how to install it if it is not there, or not whole."""
    try:
        import imagecorruptions  # noqa: F401

        return f"{LIBRARY} {version(LIBRARY)}"
    except ImportError as error:
        hint = "apt-get install libgl1" if "libGL" in str(error) else "pip install 'sk-transformers[robustness]'"
        raise ImportError(f"--corruptions needs the package {LIBRARY} ({error}): {hint}.") from error


def corrupt(image: np.ndarray, corruption: str, severity: int, seed: int) -> np.ndarray:
    """One corruption of an image, always the same for a seed.

    Args:
        image: `(height, width, 3)`, uint8. Sides below 32 are reflected up to that, which the library needs, and the
            corrupted image is cropped again.
        corruption: one of `CORRUPTIONS`.
        severity: 1 to 5.
        seed: for the random numbers, 32 bits.

    Returns:
        `(height, width, 3)`, uint8.
    """
    import imagecorruptions

    height, width = image.shape[:2]
    padding = [((missing := max(0, SMALLEST_SIDE - side)) // 2, missing - missing // 2) for side in (height, width)]
    padded = np.pad(image, [*padding, (0, 0)], mode="symmetric")
    seeded = {"seed": seed} if corruption in SEEDED_BY_ARGUMENT else {}
    try:
        with numpy_seed(seed), np.errstate(invalid="raise"):
            corrupted = imagecorruptions.corrupt(padded, severity, corruption, **seeded)
    except FloatingPointError:  # no drop of spatter fell on a small image, and the library divides by their greatest
        if corruption != "spatter":
            raise
        corrupted = padded
    (top, _), (left, _) = padding
    return corrupted[top : top + height, left : left + width]


@contextmanager
def numpy_seed(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, and leave it as it was."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


class CorruptingTransform:
    """What the image processor does, with a corruption of the image that the model sees.

    As ImageNet-C is made: the image processor resizes and crops, the 8-bit result is corrupted, and then it scales
    its values. The random numbers are seeded by the image, the corruption and the severity, so that a figure depends
    neither on the order of the images nor on processes or workers, and every model is shown the same noise.

    Args:
        processor: the model's.
    """

    def __init__(self, processor: BaseImageProcessor):
        self.processor = processor
        # In shared memory, since a loader's workers live on from one corruption to the next.
        self._condition = torch.zeros(2, dtype=torch.int64).share_memory_()

    def set_condition(self, corruption: str, severity: int) -> None:
        """What is done to the images of the next pass over a loader, in its workers too."""
        self._condition.copy_(torch.tensor([CORRUPTIONS.index(corruption), severity]))

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """`(channels, height, width)` of an RGB image."""
        index, severity = self._condition.tolist()
        corruption = CORRUPTIONS[index]
        seen = seen_image(self.processor, image)
        corrupted = corrupt(seen, corruption, severity, seed_of(image, corruption, severity))
        values = torch.tensor(corrupted).permute(2, 0, 1)
        return self.processor(values, do_resize=False, do_center_crop=False, return_tensors="pt").pixel_values[0]


def seen_image(processor: BaseImageProcessor, image: Image.Image) -> np.ndarray:
    """`(height, width, 3)`, uint8: what a model sees of an RGB image, before the image processor scales its values.

    Raises:
        ValueError: if the image processor makes other values.
    """
    seen = processor(image, do_rescale=False, do_normalize=False, return_tensors="pt").pixel_values[0]
    if seen.dtype != torch.uint8:
        raise ValueError(
            f"the {type(processor).__name__} resizes to {seen.dtype}, and corruptions need 8-bit values: "
            "load the image processor that transformers runs on torchvision."
        )
    return seen.permute(1, 2, 0).numpy()


def seed_of(image: Image.Image, corruption: str, severity: int) -> int:
    """32 bits that are the image's own."""
    return zlib.crc32(f"{corruption} {severity}".encode(), zlib.crc32(image.tobytes()))
