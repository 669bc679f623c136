"""What networks of stages share, SKFormer, SKSwin and SKCvT: stem, stages, the ends of classifiers and backbones."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.modeling_outputs import BackboneOutput, BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from .grids import map_size, maps_to_tokens, tokens_to_maps
from .modeling_common import Recorded, StaticKeyPreTrainedModel, classify, wants_attentions


class Stage(Recorded):
    """Downsampling, from the second stage on, then layers; a class token may join the positions before those."""

    def __init__(
        self, downsampling: nn.Module | None, layers: Iterable[nn.Module], class_token: nn.Module | None = None
    ):
        super().__init__()
        self.downsampling = downsampling
        self.class_token = class_token
        self.layers = nn.ModuleList(layers)

    def forward(self, maps: torch.Tensor, output_attentions: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the map after the stage, and its class tokens, `(batch, 0 or 1, channels)`."""
        if self.downsampling is not None:
            maps = self.downsampling(maps)
        grid_size = map_size(maps)
        hidden_states = maps_to_tokens(maps)
        num_positions = hidden_states.shape[1]
        if self.class_token is not None:
            hidden_states = self.class_token(hidden_states)
        first = hidden_states.shape[1] - num_positions
        for layer in self.layers:
            hidden_states, _ = layer(hidden_states, grid_size, output_attentions)
        return tokens_to_maps(hidden_states[:, first:], grid_size), hidden_states[:, :first]


class StagedModel(StaticKeyPreTrainedModel):
    """A network without a head: `stem`, `stages`, and a `pool` of its own."""

    stem: Any  # a module with what the family's has
    stages: nn.ModuleList

    def get_input_embeddings(self) -> nn.Module:
        return self.stem

    def pool(self, maps: torch.Tensor, class_tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return `last_hidden_state` and `pooler_output`, None in a backbone, of the last map and its class tokens."""
        raise NotImplementedError

    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: torch.Tensor,
        *,
        output_attentions: bool | None = None,
        output_hidden_states: bool | list[int] | None = None,
    ) -> BaseModelOutputWithPooling:
        """Run the network on images of any height and width that the class takes.

        Args:
            pixel_values: `(batch, channels, height, width)`, normalized, in the dtype of the weights.
            output_attentions: return the weights of every layer that attends, `(batch, heads, positions, positions)`,
                of a window each, `(batch * windows, ...)`, where the map is cut into windows. They exist in the plain
                formulation only, which then runs whatever the attention implementation.
            output_hidden_states: return the maps after the stem and after each stage; of a list of their indices,
                those alone, and None for each of the others (transformers 5.10 returns all).

        Returns:
            `last_hidden_state`, `(batch, channels, height, width)`, and `pooler_output`, `(batch, channels)`: the mean
            over the positions, normalized. With `return_dict=False` it is a plain tuple.

        Raises:
            ValueError: if the images have a smaller size, or another channel count or dtype, than the network takes.
        """
        output_attentions = wants_attentions(self.config, output_attentions)
        maps = self.stem(pixel_values)
        class_tokens = maps.new_empty(0)
        for stage in self.stages:
            maps, class_tokens = stage(maps, output_attentions)
        last_hidden_state, pooled = self.pool(maps, class_tokens)
        return BaseModelOutputWithPooling(last_hidden_state=last_hidden_state, pooler_output=pooled)


class StagedClassifier(StaticKeyPreTrainedModel):
    """A network with a `classifier` of what it pools."""

    classifier: nn.Module

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutput:
        """Classify images; `StagedModel.forward` says what the other arguments are.

        Args:
            labels: `(batch,)` class indices, `(batch, num_labels)` floats for several labels an image, or numbers
                for a regression, by `config.problem_type`.

        Returns:
            `logits`, `(batch, num_labels)`, and `loss` if there are labels.
        """
        outputs = self.base_model(pixel_values, **kwargs, return_dict=True)
        return classify(self, outputs, self.classifier(outputs.pooler_output), labels)


class StagedBackbone(BackboneMixin, StaticKeyPreTrainedModel):
    """A network as a source of feature maps, of the stem and of each stage, for detectors and segmenters.

    Each map that is returned has a layer norm of its own, which a classifier's weights do not hold: it starts as it
    would in training a detector.
    """

    feature_norms: nn.ModuleDict

    def add_feature_norms(self, bias: bool) -> None:
        """Make the norms of the maps that the configuration's `out_features` names."""
        self.num_features = [self.config.hidden_sizes[0], *self.config.hidden_sizes]
        self.feature_norms = nn.ModuleDict(
            {
                stage: nn.LayerNorm(width, eps=self.config.layer_norm_eps, bias=bias)
                for stage, width in zip(self.out_features, self.channels)
            }
        )

    @can_return_tuple
    @filter_output_hidden_states
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] (BackboneMixin names the switches)
        self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> BackboneOutput:
        """Return feature maps `(batch, channels, height, width)` of the stages in `out_features`, normalized.

        `StagedModel.forward` says what the arguments are.
        """
        kwargs["output_hidden_states"] = True  # the decorator of transformers 5.10 only removes them
        outputs = self.base_model(pixel_values, **kwargs, return_dict=True)
        maps = dict(zip(self.stage_names, outputs.hidden_states, strict=True))
        feature_maps = tuple(
            norm(maps[stage].permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for stage, norm in self.feature_norms.items()
        )
        return BackboneOutput(
            feature_maps=feature_maps, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
