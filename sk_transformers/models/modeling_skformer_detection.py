"""SKFormer as a detector of objects and their masks: Mask R-CNN over the maps of its stages."""

from .detection import StagedDetector
from .modeling_skformer import SKFormerBackbone


class SKFormerForObjectDetection(StagedDetector, SKFormerBackbone):  # pyright: ignore[reportIncompatibleMethodOverride] (forward)
    """SKFormer with Mask R-CNN over its stages, or over those in a row that `out_features` of the configuration names.

    It needs torchvision. A classifier's weights load into it; the heads and the norms of the maps then start as in
    training anew. With `detection_masks=False` it is Faster R-CNN.
    """


__all__ = ["SKFormerForObjectDetection"]
