"""SKViT as a semantic segmenter: UperNet over four of its layers, whose maps are resized to a pyramid first."""

import copy
from typing import Any

import torch
from transformers.modeling_outputs import SemanticSegmenterOutput

from .configuration_checks import size_pair
from .configuration_skvit import SKViTConfig
from .modeling_common import check_pixel_values, output_options
from .modeling_skvit import SKViTBackbone
from .segmentation import FeaturePyramid, UperNet, pad_to_multiple

NUM_MAPS = 4


def evenly_spaced_layers(num_layers: int) -> list[str]:
    """Return the names of four layers at each quarter of the depth; of fewer layers than that, some twice over."""
    return [f"stage{max(1, num_layers * quarter // NUM_MAPS)}" for quarter in range(1, NUM_MAPS + 1)]


class SKViTForSemanticSegmentation(SKViTBackbone):
    """SKViT with UperNet over four layers, those of `out_features` or else one at each quarter of the depth.

    Their maps, all of the patches' stride, become a pyramid of a quarter to twice of it. A classifier's weights load
    into it. Positions and static keys are resized to the image.
    """

    _keys_to_ignore_on_load_unexpected = [r"^classifier\.", r"^distillation_classifier\."]

    def __init__(self, config: SKViTConfig):
        if not config.reshape_hidden_states:
            raise ValueError("A segmenter reads maps, and reshape_hidden_states is False: leave it True.")
        config = copy.deepcopy(config)  # whose maps are set here, and not the caller's
        layers = config.out_features or []
        if len(layers) < 2:
            layers = list(dict.fromkeys(evenly_spaced_layers(config.num_hidden_layers)))
            config.set_output_features_output_indices(out_features=layers, out_indices=None)
        if len(layers) > NUM_MAPS:
            raise ValueError(
                f"out_features names {len(layers)} layers, expected at most {NUM_MAPS}: one for each map of the"
                " pyramid."
            )
        super().__init__(config)
        self.num_labels = config.num_labels
        self.pyramid = FeaturePyramid(config.hidden_size)
        self.upernet = UperNet(config, [config.hidden_size] * NUM_MAPS)
        self.post_init()

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] (a backbone's returns maps)
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SemanticSegmenterOutput | tuple:
        """Give each pixel of images of any size a class; `SKViTModel.forward` says what the other arguments are.

        Images are padded with zeros to an even number of patches, and logits are those of the image alone.

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
        check_pixel_values(pixel_values, next(self.skvit.embeddings.parameters()), self.config.num_channels)
        height, width = size_pair("patch_size", self.config.patch_size)
        padded = pad_to_multiple(pixel_values, (2 * height, 2 * width))  # the coarsest map has half the patches
        features: Any = super().forward(padded, output_hidden_states, output_attentions, return_dict=True)
        maps = features.feature_maps
        repeated = tuple(maps[len(maps) * level // NUM_MAPS] for level in range(NUM_MAPS))
        logits, loss = self.upernet(self.pyramid(repeated), padded.shape[2:], labels, pixel_values.shape[2:])
        outputs = SemanticSegmenterOutput(
            loss=loss, logits=logits, hidden_states=features.hidden_states, attentions=features.attentions
        )
        return outputs if return_dict else outputs.to_tuple()


__all__ = ["SKViTForSemanticSegmentation"]
