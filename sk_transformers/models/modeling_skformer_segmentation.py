"""SKFormer as a semantic segmenter: UperNet over the maps of its four stages."""

from .modeling_skformer import SKFormerBackbone
from .segmentation import StagedSegmenter


class SKFormerForSemanticSegmentation(StagedSegmenter, SKFormerBackbone):  # pyright: ignore[reportIncompatibleMethodOverride] (forward)
    """SKFormer with UperNet over its four stages, or over `out_features` of the configuration if they are several.

    A classifier's weights load into it; the head and the norms of the maps then start as in training anew.
    """


__all__ = ["SKFormerForSemanticSegmentation"]
