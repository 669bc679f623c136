"""SKViT: a Vision Transformer whose attention keys may be static.

With `token_mixer="attention"` it is the plain pre-norm ViT. With shifted patches, masked diagonal and learned
temperature it is the ViT for small data sets (arXiv 2112.13492) that the paper trains on CIFAR.
"""

from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BackboneOutput, BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from .attention_options import AttentionOptions
from .configuration_checks import size_pair
from .configuration_skvit import SKViTConfig
from .grids import resize_grid, tokens_to_maps
from .layers import MLP, DropPath, GatedMLP, LayerScale, drop_path_rates
from .modeling_common import Recorded, StaticKeyPreTrainedModel, check_pixel_values, classify, wants_attentions
from .pooling import AttentionPooling, pool
from .token_mixers import build_token_mixer


class SKViTPatchEmbeddings(nn.Module):
    """`(batch, channels, height, width)` to patches `(batch, rows * columns, hidden_size)`: a strided convolution."""

    def __init__(self, config: SKViTConfig):
        super().__init__()
        patch_size = size_pair("patch_size", config.patch_size)
        self.projection = nn.Conv2d(
            config.num_channels, config.hidden_size, kernel_size=patch_size, stride=patch_size, bias=config.patch_bias
        )

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.projection(pixel_values).flatten(2).transpose(1, 2)


class SKViTShiftedPatchEmbeddings(nn.Module):
    """Shifted patch tokenization (arXiv 2112.13492): patches of the image and of four copies of it, a pixel apart."""

    def __init__(self, config: SKViTConfig):
        super().__init__()
        self.patch_size = size_pair("patch_size", config.patch_size)
        patch_dim = 5 * config.num_channels * self.patch_size[0] * self.patch_size[1]
        self.layernorm = nn.LayerNorm(patch_dim, eps=1e-5)
        self.projection = nn.Linear(patch_dim, config.hidden_size)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        right, left, down, up = (1, -1, 0, 0), (-1, 1, 0, 0), (0, 0, 1, -1), (0, 0, -1, 1)
        shifted = [F.pad(pixel_values, shift) for shift in (right, left, down, up)]
        images = torch.cat([pixel_values, *shifted], dim=1)
        height, width = self.patch_size
        # (batch, channels, rows, height, columns, width)
        patches = images.unflatten(3, (-1, width)).unflatten(2, (-1, height))
        patches = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        return self.projection(self.layernorm(patches))


class SKViTEmbeddings(nn.Module):
    """Patches, the class, distillation and register tokens if there are any, and learned positions."""

    def __init__(self, config: SKViTConfig):
        super().__init__()
        self.image_size = size_pair("image_size", config.image_size)
        self.strict_image_size = config.strict_image_size
        self.patch_size = size_pair("patch_size", config.patch_size)
        self.grid_size = config.grid_size
        self.position_interpolation = config.position_interpolation
        self.num_channels = config.num_channels
        self.num_class_tokens = config.num_class_tokens
        shifted = config.shifted_patch_tokenization
        self.patch_embeddings = (SKViTShiftedPatchEmbeddings if shifted else SKViTPatchEmbeddings)(config)
        one_token = (1, 1, config.hidden_size)
        self.cls_token = nn.Parameter(torch.empty(one_token)) if config.class_token else None
        self.distillation_token = nn.Parameter(torch.empty(one_token)) if config.distillation_token else None
        registers = torch.empty(1, config.num_register_tokens, config.hidden_size)
        self.register_tokens = nn.Parameter(registers) if config.num_register_tokens else None
        positions = self.grid_size[0] * self.grid_size[1] + self.num_class_tokens
        has_positions = config.position_embedding_type == "learned"
        self.position_embeddings = (
            nn.Parameter(torch.empty(1, positions, config.hidden_size)) if has_positions else None
        )
        self.layernorm = (
            nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
            if config.embeddings_layernorm
            else nn.Identity()
        )
        self.initializer_range = config.initializer_range
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for tokens in (*self._class_tokens(), self.register_tokens, self.position_embeddings):
            if tokens is not None:
                init.trunc_normal_(tokens, std=self.initializer_range)

    def _class_tokens(self) -> list[nn.Parameter]:
        return [token for token in (self.cls_token, self.distillation_token) if token is not None]

    def forward(self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool | None = None) -> torch.Tensor:
        """Return the tokens `(batch, [class tokens + registers +] rows * columns, hidden_size)`."""
        check_pixel_values(pixel_values, self.patch_embeddings.projection.weight, self.num_channels)
        self._check_size(pixel_values.shape[2], pixel_values.shape[3], interpolate_pos_encoding)
        grid_size = patch_grid(pixel_values, self.patch_size)
        tokens = self.patch_embeddings(pixel_values)
        class_tokens = [token.expand(tokens.shape[0], -1, -1).to(tokens.dtype) for token in self._class_tokens()]
        tokens = torch.cat([*class_tokens, tokens], dim=1)
        if self.position_embeddings is not None:
            tokens = tokens + self._positions(self.position_embeddings, grid_size).to(tokens.dtype)
        if self.register_tokens is not None:
            registers = self.register_tokens.expand(tokens.shape[0], -1, -1).to(tokens.dtype)
            first = self.num_class_tokens
            tokens = torch.cat([tokens[:, :first], registers, tokens[:, first:]], dim=1)
        return self.layernorm(tokens)

    def _positions(self, positions: torch.Tensor, grid_size: tuple[int, int]) -> torch.Tensor:
        """Return the positions of class tokens and of a grid, `(1, [class tokens +] rows * columns, hidden_size)`."""
        if grid_size == self.grid_size:
            return positions
        return resize_grid(positions, self.grid_size, grid_size, self.num_class_tokens, self.position_interpolation)

    def _check_size(self, height: int, width: int, interpolate_pos_encoding: bool | None) -> None:
        patch_height, patch_width = self.patch_size
        if (height, width) == self.image_size:
            return
        if interpolate_pos_encoding is None:
            interpolate_pos_encoding = not self.strict_image_size
        if not interpolate_pos_encoding:
            raise ValueError(
                f"pixel_values are {height}x{width} pixels, but this model was made for {self.image_size[0]}x"
                f"{self.image_size[1]}: resize the images, or pass interpolate_pos_encoding=True to resize its"
                " positions and static keys."
            )
        is_cut = height % patch_height or width % patch_width
        if height < patch_height or width < patch_width or (is_cut and self.strict_image_size):
            raise ValueError(
                f"pixel_values are {height}x{width} pixels, expected a multiple of the patch size"
                f" {patch_height}x{patch_width}: resize or pad the images."
            )


def patch_grid(pixel_values: torch.Tensor, patch_size: tuple[int, int]) -> tuple[int, int]:
    """Return the `(rows, columns)` of patches of images `(batch, channels, height, width)`."""
    return pixel_values.shape[2] // patch_size[0], pixel_values.shape[3] // patch_size[1]


def build_layernorm(config: SKViTConfig, is_there: bool) -> nn.Module:
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if is_there else nn.Identity()


def attention_options(config: SKViTConfig, token_mixer: str, attention_bias: str | None) -> AttentionOptions:
    """Return what the mixer of a layer is made of."""
    return AttentionOptions(
        config.hidden_size,
        config.grid_size,
        config.num_attention_heads,
        cast(int, config.head_dim),
        num_class_tokens=config.num_prefix_tokens,
        query_projection=config.query_projection or not token_mixer.endswith("static_key"),
        qkv_bias=config.qkv_bias,
        key_bias=config.key_bias,
        rope_theta=config.rope_theta if config.position_embedding_type == "rotary" else None,
        mask_diagonal=config.mask_diagonal,
        learned_temperature=config.learned_temperature,
        attention_bias=attention_bias,
        attention_normalization=config.attention_normalization,
        talking_heads=config.talking_heads,
        initializer_range=config.initializer_range,
    )


def build_layer_scale(config: SKViTConfig) -> nn.Module:
    if config.layer_scale_init_value is None:
        return nn.Identity()
    return LayerScale(config.hidden_size, config.layer_scale_init_value)


class SKViTLayer(Recorded, GradientCheckpointingLayer):
    """A pre-norm layer: `x + mixer(norm(x))`, then `x + mlp(norm(x))`."""

    def __init__(self, config: SKViTConfig, mixer: nn.Module, drop_path_rate: float):
        super().__init__()
        self.config = config
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mixer = mixer
        self.mixer_scale = build_layer_scale(config)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        mlp_class = GatedMLP if config.gated_mlp else MLP
        self.mlp = mlp_class(config.hidden_size, config.intermediate_size, ACT2FN[config.hidden_act], bias=True)
        self.mlp_scale = build_layer_scale(config)
        self.drop_path = DropPath(drop_path_rate)

    def forward(
        self, hidden_states: torch.Tensor, grid_size: tuple[int, int], output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        mixed, weights = self.mixer(
            self.layernorm_before(hidden_states),
            grid_size,
            output_attentions=output_attentions,
            implementation=self.config._attn_implementation,
        )
        return self.add_branches(hidden_states, mixed), weights

    def add_branches(self, hidden_states: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        """Return the tokens with what the mixer made of them, and then with what the MLP makes of that."""
        hidden_states = hidden_states + self.drop_path(self.mixer_scale(mixed))
        mlp_output = self.mlp(self.layernorm_after(hidden_states))
        return hidden_states + self.drop_path(self.mlp_scale(mlp_output))


class SKViTPreTrainedModel(StaticKeyPreTrainedModel):
    config_class = SKViTConfig
    config: SKViTConfig
    base_model_prefix = "skvit"
    _no_split_modules = ["SKViTEmbeddings", "SKViTLayer"]
    _can_record_outputs = {"hidden_states": SKViTLayer, "attentions": SKViTLayer}


class SKViTModel(SKViTPreTrainedModel):
    """SKViT without a head."""

    def __init__(self, config: SKViTConfig):
        super().__init__(config)
        self.embeddings = SKViTEmbeddings(config)
        rates = drop_path_rates(config.drop_path_rate, config.num_hidden_layers)
        self.layers = nn.ModuleList(
            SKViTLayer(config, build_token_mixer(mixer, attention_options(config, mixer, bias)), rate)
            for mixer, bias, rate in zip(config.token_mixers, config.attention_biases, rates)
        )
        self.layernorm = build_layernorm(config, config.final_norm is not None)
        self.pooler = AttentionPooling(config) if config.pooling == "attention" else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def pool(self, tokens: torch.Tensor, output_attentions: bool = False) -> torch.Tensor:
        """Return what is read of the tokens, `(batch, pooled_size)`."""
        return pool(tokens, self.config, self.pooler)

    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: torch.Tensor,
        interpolate_pos_encoding: bool | None = None,
        *,
        output_attentions: bool | None = None,
        output_hidden_states: bool | list[int] | None = None,
    ) -> BaseModelOutputWithPooling:
        """Run the network.

        Args:
            pixel_values: `(batch, channels, height, width)`, normalized, in the dtype of the weights.
            interpolate_pos_encoding: take images of another size than `image_size`, any multiple of the patch size,
                by resizing positions and static keys; None as `strict_image_size` says.
            output_attentions: return the weights of every layer that attends, `(batch, heads, tokens, tokens)`. They
                exist in the plain formulation only, which then runs whatever the attention implementation.
            output_hidden_states: return the tokens before the first layer and after each; of a list of their indices,
                those alone, and None for each of the others (transformers 5.10 returns all).

        Returns:
            `last_hidden_state`, `(batch, tokens, hidden_size)`, normalized if `final_norm` is `"tokens"`, class tokens
            and registers first if there are any; `pooler_output`, `(batch, pooled_size)`: what `pooling` says. With
            `return_dict=False` it is a plain tuple.

        Raises:
            ValueError: if the images have another size, channel count or dtype than the network takes.
        """
        output_attentions = wants_attentions(self.config, output_attentions)
        hidden_states = self.embeddings(pixel_values, interpolate_pos_encoding)
        grid_size = patch_grid(pixel_values, self.embeddings.patch_size)
        for layer in self.layers:
            hidden_states, _ = layer(hidden_states, grid_size, output_attentions)

        norm_first = self.config.final_norm == "tokens"
        hidden_states = self.layernorm(hidden_states) if norm_first else hidden_states
        pooled = self.pool(hidden_states, output_attentions)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden_states, pooler_output=pooled if norm_first else self.layernorm(pooled)
        )


def build_classifier(config: SKViTConfig) -> nn.Module:
    return nn.Linear(config.pooled_size, config.num_labels) if config.num_labels else nn.Identity()


class SKViTForImageClassification(SKViTPreTrainedModel):
    """SKViT with a linear classifier, or with one for each of DeiT's two class tokens."""

    model_class = SKViTModel

    def __init__(self, config: SKViTConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        setattr(self, self.base_model_prefix, self.model_class(config))
        self.classifier = build_classifier(config)
        self.distillation_classifier = build_classifier(config) if config.distillation_head else None
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        interpolate_pos_encoding: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutput:
        """Classify images; `SKViTModel.forward` says what the other arguments are.

        Args:
            labels: `(batch,)` class indices, `(batch, num_labels)` floats for several labels an image, or numbers
                for a regression, by `config.problem_type`.

        Returns:
            `logits`, `(batch, num_labels)`, and `loss` if there are labels.
        """
        outputs = self.base_model(pixel_values, interpolate_pos_encoding, **kwargs, return_dict=True)
        logits = self.classifier(outputs.pooler_output)
        if self.distillation_classifier is not None:
            distillation_token = outputs.last_hidden_state[:, 1]
            logits = (logits + self.distillation_classifier(distillation_token)) / 2
        return classify(self, outputs, logits, labels)


class SKViTBackbone(BackboneMixin, SKViTPreTrainedModel):
    """SKViT as a source of feature maps, for detectors and segmenters."""

    def __init__(self, config: SKViTConfig):
        super().__init__(config)
        self.skvit = SKViTModel(config)
        self.num_features = [config.hidden_size] * (config.num_hidden_layers + 1)
        self.post_init()

    @can_return_tuple
    @filter_output_hidden_states
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] (BackboneMixin names the switches)
        self,
        pixel_values: torch.Tensor,
        interpolate_pos_encoding: bool = True,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BackboneOutput:
        """Return feature maps `(batch, hidden_size, rows, columns)` of the stages in `out_features`, normalized.

        With `apply_layernorm=False` in the configuration they are not normalized. With `reshape_hidden_states=False`
        they are the tokens `(batch, 1 + rows * columns, hidden_size)`, the class token first, as DPT and Depth
        Anything take them.

        Detectors feed images of all sizes, so positions and static keys are resized unless
        `interpolate_pos_encoding` is False. `SKViTModel.forward` says what the other arguments are.
        """
        kwargs["output_hidden_states"] = True  # the decorator of transformers 5.10 only removes them
        outputs = self.skvit(pixel_values, interpolate_pos_encoding, **kwargs, return_dict=True)
        grid_size = patch_grid(pixel_values, self.skvit.embeddings.patch_size)
        feature_maps: Any = tuple(  # BackboneOutput says a tuple of one
            self._feature_map(tokens, grid_size)
            for stage, tokens in zip(self.stage_names, outputs.hidden_states, strict=True)
            if stage in self.out_features
        )
        return BackboneOutput(
            feature_maps=feature_maps, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def _feature_map(self, tokens: torch.Tensor, grid_size: tuple[int, int]) -> torch.Tensor:
        if self.config.apply_layernorm:
            tokens = self.skvit.layernorm(tokens)
        if self.config.reshape_hidden_states:
            return tokens_to_maps(tokens[:, self.config.num_prefix_tokens :], grid_size)
        return tokens


__all__ = ["SKViTBackbone", "SKViTForImageClassification", "SKViTModel", "SKViTPreTrainedModel"]
