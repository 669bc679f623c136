"""Answers requests to a model on Hugging Face Inference Endpoints.

A request is JSON, or an image as it is:

    {"inputs": "<base64>", "parameters": {"top_k": 3}}      one image
    {"inputs": ["<base64>", "<base64>"]}                    several

and is answered with `[{"label": ..., "score": ...}, ...]`, the likeliest class first, in a list for each image if there
were several. What cannot be read raises ValueError with one sentence, which the server sends back with status 400.

Protocol: https://huggingface.co/docs/inference-endpoints/guides/custom_handler.
"""

import base64
import binascii
import io
from typing import Any

import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoModelForImageClassification

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
MAX_BYTES = 32 * 2**20  # of an image as it is sent
MAX_PIXELS = 50_000_000  # of an image once it is decoded
MAX_ASPECT_RATIO = 50
MAX_IMAGES = 64  # in a request
DEFAULT_TOP_K = 5


class EndpointHandler:
    """A classifier that is loaded once and then called for each request.

    Args:
        path: the repo folder.
    """

    def __init__(self, path: str = ""):
        options = {"local_files_only": True}  # the server has put the repo there
        self.processor = AutoImageProcessor.from_pretrained(path, **options)
        model = AutoModelForImageClassification.from_pretrained(path, trust_remote_code=True, **options)
        self.model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        # The server itself decodes what is sent as image/png and the like, and refuses twice this number.
        Image.MAX_IMAGE_PIXELS = MAX_PIXELS

    def __call__(self, data: dict[str, Any]) -> list:
        """Classify the images in `data["inputs"]`: base64 text, bytes, a Pillow image, or a list of them.

        Returns:
            The `top_k` likeliest classes of an image, `[{"label": str, "score": float}, ...]`, or a list of such lists.

        Raises:
            ValueError: if there are no images, or one cannot be read, or is animated or too large, or a parameter is
                unknown.
        """
        top_k = read_top_k(data.get("parameters"))
        inputs = data.get("inputs")
        batch = inputs if isinstance(inputs, list) else [inputs]
        if not 1 <= len(batch) <= MAX_IMAGES:
            raise ValueError(f"inputs holds {len(batch)} images, expected 1 to {MAX_IMAGES}: split the request.")
        # One at a time: a decoded image may be hundreds of times as large as what the network sees of it.
        pixel_values = torch.cat([self._pixel_values(item, number) for number, item in enumerate(batch, 1)])
        answers = self._classify(pixel_values, top_k)
        return answers if isinstance(inputs, list) else answers[0]

    def _pixel_values(self, item: Any, number: int) -> torch.Tensor:
        return self.processor(read_image(item, number), return_tensors="pt").pixel_values

    @torch.inference_mode()
    def _classify(self, pixel_values: torch.Tensor, top_k: int) -> list[list[dict[str, Any]]]:
        config = self.model.config
        logits = self.model(pixel_values.to(self.model.device, self.model.dtype)).logits.float()
        several_labels = config.problem_type == "multi_label_classification" or config.num_labels == 1
        scores = logits.sigmoid() if several_labels else logits.softmax(dim=-1)
        best = scores.topk(min(top_k, scores.shape[-1]))
        return [
            [{"label": config.id2label[label], "score": score} for label, score in zip(labels, values)]
            for labels, values in zip(best.indices.tolist(), best.values.tolist())
        ]


def read_top_k(parameters: Any) -> int:
    """The number of classes to name, from a request's `parameters`."""
    if parameters is None:
        return DEFAULT_TOP_K
    if not isinstance(parameters, dict):
        raise ValueError(f"parameters is a {type(parameters).__name__}, expected an object such as {{'top_k': 5}}.")
    unknown = sorted(set(parameters) - {"top_k"})
    if unknown:
        raise ValueError(f"Unknown parameter {unknown[0]!r}: top_k is the only one.")
    top_k = parameters.get("top_k", DEFAULT_TOP_K)
    if type(top_k) is not int or top_k < 1:
        raise ValueError(f"top_k is {top_k!r}, expected a whole number of at least 1.")
    return top_k


def read_image(item: Any, number: int) -> Image.Image:
    """An RGB image, the right way up, from base64 text, bytes, or an image that the server decoded.

    Args:
        item: what the request holds.
        number: which image of the request it is, for messages.
    """
    if isinstance(item, Image.Image):
        image = item
    elif isinstance(item, bytes | str):
        image = open_image(item if isinstance(item, bytes) else decode_base64(item, number), number)
    else:
        raise ValueError(f"Image {number} is missing: expected base64 text in inputs, not {type(item).__name__}.")
    check_size(image, number)
    try:
        animated = image.format != "MPO" and getattr(
            image, "is_animated", False
        )  # a phone's MPO is a photo with extras
        decoded = ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # Pillow's decoders raise many kinds
        raise ValueError(f"Image {number} is broken or cut off: check the file, and that it was sent whole.") from error
    if animated:
        raise ValueError(f"Image {number} is animated: send one frame of it.")
    return decoded


def decode_base64(text: str, number: int) -> bytes:
    """The bytes of an image sent as base64 text, with or without `data:image/png;base64,` before it."""
    if text.startswith(("http://", "https://")):
        raise ValueError(f"Image {number} is a URL, which is not fetched: send the image itself, as base64 text.")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"Image {number} is not base64 text: encode the bytes of an image file.") from error


def open_image(content: bytes, number: int) -> Image.Image:
    """An image of which the header was read and nothing decoded yet."""
    if not content:
        raise ValueError(f"Image {number} is empty: send the bytes of an image file.")
    if len(content) > MAX_BYTES:
        raise ValueError(f"Image {number} has {len(content)} bytes, expected at most {MAX_BYTES}: send a smaller one.")
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ValueError(f"Image {number} has too many pixels, expected at most {MAX_PIXELS}: resize it.") from error
    except Exception as error:  # Pillow's readers raise many kinds
        raise ValueError(
            f"Image {number} is not an image that can be read: expected one of {', '.join(FORMATS)}."
        ) from error


def check_size(image: Image.Image, number: int) -> None:
    """Raise ValueError if an image is too large to decode, or so narrow that resizing it would make it so."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"Image {number} is {width}x{height} pixels, expected at most {MAX_PIXELS}: resize it.")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ValueError(
            f"Image {number} is {width}x{height} pixels, expected sides of at most 1:{MAX_ASPECT_RATIO}: crop it."
        )
