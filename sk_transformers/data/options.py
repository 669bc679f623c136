"""The options on data, which training, evaluation and export share."""

from dataclasses import dataclass
from typing import Literal

from ..options import non_negative_int, option, positive_int, proper_fraction


@dataclass
class DataOptions:
    """Which images and labels, and how they are read."""

    dataset: str = option(
        help="'digits', 'fashion-mnist', a folder with one folder of images a class, parquet, or a Hub dataset"
    )
    dataset_config: str | None = option(None, "configuration of a Hub dataset")
    dataset_revision: str | None = option(None, "commit, branch or tag of a Hub dataset")
    train_split: str | None = option(None, "name of the training split [train]")
    validation_split: str | None = option(None, "name of the validation split [validation, or test]")
    image_column: str | None = option(None, "column of the images [the first that holds images]")
    label_column: str | None = option(None, "column of the classes [label, labels, fine_label or target]")
    train_val_split: float = option(
        0.2, "fraction of the training images held out when there is no validation split", type=proper_fraction
    )
    split_seed: int = option(0, "seed of that split, apart from the run's", type=non_negative_int)
    max_train_samples: int | None = option(None, "train on so many images, chosen at random", type=positive_int)
    max_eval_samples: int | None = option(None, "evaluate on so many images, chosen at random", type=positive_int)
    on_unreadable: Literal["error", "skip"] = option(
        "error", "what to do with an image that cannot be read", choices=["error", "skip"]
    )
    num_workers: int = option(0, "processes that load images", type=non_negative_int)

    @property
    def skip_unreadable(self) -> bool:
        """Whether unreadable images are left out, rather than an error."""
        return self.on_unreadable == "skip"
