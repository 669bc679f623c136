"""What detectors share: Mask R-CNN over the maps of a backbone, and its answers in the form of transformers' detectors.

The parts are torchvision's (`torchvision.models.detection`), after "Mask R-CNN" (He et al., arXiv 1703.06870) and
"Feature Pyramid Networks for Object Detection" (Lin et al., arXiv 1612.03144), with the settings of its `MaskRCNN`.
torchvision is imported when a detector is built, and not before.
"""

import copy
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import log2
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple

from .modeling_common import StaticKeyPreTrainedModel, check_pixel_values
from .modeling_stages import StagedBackbone

ASPECT_RATIOS = (0.5, 1.0, 2.0)  # of anchors
BOX_SIZE, MASK_SIZE = 7, 14  # positions a side of what is cut out of the maps for a box, and for its mask
COUNTED_PROPOSALS = 1000  # of an image, at most, when it is not trained on
NO_CHANCE = -1000.0  # a logit whose probability is 0; infinity would not be a number in differences
Detections = list[dict[str, torch.Tensor]]


def torchvision_parts() -> tuple[Any, Any]:
    """Return `torchvision.models.detection` and `torchvision.ops`; ImportError with what to do if there are none."""
    try:
        from torchvision import ops
        from torchvision.models import detection
    except ImportError as error:
        raise ImportError("Mask R-CNN needs torchvision, which is not installed: pip install torchvision.") from error
    return detection, ops


@dataclass
class DetectorOutput(ModelOutput):
    """What a detector says, in the form that `DetrImageProcessor.post_process_object_detection` reads.

    Args:
        loss: a scalar, if there are labels: the sum of `loss_dict`.
        loss_dict: the losses by torchvision's names: of proposals `loss_objectness` and `loss_rpn_box_reg`, of boxes
            `loss_classifier` and `loss_box_reg`, and `loss_mask`.
        logits: `(batch, objects, num_labels + 1)`, best first. Their softmax is the score of the object's class, and
            the rest of 1 is that of the last, no object, with which an image that has fewer objects is filled up.
        pred_boxes: `(batch, objects, 4)`: center x, center y, width and height, as fractions of the image without
            padding.
        pred_masks: `(batch, objects, 28, 28)`, the probability of each part of the box to be the object's; None of a
            detector without masks. `Detector.post_process_instance_segmentation` makes masks of the image of it.
        hidden_states, attentions: of the backbone.
    """

    loss: torch.Tensor | None = None
    loss_dict: dict[str, torch.Tensor] | None = None
    logits: torch.Tensor | None = None
    pred_boxes: torch.Tensor | None = None
    pred_masks: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class MaskRCNN(nn.Module):
    """A feature pyramid, proposals, and heads that give each proposal class, box and mask.

    Args:
        config: of the network; its `detection_*` fields and `num_labels` are read.
        channels: of each map, the finest first.
        strides: pixels between the positions of each map.
    """

    def __init__(self, config: Any, channels: list[int], strides: list[int]):
        super().__init__()
        if (config.num_labels or 0) < 1:
            raise ValueError(f"num_labels is {config.num_labels}, expected at least 1 class of objects.")
        detection, ops = torchvision_parts()
        width, outputs = config.detection_hidden_size, config.num_labels + 1  # the first is no object
        self.levels = [str(level) for level in range(len(channels))]
        self.fpn = ops.FeaturePyramidNetwork(channels, width, ops.feature_pyramid_network.LastLevelMaxPool())
        sizes = [config.detection_anchor_scale * stride for stride in (*strides, 2 * strides[-1])]
        with torch.device("cpu"):  # the anchors are no buffers, which would be filled after building on "meta"
            anchors = detection.anchor_utils.AnchorGenerator(
                tuple((float(size),) for size in sizes), (ASPECT_RATIOS,) * len(sizes)
            )
        parts: dict[str, Any] = {
            "rpn_anchor_generator": anchors,
            "box_roi_pool": self._roi_align(ops, BOX_SIZE, strides),
            "box_head": detection.faster_rcnn.TwoMLPHead(width * BOX_SIZE**2, 4 * width),
            "box_predictor": detection.faster_rcnn.FastRCNNPredictor(4 * width, outputs),
            "box_score_thresh": config.detection_score_threshold,
            "box_detections_per_img": config.detection_max_objects,
        }
        if config.detection_masks:
            parts |= {
                "mask_roi_pool": self._roi_align(ops, MASK_SIZE, strides),
                "mask_head": detection.mask_rcnn.MaskRCNNHeads(width, (width,) * 4, 1),
                "mask_predictor": detection.mask_rcnn.MaskRCNNPredictor(width, width, outputs),
            }
        backbone = nn.Identity()
        backbone.out_channels = width
        network = (detection.MaskRCNN if config.detection_masks else detection.FasterRCNN)(backbone, **parts)
        self.rpn, self.roi_heads = network.rpn, network.roi_heads
        self.max_objects, self.num_labels = config.detection_max_objects, config.num_labels
        self._note_initial_stds()
        for part in (self.rpn.head, self.roi_heads.box_predictor, self.roi_heads.mask_predictor):
            if part is not None:
                part.register_forward_hook(to_float32)  # boxes in 16 bits would be pixels off

    def _roi_align(self, ops: Any, size: int, strides: list[int]) -> nn.Module:
        """Return what cuts boxes out of the maps; its scales are said here, and not guessed from the first image."""
        align = ops.MultiScaleRoIAlign(self.levels, size, sampling_ratio=2)
        finest = round(log2(strides[0]))
        align.scales = [1 / stride for stride in strides]
        align.map_levels = ops.poolers.LevelMapper(finest, finest + len(strides) - 1)
        return align

    def _note_initial_stds(self) -> None:
        """Note at each layer the standard deviation of its weights before training, as detectron2 has it."""
        layer: Any
        with_weights: Any = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
        for name, layer in self.named_modules():
            if not isinstance(layer, with_weights):
                continue
            if name.startswith("rpn.") or name.endswith("cls_score"):
                std = 0.01
            elif name.endswith(("bbox_pred", "mask_fcn_logits")):
                std = 0.001
            elif ".mask_" in name:
                std = (2 / layer.weight[:, 0].numel()) ** 0.5
            else:
                std = layer.weight[0].numel() ** -0.5
            layer.initial_std = std

    def forward(
        self,
        maps: tuple[torch.Tensor, ...],
        pixel_values: torch.Tensor,
        sizes: list[tuple[int, int]],
        targets: list[dict[str, torch.Tensor]] | None,
    ) -> tuple[dict[str, torch.Tensor] | None, Detections | None]:
        """Return losses, if there are targets, and detections, unless there are targets to train on.

        Args:
            maps: `(batch, channels, rows, columns)` each, the finest first.
            pixel_values: what they were computed from, padded.
            sizes: `(height, width)` in pixels of each image without padding.
            targets: as torchvision's `MaskRCNN` takes them.
        """
        features = self.fpn(OrderedDict(zip(self.levels, maps)))
        features = {name: to_float32(self.fpn, (), map) for name, map in features.items()}
        detection, _ = torchvision_parts()
        images = detection.image_list.ImageList(pixel_values, sizes)
        losses = detections = None
        if targets is not None:
            with in_mode((self.rpn, self.roi_heads), training=True):
                proposals, losses = self.rpn(images, features, targets)
                losses |= self.roi_heads(features, proposals, sizes, targets)[1]
        if targets is None or not self.training:
            with in_mode((self.rpn, self.roi_heads), training=False):
                proposals, _ = self.rpn(images, features)
                detections, _ = self.roi_heads(features, proposals, sizes)
        return losses, detections

    def run_each_part(self, maps: tuple[torch.Tensor, ...]) -> None:
        """Run all layers as often as one image asks of them at most, to count what they do, on any device."""
        features = self.fpn(OrderedDict(zip(self.levels, maps)))
        self.rpn.head(list(features.values()))
        heads, like = self.roi_heads, features[self.levels[0]]
        cut = like.new_empty(COUNTED_PROPOSALS, like.shape[1], BOX_SIZE, BOX_SIZE)
        heads.box_predictor(heads.box_head(cut))
        if heads.mask_head is not None:
            cut = like.new_empty(self.max_objects, like.shape[1], MASK_SIZE, MASK_SIZE)
            heads.mask_predictor(heads.mask_head(cut))


def to_float32(module: nn.Module, inputs: Any, outputs: Any) -> Any:
    """Return tensors, in tuples and lists too, in at least 32 bits; it is a hook of torch's."""
    if isinstance(outputs, torch.Tensor):
        return outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    return type(outputs)(to_float32(module, inputs, output) for output in outputs)


@contextmanager
def in_mode(modules: tuple[nn.Module, ...], training: bool) -> Iterator[None]:
    """Have modules compute losses or detections, which torchvision's tell by their mode; they hold nothing random."""
    before = [module.training for module in modules]
    for module in modules:
        module.train(training)
    try:
        yield
    finally:
        for module, mode in zip(modules, before):
            module.train(mode)


# Labels and sizes


def sizes_without_padding(pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None) -> list[tuple[int, int]]:
    """Return `(height, width)` in pixels of each image.

    Args:
        pixel_values: `(batch, channels, height, width)`.
        pixel_mask: `(batch, height, width)`, 0 where an image is padded at the right and at the bottom, or None.

    Raises:
        ValueError: if the mask has another size than the images.
    """
    batch, _, height, width = pixel_values.shape
    if pixel_mask is None:
        return [(height, width)] * batch
    if pixel_mask.shape != (batch, height, width):
        raise ValueError(
            f"pixel_mask has shape {tuple(pixel_mask.shape)}, expected {(batch, height, width)}: 1 for each pixel of"
            " an image, 0 for its padding."
        )
    inside = pixel_mask.bool()
    heights, widths = inside.any(2).sum(1).tolist(), inside.any(1).sum(1).tolist()
    return list(zip(heights, widths))


def to_targets(
    labels: list[dict[str, torch.Tensor]], pixel_values: torch.Tensor, num_labels: int, masks: bool
) -> list[dict[str, torch.Tensor]]:
    """Return labels in torchvision's form: boxes of corners in pixels, and classes counted from 1.

    Args:
        labels: see `Detector.forward`.
        pixel_values: `(batch, channels, height, width)`, which the boxes are fractions of.
        num_labels: how many classes there are.
        masks: whether the detector has masks.

    Raises:
        ValueError: if labels do not fit.
    """
    batch, _, height, width = pixel_values.shape
    if len(labels) != batch:
        raise ValueError(f"labels are of {len(labels)} images, expected {batch}: one dictionary for each image.")
    sides = torch.tensor([width, height, width, height], device=pixel_values.device)
    targets = []
    for index, label in enumerate(labels):
        check_label(label, index, (height, width), num_labels, masks)
        center, size = label["boxes"].to(pixel_values.device, torch.float32).split(2, dim=-1)
        boxes = torch.cat([center - size / 2, center + size / 2], dim=-1) * sides
        target = {"boxes": boxes, "labels": label["class_labels"].to(pixel_values.device, torch.int64) + 1}
        if masks:
            target["masks"] = label["masks"].to(pixel_values.device, torch.uint8)
        targets.append(target)
    return targets


def check_label(
    label: dict[str, torch.Tensor], index: int, size: tuple[int, int], num_labels: int, masks: bool
) -> None:
    """Raise ValueError unless the labels of an image fit it; values are looked at in the CPU's memory alone."""
    for name in ("class_labels", "boxes", *(["masks"] if masks else [])):
        if name not in label:
            hint = ": give the masks of objects, or set detection_masks=False" if name == "masks" else ""
            raise ValueError(f"labels[{index}] has {', '.join(label)}, and no {name}{hint}.")
    classes, boxes = label["class_labels"], label["boxes"]
    expected = {"boxes": (len(classes), 4)} | ({"masks": (len(classes), *size)} if masks else {})
    for name, shape in expected.items():
        if tuple(label[name].shape) != shape:
            raise ValueError(
                f"labels[{index}]: {name} have shape {tuple(label[name].shape)}, expected {shape} of"
                f" {len(classes)} objects in {size[0]}x{size[1]} pixels."
            )
    if classes.device.type != "cpu" or torch.compiler.is_compiling() or not len(classes):
        return
    wrong = classes[(classes < 0) | (classes >= num_labels)]
    if wrong.numel():
        raise ValueError(
            f"labels[{index}] hold class {wrong[0].item()}, but the model has {num_labels} classes, 0 to"
            f" {num_labels - 1}: check the data, or set num_labels."
        )
    if not (boxes[:, 2:] > 0).all():
        raise ValueError(f"labels[{index}] hold a box of no area, {boxes[(boxes[:, 2:] <= 0).any(1)][0].tolist()}.")


def to_queries(
    detections: Detections, sizes: list[tuple[int, int]], num_labels: int, count: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Return `logits`, `pred_boxes` and `pred_masks` of `DetectorOutput`, filled up to `count` objects an image."""
    like = detections[0]["boxes"]
    logits = like.new_full((len(sizes), count, num_labels + 1), NO_CHANCE)
    logits[..., -1] = 0
    boxes = like.new_zeros(len(sizes), count, 4)
    has_masks = "masks" in detections[0]
    masks = like.new_zeros(len(sizes), count, 2 * MASK_SIZE, 2 * MASK_SIZE) if has_masks else None
    for index, (found, (height, width)) in enumerate(zip(detections, sizes)):
        rows, classes = torch.arange(len(found["labels"]), device=like.device), found["labels"] - 1
        logits[index, rows, classes] = found["scores"].log()
        logits[index, rows, -1] = (1 - found["scores"]).log().clamp(min=NO_CHANCE)
        low, high = found["boxes"].split(2, dim=-1)
        boxes[index, rows] = torch.cat([(low + high) / 2, high - low], dim=-1) / like.new_tensor([width, height] * 2)
        if masks is not None:
            masks[index, rows] = found["masks"][:, 0].to(masks.dtype)
    return logits, boxes, masks


@torch.no_grad()
def find_instances(
    outputs: DetectorOutput,
    threshold: float = 0.5,
    target_sizes: Sequence[tuple[int, int]] | torch.Tensor | None = None,
) -> Detections:
    """Return the objects of each image in its own pixels; `Detector.post_process_instance_segmentation` says more."""
    if outputs.logits is None or outputs.pred_boxes is None:
        raise ValueError("the outputs hold no objects: call the model without labels, or in evaluation mode.")
    if target_sizes is None or len(target_sizes) != len(outputs.logits):
        given = "missing" if target_sizes is None else f"{len(target_sizes)}"
        raise ValueError(f"target_sizes are {given}, expected (height, width) of {len(outputs.logits)} images.")
    detection, _ = torchvision_parts()
    scores, labels = outputs.logits.softmax(-1)[..., :-1].max(-1)
    results = []
    for index, size in enumerate(target_sizes):
        height, width = (int(side) for side in size)
        keep = (scores[index] >= threshold) & (scores[index] > 0)
        center, sides = outputs.pred_boxes[index][keep].split(2, dim=-1)
        boxes = torch.cat([center - sides / 2, center + sides / 2], dim=-1)
        boxes = boxes * boxes.new_tensor([width, height, width, height])
        result = {"scores": scores[index][keep], "labels": labels[index][keep], "boxes": boxes}
        if outputs.pred_masks is not None:
            masks = outputs.pred_masks[index][keep][:, None]
            pasted = detection.roi_heads.paste_masks_in_image(masks, boxes, (height, width))
            result["masks"] = pasted[:, 0] > 0.5
        results.append(result)
    return results


class Detector(StaticKeyPreTrainedModel):
    """Mask R-CNN over the maps of a backbone, the next class that a detector is made of."""

    mask_rcnn: MaskRCNN
    num_labels: int
    _keep_in_fp32_modules_strict = ["mask_rcnn"]  # boxes in 16 bits would be pixels off

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std: Any = getattr(module, "initial_std", None)
        if std is None:
            super()._init_weights(module)
            return
        layer: Any = module
        init.normal_(layer.weight, std=std)
        init.zeros_(layer.bias)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        pixel_mask: torch.Tensor | None = None,
        labels: list[dict[str, torch.Tensor]] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> DetectorOutput:
        """Find the objects in images of any size; that of the model without a head says what the rest is.

        Images are padded with zeros to whole strides of the coarsest map. No object reaches into padding.

        Args:
            pixel_mask: `(batch, height, width)`, 0 where an image is padded at the right and at the bottom.
            labels: a dictionary for each image, as `DetrImageProcessor` makes them: `class_labels`, `(objects,)`;
                `boxes`, `(objects, 4)`, center x, center y, width and height, as fractions of `pixel_values`; and of a
                detector with masks `masks`, `(objects, height, width)`. An image may have no objects.

        Returns:
            A loss if there are labels, and objects; in training mode one of the two.

        Raises:
            ValueError: if images have another channel count or dtype than the network takes, or labels do not fit.
        """
        check_pixel_values(pixel_values, next(self.base_model.parameters()), self.config.num_channels)
        sizes = sizes_without_padding(pixel_values, pixel_mask)
        targets = None
        if labels is not None:
            targets = to_targets(labels, pixel_values, self.num_labels, self.config.detection_masks)
        padded = self.pad(pixel_values)
        backbone: Any = super()
        features = backbone.forward(padded, **kwargs, return_dict=True)
        losses, detections = self.mask_rcnn(self.to_heads(features.feature_maps), padded, sizes, targets)
        outputs = DetectorOutput(hidden_states=features.hidden_states, attentions=features.attentions)
        if losses is not None:
            outputs.loss, outputs.loss_dict = torch.stack(list(losses.values())).sum(), losses
        if detections is not None:
            outputs.logits, outputs.pred_boxes, outputs.pred_masks = to_queries(
                detections, sizes, self.num_labels, self.config.detection_max_objects
            )
        return outputs

    def pad(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return images with zeros, the mean of normalized ones, at right and bottom, to whole strides."""
        height, width = pixel_values.shape[2:]
        stride = self.config.total_stride
        return F.pad(pixel_values, (0, -width % stride, 0, -height % stride))

    def to_heads(self, maps: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Return maps in the dtype of Mask R-CNN's weights, which stay in 32 bits where the backbone's have 16."""
        dtype = next(self.mask_rcnn.parameters()).dtype
        if dtype in (torch.float16, torch.bfloat16):
            raise ValueError(
                f"the weights of Mask R-CNN are {dtype}, expected torch.float32: pass dtype to from_pretrained, which"
                " leaves them in it, or compute in torch.autocast."
            )
        return tuple(map.to(dtype) for map in maps)

    def run_each_part(self, pixel_values: torch.Tensor) -> None:
        """Run all layers as often as one image asks of them at most, to count what they do, on any device.

        These are 1000 proposals, and `detection_max_objects` masks.
        """
        backbone: Any = super()
        maps = backbone.forward(self.pad(pixel_values), return_dict=True).feature_maps
        self.mask_rcnn.run_each_part(self.to_heads(maps))

    def post_process_instance_segmentation(
        self,
        outputs: DetectorOutput,
        threshold: float = 0.5,
        target_sizes: Sequence[tuple[int, int]] | torch.Tensor | None = None,
    ) -> Detections:
        """Return the objects of each image in its own pixels, best first.

        Args:
            outputs: of this model.
            threshold: objects of a lower score are left out.
            target_sizes: `(height, width)` in pixels of each image, before it was resized and padded.

        Returns:
            `scores` and `labels` `(objects,)`, `boxes` `(objects, 4)` of two corners, and of a detector with masks
            `masks`, `(objects, height, width)` of bool.

        Raises:
            ValueError: if sizes are missing, or not as many as images, or the outputs are those of a loss alone.
        """
        return find_instances(outputs, threshold, target_sizes)


class StagedDetector(Detector, StagedBackbone):  # pyright: ignore[reportIncompatibleMethodOverride] (forward)
    """Mask R-CNN over the maps of a backbone of stages: of all stages, or of `out_features`, some in a row."""

    def __init__(self, config: Any):
        config = copy.deepcopy(config)  # whose maps are set here, and not the caller's
        if not config.out_features or config.out_features == config.stage_names[-1:]:
            config.set_output_features_output_indices(out_features=config.stage_names[1:], out_indices=None)
        first = config.stage_names.index(config.out_features[0])
        if first == 0 or config.out_features != config.stage_names[first : first + len(config.out_features)]:
            raise ValueError(
                f"out_features is {config.out_features}, expected stages in a row, such as {config.stage_names[1:]}:"
                " each level of the pyramid is added to the next."
            )
        super().__init__(config)
        self.num_labels = config.num_labels
        strides = config.strides[first - 1 : first - 1 + len(config.out_features)]
        self.mask_rcnn = MaskRCNN(config, self.channels, strides)
        self.post_init()
