"""SKViT as a semantic segmenter: UperNet over four of its layers, whose maps are resized to a pyramid first."""

import copy

import torch

from .configuration_checks import size_pair
from .configuration_skvit import SKViTConfig
from .modeling_skvit import SKViTBackbone
from .segmentation import FeaturePyramid, Segmenter, UperNet

NUM_MAPS = 4


def evenly_spaced_layers(num_layers: int) -> list[str]:
    """Return the names of four layers at each quarter of the depth; of fewer layers than that, some twice over."""
    return [f"stage{max(1, num_layers * quarter // NUM_MAPS)}" for quarter in range(1, NUM_MAPS + 1)]


class SKViTForSemanticSegmentation(Segmenter, SKViTBackbone):  # pyright: ignore[reportIncompatibleMethodOverride] (forward)
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

    @property
    def padded_multiples(self) -> tuple[int, int]:
        height, width = size_pair("patch_size", self.config.patch_size)
        return 2 * height, 2 * width  # the coarsest map has half the patches

    def to_pyramid(self, maps: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return self.pyramid(tuple(maps[len(maps) * level // NUM_MAPS] for level in range(NUM_MAPS)))


__all__ = ["SKViTForSemanticSegmentation"]
