"""The options of an evaluation."""

from dataclasses import dataclass
from typing import Literal

from ..options import option, positive_int

SEVERITIES = [1, 2, 3, 4, 5]


@dataclass
class EvaluationOptions:
    """What is measured, beside the data, and how."""

    model: str = option(help="a repo folder or a Hub id")
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
    baseline: str | None = option(None, "another model's evaluation.json to compare corruption errors with")

    def __post_init__(self) -> None:
        if self.corruptions is None and (self.severities or self.baseline):
            raise ValueError("--severities and --baseline go with --corruptions: give it, or leave them out.")
        self.severities = sorted(set(self.severities)) or SEVERITIES
