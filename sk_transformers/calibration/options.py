"""The options of a calibration."""

from dataclasses import dataclass
from typing import Literal

from ..options import fraction, non_negative, non_negative_int, option, positive, positive_int, proper_fraction

KIND_NAMES = ("static_map", "static_key", "static_key+bias", "conv_static_key", "conv_static_key+bias")


@dataclass
class LayerOptions:
    """Which layers lose their attention, and what takes its place."""

    layers: str | None = option(
        None, "by hand, counted from 0: such as 1-4,10 [by damage, until --max_error or --target_macs]"
    )
    mixer: list[str] = option(
        [], "what may take the place of attention [by hand static_key+bias, else all kinds]", nargs="+",
        choices=list(KIND_NAMES), metavar="KIND",
    )  # fmt: skip
    max_error: float | None = option(
        None, "stop before this unexplained variance of the last hidden states [0.1]", type=positive
    )
    target_macs: float | None = option(None, "stop at so many multiply-adds for an image, such as 4e9", type=positive)

    def __post_init__(self) -> None:
        if self.layers is not None and (self.max_error is not None or self.target_macs is not None):
            raise ValueError("--layers names the layers; leave it out, or --max_error and --target_macs.")
        if self.layers is not None and len(self.mixer) > 1:
            raise ValueError(
                f"--layers takes one --mixer for all of them, not {len(self.mixer)}: {', '.join(self.mixer)}."
            )


@dataclass
class FitOptions:
    """Which images are used, and how each layer is fitted to them."""

    image_size: int | None = option(None, "pixels a side that the keys are made for [the model's]", type=positive_int)
    max_images: int = option(600, "images that calibrate", type=positive_int)
    held_out: int = option(200, "other images that measure", type=positive_int)
    mirrored: bool = option(True, "images calibrate mirrored, too")
    labels: bool = option(True, "of a classifier measure accuracy, by the images' labels")
    fit_steps: int = option(150, "of each layer, 0 for the closed forms", type=non_negative_int)
    fit_batch_size: int = option(48, "images", type=positive_int)
    fit_learning_rate: float = option(0.02, "of keys and biases", type=positive)
    projection_learning_rate: float = option(
        1e-3, "of the projections of query, value and output; 0 leaves them as they were trained", type=non_negative
    )
    kept_memory: float = option(2.0, "GiB of memory for images kept as tokens", type=positive)
    seed: int = option(0, type=non_negative_int)


@dataclass
class DistillationOptions:
    """Training end to end afterwards, with the untouched network as the teacher."""

    distill_steps: int = option(0, "optimizer steps; 0 for none", type=non_negative_int)
    train: Literal["new", "all"] = option("new", "new: keys and biases; all: everything", choices=["new", "all"])
    distill_batch_size: int = option(16, "images a process", type=positive_int)
    learning_rate: float = option(5e-4, "of keys and biases, at its peak", type=positive)
    other_learning_rate: float = option(5e-6, "of everything else, with --train all", type=positive)
    crop_scale: float = option(0.5, "smallest area of random crops", type=proper_fraction)
    color_jitter: float = option(0.3, "largest change of brightness, contrast and saturation", type=fraction)
    ema_decay: float | None = option(0.98, "of the average of the weights, which is what is left", type=proper_fraction)
    mixed_precision: Literal["no", "fp16", "bf16"] = option(
        "no", "of this training; bf16 of the fits of layers, too", choices=["no", "fp16", "bf16"]
    )
    report_to: list[str] = option(["none"], nargs="+", choices=["tensorboard", "wandb", "trackio", "none"])
    checkpointing_steps: int = option(100, "optimizer steps between checkpoints", type=positive_int)
