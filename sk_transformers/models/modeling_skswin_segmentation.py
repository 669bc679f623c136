"""SKSwin as a semantic segmenter: UperNet over the maps of its stages."""

from .modeling_skswin import SKSwinBackbone
from .segmentation import StagedSegmenter


class SKSwinForSemanticSegmentation(StagedSegmenter, SKSwinBackbone):  # pyright: ignore[reportIncompatibleMethodOverride] (forward)
    """SKSwin with UperNet over its stages, or over `out_features` of the configuration if they are several.

    A classifier's weights load into it; the head and the norms of the maps then start as in training anew.
    """


__all__ = ["SKSwinForSemanticSegmentation"]
