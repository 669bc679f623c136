"""What networks of stages share, SKFormer, SKSwin and SKCvT: stem, stages, the ends of classifiers and backbones."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers.backbone_utils import BackboneMixin
from transformers.modeling_outputs import BackboneOutput, BaseModelOutputWithPooling, ImageClassifierOutput

from .grids import map_size, maps_to_tokens, tokens_to_maps
from .modeling_common import StaticKeyPreTrainedModel, classify, output_options


class Stage(nn.Module):
    """Downsampling, from the second stage on, then layers; a class token may join the positions before those."""

    def __init__(
        self, downsampling: nn.Module | None, layers: Iterable[nn.Module], class_token: nn.Module | None = None
    ):
        super().__init__()
        self.downsampling = downsampling
        self.class_token = class_token
        self.layers = nn.ModuleList(layers)

    def forward(
        self, maps: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return the map after the stage, its class tokens, `(batch, 0 or 1, channels)`, and the weights that exist."""
        if self.downsampling is not None:
            maps = self.downsampling(maps)
        grid_size = map_size(maps)
        hidden_states = maps_to_tokens(maps)
        num_positions = hidden_states.shape[1]
        if self.class_token is not None:
            hidden_states = self.class_token(hidden_states)
        first = hidden_states.shape[1] - num_positions
        all_attentions: tuple[torch.Tensor, ...] = ()
        for layer in self.layers:
            hidden_states, weights = layer(hidden_states, grid_size, output_attentions)
            all_attentions += () if weights is None else (weights,)
        return tokens_to_maps(hidden_states[:, first:], grid_size), hidden_states[:, :first], all_attentions


class StagedModel(StaticKeyPreTrainedModel):
    """A network without a head: `stem`, `stages`, and a `pool` of its own."""

    stem: Any  # a module with what the family's has
    stages: nn.ModuleList

    def get_input_embeddings(self) -> nn.Module:
        return self.stem

    def pool(self, maps: torch.Tensor, class_tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return `last_hidden_state` and `pooler_output`, None in a backbone, of the last map and its class tokens."""
        raise NotImplementedError

    def forward(
        self,
        pixel_values: torch.Tensor,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPooling | tuple:
        """Run the network on images of any height and width that the class takes.

        Args:
            pixel_values: `(batch, channels, height, width)`, normalized, in the dtype of the weights.
            output_attentions: return the weights of every layer that attends, `(batch, heads, positions, positions)`,
                of a window each, `(batch * windows, ...)`, where the map is cut into windows. They exist in the plain
                formulation only, which then runs whatever the attention implementation.
            output_hidden_states: return the maps after the stem and after each stage.
            return_dict: False returns a plain tuple.

        Returns:
            `last_hidden_state`, `(batch, channels, height, width)`, and `pooler_output`, `(batch, channels)`: the mean
            over the positions, normalized.

        Raises:
            ValueError: if the images have a smaller size, or another channel count or dtype, than the network takes.
        """
        output_attentions, output_hidden_states, return_dict = output_options(
            self.config, output_attentions, output_hidden_states, return_dict
        )
        # What is returned is what the next stage is computed from, so that gradients reach it (Grad-CAM).
        maps = self.stem(pixel_values)
        all_hidden_states = (maps,) if output_hidden_states else None
        all_attentions: tuple[torch.Tensor, ...] = ()
        class_tokens = maps.new_empty(0)
        for stage in self.stages:
            maps, class_tokens, attentions = stage(maps, output_attentions)
            if all_hidden_states is not None:
                all_hidden_states += (maps,)
            all_attentions += attentions

        last_hidden_state, pooled = self.pool(maps, class_tokens)
        outputs = BaseModelOutputWithPooling(
            last_hidden_state=last_hidden_state,
            pooler_output=pooled,
            hidden_states=all_hidden_states,
            attentions=all_attentions if output_attentions else None,
        )
        return outputs if return_dict else outputs.to_tuple()


class StagedClassifier(StaticKeyPreTrainedModel):
    """A network with a `classifier` of what it pools."""

    classifier: nn.Module

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ImageClassifierOutput | tuple:
        """Classify images; `StagedModel.forward` says what the other arguments are.

        Args:
            labels: `(batch,)` class indices, `(batch, num_labels)` floats for several labels an image, or numbers
                for a regression, by `config.problem_type`.

        Returns:
            `logits`, `(batch, num_labels)`, and `loss` if there are labels.
        """
        *_, return_dict = output_options(self.config, output_attentions, output_hidden_states, return_dict)
        outputs = self.base_model(pixel_values, output_attentions, output_hidden_states, return_dict=True)
        return classify(self, outputs, self.classifier(outputs.pooler_output), labels, return_dict)


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

    def forward(
        self,
        pixel_values: torch.Tensor,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> BackboneOutput | tuple:
        """Return feature maps `(batch, channels, height, width)` of the stages in `out_features`, normalized.

        `StagedModel.forward` says what the arguments are.
        """
        *_, output_hidden_states, return_dict = output_options(
            self.config, output_attentions, output_hidden_states, return_dict
        )
        outputs = self.base_model(pixel_values, output_attentions, output_hidden_states=True, return_dict=True)
        maps = dict(zip(self.stage_names, outputs.hidden_states))
        feature_maps = tuple(
            norm(maps[stage].permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for stage, norm in self.feature_norms.items()
        )
        outputs = BackboneOutput(
            feature_maps=feature_maps,
            hidden_states=outputs.hidden_states if output_hidden_states else None,
            attentions=outputs.attentions,
        )
        return outputs if return_dict else outputs.to_tuple()
