"""The options of an evaluation, and of a prediction."""

from dataclasses import dataclass
from typing import Literal

from ..options import fraction, non_negative_int, option, positive_int
from ..options import image_size as pixels

SEVERITIES = [1, 2, 3, 4, 5]
SLIDING_WINDOW = (
    "a segmenter sees windows of so many pixels, one number or HEIGHTxWIDTH, of each image at its own size; logits"
    " are averaged where they overlap"
)
WINDOW_STRIDE = "pixels from a window to the next, one number or ROWSxCOLUMNS [two thirds of the window]"


@dataclass
class EvaluationOptions:
    """What is measured, beside the data, and how."""

    model: str = option(help="a repo folder, a Hub id or the name of a trained network of the zoo")
    split: Literal["train", "validation", "all"] = option(
        "validation",
        "all: of a set without a validation split, nothing held out",
        choices=["train", "validation", "all"],
    )
    per_device_eval_batch_size: int = option(128, type=positive_int)
    mixed_precision: Literal["no", "fp16", "bf16"] = option("no", choices=["no", "fp16", "bf16"])
    output_dir: str | None = option(None, "folder for evaluation.json and the plots [evaluations/MODEL-DATASET]")
    corruptions: list[str] | None = option(
        None,
        "accuracy under these corruptions: noise, blur, weather, digital, extra, all, or single ones"
        " [without a name: the paper's 15]",
        nargs="*",
        metavar="NAME",
    )
    severities: list[int] = option(
        [], "of corruption [1 2 3 4 5]", nargs="+", type=int, choices=SEVERITIES, metavar="SEVERITY"
    )
    patch_attack: str | None = option(
        None,
        "accuracy where a square of each image is optimized against the model: pixels a side, and steps",
        metavar="SIZE,STEPS",
    )
    baseline: str | None = option(None, "another model's evaluation.json to compare corruption errors with")
    sliding_window: int | list[int] | None = option(None, SLIDING_WINDOW, type=pixels, metavar="SIZE")
    window_stride: int | list[int] | None = option(None, WINDOW_STRIDE, type=pixels, metavar="STRIDE")
    image_size: int | list[int] | None = option(
        None,
        "pixels a side, or height and width, in place of the model's own; positions and static keys are resized",
        type=pixels,
        metavar="N|HEIGHTxWIDTH",
    )

    def __post_init__(self) -> None:
        if self.corruptions is None and (self.severities or self.baseline):
            raise ValueError("--severities and --baseline go with --corruptions: give it, or leave them out.")
        check_stride_has_window(self.window_stride, self.sliding_window)
        if self.image_size is not None and self.sliding_window is not None:
            raise ValueError("--image_size resizes images that --sliding_window takes at their own size: give one.")
        self.severities = sorted(set(self.severities)) or SEVERITIES


@dataclass
class PredictionOptions:
    """What is written of each image, and how it is computed.

    Raises:
        ValueError: if two of masks, objects and features are asked for, or of a graph what it does not do.
    """

    top_k: int = option(5, "classes of each image, the likeliest or largest first", type=positive_int)
    embeddings: bool = option(False, "write the pooled features in place of classes")
    masks: str | None = option(
        None,
        "folder for a segmenter's masks, PNG files of class numbers; the table has the classes of most pixels",
        metavar="FOLDER",
    )
    objects: bool = option(False, "write what a detector finds as COCO's JSON, to an output that ends in .json")
    overlays: str | None = option(
        None,
        "folder for pictures of the images under their masks or objects, PNG files",
        metavar="FOLDER",
    )
    sliding_window: int | list[int] | None = option(None, SLIDING_WINDOW, type=pixels, metavar="SIZE")
    window_stride: int | list[int] | None = option(None, WINDOW_STRIDE, type=pixels, metavar="STRIDE")
    min_score: float = option(0.5, "objects of a lower score are left out", type=fraction)
    batch_size: int = option(16, "images that go through the model at once", type=positive_int)
    num_workers: int = option(0, "processes that load images", type=non_negative_int)
    mixed_precision: Literal["no", "fp16", "bf16"] = option("no", choices=["no", "fp16", "bf16"])
    runtime: Literal["torch", "onnxruntime", "openvino"] = option(
        "torch",
        "what computes a classifier; all but torch take the graph that export-onnx wrote, on the CPU",
        choices=["torch", "onnxruntime", "openvino"],
    )
    quantized: bool = option(False, "take the graph in 8 bits")

    def __post_init__(self) -> None:
        asked = {"masks": self.masks is not None, "objects": self.objects, "embeddings": self.embeddings}
        both = [name for name, is_asked in asked.items() if is_asked]
        if len(both) > 1:
            raise ValueError(f"--{both[0]} and --{both[1]} are both given: leave one out.")
        check_stride_has_window(self.window_stride, self.sliding_window)
        if self.overlays is not None and self.masks is None and not self.objects:
            raise ValueError("--overlays are of masks or objects: give it with --masks or --objects, or leave it out.")
        if self.sliding_window is not None and self.masks is None:
            raise ValueError("--sliding_window is a segmenter's: give it with --masks, or leave it out.")
        if self.runtime == "torch":
            if self.quantized:
                raise ValueError("--quantized is a graph's: take it with --runtime onnxruntime or openvino.")
            return
        beyond = {
            "--embeddings": self.embeddings,
            "--masks": self.masks is not None,
            "--objects": self.objects,
            "--mixed_precision": self.mixed_precision != "no",
        }
        for name, given in beyond.items():
            if given:
                raise ValueError(f"{name} goes with --runtime torch: an exported graph has logits only, in float32.")


def check_stride_has_window(stride: int | list[int] | None, window: int | list[int] | None) -> None:
    """Raise ValueError if there is a stride and nothing that it is of."""
    if stride is not None and window is None:
        raise ValueError("--window_stride goes with --sliding_window: give it, or leave the stride out.")
