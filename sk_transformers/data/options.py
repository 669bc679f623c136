"""The options on data, which training, evaluation and export share, and those on augmentation."""

from dataclasses import dataclass
from typing import Literal

from ..options import fraction, non_negative, non_negative_int, option, positive, positive_int, proper_fraction


@dataclass
class DataOptions:
    """Which images and labels, and how they are read.

    Raises:
        ValueError: if an option on masks or objects is given for other labels.
    """

    dataset: str = option(
        help="'digits', 'fashion-mnist', a folder with one folder of images a class or with a table of labels, a folder"
        " of images and masks or objects, parquet, or a Hub dataset"
    )
    dataset_config: str | None = option(None, "configuration of a Hub dataset")
    dataset_revision: str | None = option(None, "commit, branch or tag of a Hub dataset")
    train_split: str | None = option(None, "name of the training split [train]")
    validation_split: str | None = option(
        None, "name of the validation split [validation, or test]; the training split's own holds out a part of it"
    )
    image_column: str | None = option(None, "column of the images in parquet or on the Hub [the first of images]")
    label_column: str | None = option(
        None,
        "column of the classes [label, labels, fine_label, target, ...], the masks [annotation, mask, ...] or the"
        " objects [the first with boxes]",
    )
    problem_type: Literal["single_label", "multi_label", "segmentation", "detection"] = option(
        "single_label",
        "multi_label: an image has several labels, or none; segmentation: each of its pixels has one, in a mask;"
        " detection: it has objects",
        choices=["single_label", "multi_label", "segmentation", "detection"],
    )
    classes: list[str] | None = option(
        None,
        "names of the classes in the order of their numbers, a file with one a line, or how many there are [of masks"
        " classes.txt in the folder; of objects those that they have, sorted]",
        nargs="+",
        metavar="NAME",
    )
    ignore_index: int | None = option(
        None, "number in masks, beside 255, of pixels that have no class", type=non_negative_int
    )
    reduce_labels: bool = option(False, "masks count classes from 1, and 0 is a pixel without one")
    box_only: bool = option(False, "detection: read the boxes of objects, and not their masks")
    box_format: Literal["xywh", "xyxy"] = option(
        "xywh",
        "detection: what boxes in a column are, left, top, width and height, or left, top, right and bottom, in pixels",
        choices=["xywh", "xyxy"],
    )
    file_column: str | None = option(None, "column of a table that names the images [the one that does]")
    train_val_split: float = option(
        0.2, "fraction of the training images held out where no other split is for validation", type=proper_fraction
    )
    split_seed: int = option(0, "seed of that split, apart from the run's", type=non_negative_int)
    max_train_samples: int | None = option(None, "train on so many images, chosen at random", type=positive_int)
    max_eval_samples: int | None = option(None, "evaluate on so many images, chosen at random", type=positive_int)
    on_bad_image: Literal["error", "skip"] = option(
        "error", "what to do with a file that is not a readable image, or has no label", choices=["error", "skip"]
    )
    num_workers: int = option(0, "processes that load images", type=non_negative_int)

    def __post_init__(self) -> None:
        on_masks = {"ignore_index": self.ignore_index, "reduce_labels": self.reduce_labels}
        on_objects = {"box_only": self.box_only, "box_format": self.box_format != "xywh"}
        if self.problem_type != "detection" and any(on_objects.values()):
            given = next(name for name, is_given in on_objects.items() if is_given)
            raise ValueError(f"--{given} is for objects, and --problem_type is {self.problem_type}: leave it out.")
        if self.classes is not None and self.problem_type not in ("segmentation", "detection"):
            raise ValueError(
                f"--classes is for masks and objects, and --problem_type is {self.problem_type}: leave it out, or pass"
                " --problem_type segmentation or detection."
            )
        given = next((name for name, value in on_masks.items() if value is not None and value is not False), None)
        if given is not None and self.problem_type != "segmentation":
            raise ValueError(
                f"--{given} is for masks, and --problem_type is {self.problem_type}: leave it out, or pass"
                " --problem_type segmentation."
            )

    @property
    def skip_unreadable(self) -> bool:
        """Whether unreadable images are left out, rather than an error."""
        return self.on_bad_image == "skip"


@dataclass
class AugmentationOptions:
    """What happens to training images at random."""

    crop_scale: list[float] = option([0.35, 1.0], "area of random crops", type=float, nargs=2, metavar=("MIN", "MAX"))
    crop_ratio: list[float] = option(
        [0.75, 4 / 3], "their width over their height", type=float, nargs=2, metavar=("MIN", "MAX")
    )
    scale_jitter: list[float] = option(
        [0.5, 2.0],
        "pixels and objects: size of an image before it is cropped, as a factor on that at which it fits into the crop",
        type=positive,
        nargs=2,
        metavar=("MIN", "MAX"),
    )
    crop_padding: int = option(0, "instead: resize, pad by so many pixels, and crop", type=non_negative_int)
    hflip: float = option(0.5, "probability of a left-right flip", type=fraction)
    vflip: float = option(0.0, "probability of an up-down flip", type=fraction)
    rotation: float = option(0.0, "largest random rotation, degrees", type=non_negative)
    color_jitter: float = option(0.0, "largest change of brightness, contrast and saturation", type=non_negative)
    auto_augment: str | None = option(None, "of timm, such as rand-m9-mstd0.5-inc1", metavar="POLICY")
    random_erasing: float = option(0.0, "probability of erasing a rectangle", type=fraction)
    mixup: float = option(0.0, "of the beta distribution that images are mixed by", type=non_negative, metavar="ALPHA")
    cutmix: float = option(0.0, "of the beta distribution that areas are cut by", type=non_negative, metavar="ALPHA")
    mixup_prob: float = option(1.0, "probability that a batch is mixed or cut", type=fraction)
    mixup_switch_prob: float = option(0.5, "probability of CutMix where both are on", type=fraction)
    mixup_mode: Literal["batch", "pair", "elem"] = option(
        "batch", "what shares a draw", choices=["batch", "pair", "elem"]
    )
    mixup_off_epoch: float | None = option(None, "epoch from which nothing is mixed or cut", type=non_negative)
    repeated_augmentation: int = option(1, "times that each image comes in a row", type=positive_int)

    def __post_init__(self) -> None:
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(
                f"--crop_scale is {self.crop_scale}, expected two fractions of the area, smaller first, of at most 1."
            )
        if self.scale_jitter[0] > self.scale_jitter[1]:
            raise ValueError(f"--scale_jitter is {self.scale_jitter}, expected two factors, smaller first.")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError(
                f"--crop_ratio is {self.crop_ratio}, expected two ratios of width to height, smaller first."
            )

    @property
    def mixes(self) -> bool:
        """Whether Mixup or CutMix is on."""
        return bool(self.mixup or self.cutmix)
