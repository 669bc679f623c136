"""What semantic segmenters share: UperNet over feature maps, padding to whole strides, and the loss.

The heads are transformers' own (`transformers.models.upernet`), after "Unified Perceptual Parsing for Scene
Understanding" (Xiao et al., arXiv 1807.10221).
"""

import copy
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.configuration_utils import PretrainedConfig
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.models.upernet.modeling_upernet import UperNetFCNHead, UperNetHead
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple

from .modeling_common import StaticKeyPreTrainedModel, check_pixel_values
from .modeling_stages import StagedBackbone

POOL_SCALES = (1, 2, 3, 6)
AUXILIARY_LEVEL = 2  # the third of four maps, as mmsegmentation has it


class UperNet(nn.Module):
    """Feature maps, the finest first, to logits of pixels; while training with a second, auxiliary head.

    Args:
        config: of the network; its `segmentation_*` fields and `num_labels` are read.
        channels: of each map.
    """

    def __init__(self, config: Any, channels: list[int]):
        super().__init__()
        if (config.num_labels or 0) < 2:
            raise ValueError(f"num_labels is {config.num_labels}, expected at least 2 classes to tell pixels apart by.")
        head: Any = PretrainedConfig.from_dict(
            {
                "num_labels": config.num_labels,
                "hidden_size": config.segmentation_hidden_size,
                "pool_scales": POOL_SCALES,
                "auxiliary_in_channels": None,
                "auxiliary_channels": max(config.segmentation_hidden_size // 2, 1),
                "auxiliary_num_convs": 1,
                "auxiliary_concat_input": False,
            }
        )
        self.auxiliary_weight = config.segmentation_auxiliary_weight
        self.ignore_index = config.segmentation_ignore_index
        self.decode_head = UperNetHead(head, channels)
        has_auxiliary = self.auxiliary_weight > 0
        self.auxiliary_head = (
            UperNetFCNHead(head, channels, in_index=min(AUXILIARY_LEVEL, len(channels) - 1)) if has_auxiliary else None
        )

    def forward(
        self,
        maps: tuple[torch.Tensor, ...],
        padded_size: torch.Size,
        labels: torch.Tensor | None,
        size: torch.Size,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return logits `(batch, num_labels, height, width)` of the image without padding, and the loss.

        Args:
            maps: `(batch, channels, rows, columns)` each.
            padded_size: `(height, width)` in pixels of what the maps were computed from.
            labels: `(batch, height, width)`, or None for no loss.
            size: `(height, width)` in pixels of the image.
        """
        if self.training and maps[0].shape[0] == 1 and any(isinstance(one, nn.BatchNorm2d) for one in self.modules()):
            raise ValueError(
                "A segmenter in training mode got one image, expected at least 2: its head normalizes over the images"
                " of a batch. Call eval() to use it, or convert it to nn.SyncBatchNorm to train on several devices."
            )
        logits = resize_and_crop(self.decode_head(maps), padded_size, size)
        if labels is None:
            return logits, None
        check_label_maps(labels, logits, self.ignore_index)
        loss = pixel_loss(logits, labels, self.ignore_index)
        if self.auxiliary_head is not None:
            auxiliary = resize_and_crop(self.auxiliary_head(maps), padded_size, size)
            loss = loss + self.auxiliary_weight * pixel_loss(auxiliary, labels, self.ignore_index)
        return logits, loss


def pad_to_multiple(pixel_values: torch.Tensor, multiples: tuple[int, int]) -> torch.Tensor:
    """Return images `(batch, channels, height, width)` with zeros, the mean of normalized ones, at right and bottom."""
    height, width = pixel_values.shape[2:]
    return F.pad(pixel_values, (0, -width % multiples[1], 0, -height % multiples[0]))


def resize_and_crop(logits: torch.Tensor, padded_size: torch.Size, size: torch.Size) -> torch.Tensor:
    """Return logits of the pixels of an image, without those of its padding."""
    resized = F.interpolate(logits, padded_size, mode="bilinear", align_corners=False)
    return resized[:, :, : size[0], : size[1]]


def pixel_loss(logits: torch.Tensor, labels: torch.Tensor, ignore_index: int) -> torch.Tensor:
    """Return the mean cross-entropy of the pixels that have a class; 0, not nothing over nothing, where none has."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # 16 bits cannot hold a sum over pixels
    total = F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="sum")
    return total / (labels != ignore_index).sum().clamp(min=1)


def check_label_maps(labels: torch.Tensor, logits: torch.Tensor, ignore_index: int) -> None:
    """Raise unless `labels` are maps of integers, as large as the image, of classes that `logits` has.

    Only classes in the CPU's memory are looked at: reading others would make every step wait for the device.
    """
    expected = (logits.shape[0], *logits.shape[2:])
    if tuple(labels.shape) != expected or labels.dtype != torch.int64:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)} and are {labels.dtype}, expected {expected} of torch.int64: the"
            " class of each pixel of pixel_values."
        )
    if labels.device.type != "cpu" or torch.compiler.is_compiling():
        return
    num_labels = logits.shape[1]
    wrong = labels[((labels < 0) | (labels >= num_labels)) & (labels != ignore_index)]
    if wrong.numel():
        raise ValueError(
            f"labels hold class {wrong[0].item()}, but the model has {num_labels} classes, 0 to {num_labels - 1}, and"
            f" {ignore_index} for pixels to ignore: check the data, or set num_labels."
        )


class Segmenter(StaticKeyPreTrainedModel):
    """UperNet over the maps of a backbone, the next class that a segmenter is made of."""

    upernet: UperNet

    @property
    def padded_multiples(self) -> tuple[int, int]:
        """What height and width of an image are padded to multiples of, in pixels."""
        raise NotImplementedError

    def to_pyramid(self, maps: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Return the maps of the head, the finest first, of those of the backbone."""
        return maps

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SemanticSegmenterOutput:
        """Give each pixel of images of any size a class; that of the model without a head says what the rest is.

        Images are padded with zeros to whole strides of the coarsest map, and logits are those of the image alone.

        Args:
            labels: `(batch, height, width)` class indices, and `segmentation_ignore_index` where a pixel has none.

        Returns:
            `logits`, `(batch, num_labels, height, width)` in pixels of the input, and `loss` if there are labels.

        Raises:
            ValueError: if images have another channel count or dtype than the network takes, or labels another size
                than their images or classes that there are not.
        """
        check_pixel_values(pixel_values, next(self.base_model.parameters()), self.config.num_channels)
        padded = pad_to_multiple(pixel_values, self.padded_multiples)
        backbone: Any = super()
        features = backbone.forward(padded, **kwargs, return_dict=True)
        maps = self.to_pyramid(features.feature_maps)
        logits, loss = self.upernet(maps, padded.shape[2:], labels, pixel_values.shape[2:])
        return SemanticSegmenterOutput(
            loss=loss, logits=logits, hidden_states=features.hidden_states, attentions=features.attentions
        )


class StagedSegmenter(Segmenter, StagedBackbone):  # pyright: ignore[reportIncompatibleMethodOverride] (forward)
    """UperNet over the maps of a backbone of stages: of all stages, or of `out_features` if they are several."""

    def __init__(self, config: Any):
        config = copy.deepcopy(config)  # whose maps are set here, and not the caller's
        if len(config.out_features or ()) < 2:
            config.set_output_features_output_indices(out_features=config.stage_names[1:], out_indices=None)
        super().__init__(config)
        self.num_labels = config.num_labels
        self.upernet = UperNet(config, self.channels)
        self.post_init()

    @property
    def padded_multiples(self) -> tuple[int, int]:
        return self.config.total_stride, self.config.total_stride


class FeaturePyramid(nn.Module):
    """Four maps of one size to strides of a quarter, a half, one and two times theirs, as BEiT does (arXiv 2106.08254).

    Args:
        width: channels of the maps, before and after.
    """

    def __init__(self, width: int):
        super().__init__()
        self.upsample4 = nn.Sequential(
            nn.ConvTranspose2d(width, width, 2, 2),
            nn.BatchNorm2d(width),
            nn.GELU(),
            nn.ConvTranspose2d(width, width, 2, 2),
        )
        self.upsample2 = nn.ConvTranspose2d(width, width, 2, 2)
        self.downsample2 = nn.MaxPool2d(2, 2)

    def forward(self, maps: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return self.upsample4(maps[0]), self.upsample2(maps[1]), maps[2], self.downsample2(maps[3])
