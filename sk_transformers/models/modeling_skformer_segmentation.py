"""SKFormer as a semantic segmenter: UperNet over the maps of its four stages."""

import copy
from typing import Any

import torch
from transformers.modeling_outputs import SemanticSegmenterOutput

from .configuration_skformer import SKFormerConfig
from .modeling_common import check_pixel_values, output_options
from .modeling_skformer import SKFormerBackbone
from .segmentation import UperNet, pad_to_multiple

STAGES = ["stage1", "stage2", "stage3", "stage4"]


class SKFormerForSemanticSegmentation(SKFormerBackbone):
    """SKFormer with UperNet over its four stages, or over `out_features` of the configuration if they are several.

    A classifier's weights load into it; the head and the norms of the maps then start as in training anew.
    """

    def __init__(self, config: SKFormerConfig):
        config = copy.deepcopy(config)  # whose maps are set here, and not the caller's
        if len(config.out_features or ()) < 2:
            config.set_output_features_output_indices(out_features=STAGES, out_indices=None)
        super().__init__(config)
        self.num_labels = config.num_labels
        self.upernet = UperNet(config, self.channels)
        self.post_init()

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] (a backbone's returns maps)
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SemanticSegmenterOutput | tuple:
        """Give each pixel of images of any size a class; `StagedModel.forward` says what the other arguments are.

        Images are padded with zeros to whole strides of the last stage, and logits are those of the image alone.

        Args:
            labels: `(batch, height, width)` class indices, and `segmentation_ignore_index` where a pixel has none.

        Returns:
            `logits`, `(batch, num_labels, height, width)` in pixels of the input, and `loss` if there are labels.

        Raises:
            ValueError: if images have another channel count or dtype than the network takes, or labels another size
                than their images or classes that there are not.
        """
        output_attentions, output_hidden_states, return_dict = output_options(
            self.config, output_attentions, output_hidden_states, return_dict
        )
        check_pixel_values(pixel_values, self.skformer.stem.projection.weight, self.config.num_channels)
        stride = self.config.min_image_size
        padded = pad_to_multiple(pixel_values, (stride, stride))
        features: Any = super().forward(padded, output_hidden_states, output_attentions, return_dict=True)
        logits, loss = self.upernet(features.feature_maps, padded.shape[2:], labels, pixel_values.shape[2:])
        outputs = SemanticSegmenterOutput(
            loss=loss, logits=logits, hidden_states=features.hidden_states, attentions=features.attentions
        )
        return outputs if return_dict else outputs.to_tuple()


__all__ = ["SKFormerForSemanticSegmentation"]
