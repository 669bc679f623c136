"""Answer requests to a model on Hugging Face Inference Endpoints.

A request is an image file as it is, or JSON as `huggingface_hub.InferenceClient.image_classification` sends it:

    {"inputs": "<base64>", "parameters": {"top_k": 3}}      one image
    {"inputs": ["<base64>", "<base64>"]}                    several

The parameters, each of which may be null or left out:

    top_k                how many classes to name, 5
    function_to_apply    "softmax", "sigmoid" or "none", which makes scores of logits; the model's own

The answer is `[{"label": ..., "score": ...}, ...]`, the likeliest class first, in a list for each image if there were
several. What cannot be read raises ValueError with one sentence, which the server sends back with status 400.

Images are decoded as in training, by `decoding.py` beside this file, which says what each kind of image means.

Protocol: https://huggingface.co/docs/inference-endpoints/guides/custom_handler.
"""

import base64
import binascii
import io
from typing import Any

import torch
from decoding import UnreadableImage, decode  # the file beside this one
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

MAX_BYTES = 32 * 2**20  # of an image as it is sent
MAX_PIXELS = 50_000_000  # of an image once it is decoded
MAX_IMAGES = 64  # in a request
DEFAULT_TOP_K = 5
FUNCTIONS = {
    "softmax": lambda logits: logits.softmax(dim=-1),
    "sigmoid": torch.sigmoid,
    "none": lambda logits: logits,
}


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
            ValueError: if there are no images, or one is unreadable or too large, or a key or parameter is unknown.
        """
        check_keys("key", data, ("inputs", "parameters"))
        top_k, function = read_parameters(data.get("parameters"))
        inputs = data.get("inputs")
        batch = inputs if isinstance(inputs, list) else [inputs]
        if not 1 <= len(batch) <= MAX_IMAGES:
            raise ValueError(f"inputs holds {len(batch)} images, expected 1 to {MAX_IMAGES}: split the request.")
        # One at a time: a decoded image may be hundreds of times as large as what the network sees of it.
        pixel_values = torch.cat([self._pixel_values(item, number) for number, item in enumerate(batch, 1)])
        answers = self._classify(pixel_values, top_k, function or self._own_function())
        return answers if isinstance(inputs, list) else answers[0]

    def _pixel_values(self, item: Any, number: int) -> torch.Tensor:
        return self.processor(read_image(item, number), return_tensors="pt").pixel_values

    def _own_function(self) -> str:
        config = self.model.config
        several_labels = config.problem_type == "multi_label_classification" or config.num_labels == 1
        return "sigmoid" if several_labels else "softmax"

    @torch.inference_mode()
    def _classify(self, pixel_values: torch.Tensor, top_k: int, function: str) -> list[list[dict[str, Any]]]:
        logits = self.model(pixel_values.to(self.model.device, self.model.dtype)).logits.float()
        scores = FUNCTIONS[function](logits)
        best = scores.topk(min(top_k, scores.shape[-1]))
        id2label = self.model.config.id2label
        return [
            [{"label": id2label[label], "score": score} for label, score in zip(labels, values)]
            for labels, values in zip(best.indices.tolist(), best.values.tolist())
        ]


def read_parameters(parameters: Any) -> tuple[int, str | None]:
    """Return a request's `top_k` and `function_to_apply`, None for the model's own."""
    parameters = {} if parameters is None else parameters
    if not isinstance(parameters, dict):
        raise ValueError(f"parameters is a {type(parameters).__name__}, expected an object such as {{'top_k': 5}}.")
    check_keys("parameter", parameters, ("top_k", "function_to_apply"))
    top_k, function = parameters.get("top_k"), parameters.get("function_to_apply")
    top_k = DEFAULT_TOP_K if top_k is None else top_k
    if type(top_k) is not int or top_k < 1:
        raise ValueError(f"top_k is {top_k!r}, expected a whole number of at least 1.")
    if not (function is None or (isinstance(function, str) and function in FUNCTIONS)):
        raise ValueError(f"function_to_apply is {function!r}, expected one of {', '.join(FUNCTIONS)}.")
    return top_k, function


def check_keys(kind: str, given: dict[str, Any], known: tuple[str, ...]) -> None:
    """Raise ValueError if a key is unknown, so that nothing that was asked for is passed over."""
    unknown = sorted(map(str, set(given) - set(known)))
    if unknown:
        raise ValueError(f"Unknown {kind} {unknown[0]!r}: expected {' or '.join(known)}.")


def read_image(item: Any, number: int) -> Image.Image:
    """Return an upright RGB image from base64 text, bytes, or an image that the server decoded.

    Args:
        item: what the request holds.
        number: which image of the request it is, for messages.
    """
    if isinstance(item, Image.Image):
        file = item
    elif isinstance(item, bytes | str):
        file = open_content(item if isinstance(item, bytes) else decode_base64(item, number), number)
    else:
        raise ValueError(f"Image {number} is missing: expected base64 text in inputs, not {type(item).__name__}.")
    try:
        return decode(file, MAX_PIXELS)
    except UnreadableImage as error:
        raise ValueError(f"Image {number} is unreadable ({error}).") from error


def decode_base64(text: str, number: int) -> bytes:
    """Return the bytes of an image sent as base64 text, with or without `data:image/png;base64,` before it."""
    if text.startswith(("http://", "https://")):
        raise ValueError(f"Image {number} is a URL, which is not fetched: send the image itself, as base64 text.")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"Image {number} is not base64 text: encode the bytes of an image file.") from error


def open_content(content: bytes, number: int) -> io.BytesIO:
    """Return the bytes of an image as a file; ValueError if there are too many."""
    if len(content) > MAX_BYTES:
        raise ValueError(f"Image {number} has {len(content)} bytes, expected at most {MAX_BYTES}: send a smaller one.")
    return io.BytesIO(content)
