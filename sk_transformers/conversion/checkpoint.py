"""What is known of a source once it is read."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from .names import CodeBase


@dataclass
class Checkpoint:
    """A checkpoint, and all that is known of its network beside the tensors.

    Args:
        name: as the user gave it.
        code_base: whose names the tensors carry.
        state_dict: the tensors under those names.
        settings: fields of our configuration that the source tells.
        network: the network itself, if the source is one and not a file.
        runs_in: the library that runs it.
        data_config: what its image processor does, in timm's terms: `mean`, `std`, `crop_pct`, ...
        image_processor: the image processor itself, if the source has one of transformers'.
        id2label: the names of the classes, if the source has them.
        left_out: tensors of the source that are not converted, by the reason why, a clause such as `"which transformers
            leaves out too"`.
        assumed: what was taken for granted in reading it.
        license: of the weights, as the Hub names it, if the source tells.
        hub_id: of the source, if it is on the Hub.
    """

    name: str
    code_base: CodeBase
    state_dict: dict[str, torch.Tensor]
    settings: dict[str, Any] = field(default_factory=dict)
    network: nn.Module | None = None
    runs_in: str = ""
    data_config: dict[str, Any] = field(default_factory=dict)
    image_processor: Any = None
    id2label: dict[int, str] | None = None
    left_out: dict[str, list[str]] = field(default_factory=dict)
    assumed: list[str] = field(default_factory=list)
    license: str | None = None
    hub_id: str | None = None
