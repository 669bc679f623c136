"""SKSwin: Swin, whose tokens attend within windows, with computed or with static keys.

Source of the frame: "Swin Transformer", Liu et al., arXiv 2103.14030. The mixers see a window as an image of their own
grid: what is Swin's is the windows, their shift, and a mask where a shifted window holds tokens of two sides of a map.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers.backbone_utils import BackboneMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BackboneOutput, BaseModelOutputWithPooling, ImageClassifierOutput

from .attention_options import AttentionOptions
from .configuration_skswin import SKSwinConfig
from .grids import maps_to_tokens, tokens_to_maps, window_partition, window_reverse
from .layers import MLP, DropPath, drop_path_rates
from .modeling_common import StaticKeyPreTrainedModel, check_pixel_values, classify, output_options
from .token_mixers import build_token_mixer


class SKSwinPatches(nn.Module):
    """Patches of an image or a map, `(batch, channels, height, width)`, to tokens; a rest of a patch is zero filled."""

    def __init__(self, config: SKSwinConfig, stage: int):
        super().__init__()
        inside = config.num_channels if stage == 0 else config.hidden_sizes[stage - 1]
        width = config.hidden_sizes[stage]
        self.size = config.patch_size if stage == 0 else config.downsampling[stage - 1]
        channels, eps = inside * self.size**2, config.layer_norm_eps
        merges = config.patch_norms and stage > 0
        self.norm_before = nn.LayerNorm(channels, eps=eps) if merges else None
        self.projection = nn.Linear(channels, width, bias=not merges)
        self.norm_after = nn.LayerNorm(width, eps=eps) if config.patch_norms and stage == 0 else None

    def forward(self, maps: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        """Return the tokens and the grid that they lie on; a patch has its channels first, then rows and columns."""
        size = self.size
        maps = F.pad(maps, (0, -maps.shape[3] % size, 0, -maps.shape[2] % size))
        grid_size = (maps.shape[2] // size, maps.shape[3] // size)
        patches = maps.unflatten(3, (-1, size)).unflatten(2, (-1, size)).permute(0, 2, 4, 1, 3, 5)
        tokens = patches.flatten(3).flatten(1, 2)
        tokens = tokens if self.norm_before is None else self.norm_before(tokens)
        tokens = self.projection(tokens)
        return tokens if self.norm_after is None else self.norm_after(tokens), grid_size


def shift_mask(
    map_size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int], like: torch.Tensor
) -> torch.Tensor:
    """Return the additive mask, `(windows, 1, tokens, tokens)`, that keeps the sides of a shifted map apart."""
    # Along each axis: before the last window, in it, and in the part of it that came from the other side.
    rows, columns = (
        torch.stack([torch.arange(size, device=like.device) >= size - last for last in (side, step)]).sum(dim=0)
        for size, side, step in zip(map_size, window, shift)
    )
    regions = (3 * rows[:, None] + columns).reshape(1, -1, 1).to(like.dtype)
    regions = window_partition(regions, map_size, window)  # (windows, tokens, 1)
    return ((regions != regions.mT).to(like.dtype) * torch.finfo(like.dtype).min).unsqueeze(1)


class SKSwinLayer(GradientCheckpointingLayer):
    """A Swin block: `x + mixer(norm(x))` in windows, then `x + mlp(norm(x))`."""

    def __init__(self, config: SKSwinConfig, stage: int, is_shifted: bool, drop_path_rate: float):
        super().__init__()
        self.config, self.is_shifted = config, is_shifted
        width, side = config.hidden_sizes[stage], config.window_size
        height, grid_width = config.grid_sizes[stage]
        separate = config.window_keys == "separate" and config.token_mixers[stage] == "static_key"
        self.layernorm_before = nn.LayerNorm(width, eps=config.layer_norm_eps)
        options = AttentionOptions(
            width,
            (side, side),
            num_heads=width // config.head_dim,
            head_dim=config.head_dim,
            qkv_bias=config.qkv_bias,
            attention_bias="relative",
            key_windows=(-(-height // side), -(-grid_width // side)) if separate else (1, 1),
            initializer_range=config.initializer_range,
        )
        self.mixer = build_token_mixer(config.token_mixers[stage], options)
        self.layernorm_after = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = MLP(width, int(config.mlp_ratio * width), nn.GELU(), bias=True)
        self.drop_path = DropPath(drop_path_rate)

    def forward(
        self, hidden_states: torch.Tensor, grid_size: tuple[int, int], output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        mixed, weights = self.mix_windows(self.layernorm_before(hidden_states), grid_size, output_attentions)
        hidden_states = hidden_states + self.drop_path(mixed)
        return hidden_states + self.drop_path(self.mlp(self.layernorm_after(hidden_states))), weights

    def mix_windows(
        self, tokens: torch.Tensor, grid_size: tuple[int, int], output_attentions: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Mix within windows, shifted or not; as in Swin, tokens attend to the zeros that fill the last windows up."""
        side = min(self.config.window_size, *grid_size)
        window, (height, width) = (side, side), grid_size
        maps = F.pad(tokens.unflatten(1, grid_size), (0, 0, 0, -width % side, 0, -height % side))
        map_size = (maps.shape[1], maps.shape[2])
        is_lone = min(grid_size) <= self.config.window_size and not self.config.shift_lone_window
        shift = side // 2 if self.is_shifted and not is_lone else 0
        mask = None
        if shift:
            maps = maps.roll((-shift, -shift), (1, 2))
            mask = shift_mask(map_size, window, (shift, shift), tokens).repeat(len(tokens), 1, 1, 1)
        windows = window_partition(maps.flatten(1, 2), map_size, window)
        counts = {"windows": (map_size[0] // side, map_size[1] // side)} if hasattr(self.mixer, "window_keys") else {}
        implementation = self.config._attn_implementation
        mixed, weights = self.mixer(windows, window, output_attentions, implementation, mask, **counts)
        maps = window_reverse(mixed, map_size, window).unflatten(1, map_size)
        maps = maps.roll((shift, shift), (1, 2)) if shift else maps
        return maps[:, :height, :width].flatten(1, 2), weights


class SKSwinStage(nn.Module):
    """Patch embedding or merging, then layers, every second one of which is shifted."""

    def __init__(self, config: SKSwinConfig, stage: int, rates: list[float]):
        super().__init__()
        self.patches = SKSwinPatches(config, stage)
        self.layers = nn.ModuleList(SKSwinLayer(config, stage, i % 2 == 1, rate) for i, rate in enumerate(rates))

    def forward(
        self, maps: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return the map of patches, the map after the layers, and their attention weights."""
        tokens, grid_size = self.patches(maps)
        embedded, all_attentions = tokens_to_maps(tokens, grid_size), ()
        for layer in self.layers:
            tokens, weights = layer(tokens, grid_size, output_attentions)
            all_attentions += () if weights is None else (weights,)
        return embedded, tokens_to_maps(tokens, grid_size), all_attentions


class SKSwinPreTrainedModel(StaticKeyPreTrainedModel):
    config_class = SKSwinConfig
    config: SKSwinConfig
    base_model_prefix = "skswin"
    _no_split_modules = ["SKSwinPatches", "SKSwinLayer"]


class SKSwinModel(SKSwinPreTrainedModel):
    """SKSwin without a head. `add_pooling_layer=False` leaves out the final norm and the mean."""

    def __init__(self, config: SKSwinConfig, add_pooling_layer: bool = True):
        super().__init__(config)
        rates = iter(drop_path_rates(config.drop_path_rate, sum(config.depths)))
        self.stages = nn.ModuleList(
            SKSwinStage(config, stage, [next(rates) for _ in range(depth)]) for stage, depth in enumerate(config.depths)
        )
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if add_pooling_layer else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return next(iter(self.stages)).get_submodule("patches")

    def forward(
        self,
        pixel_values: torch.Tensor,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPooling | tuple:
        """Run the network on images of any height and width.

        Args:
            pixel_values: `(batch, channels, height, width)`, normalized, in the dtype of the weights.
            output_attentions: return the weights of every layer, `(batch * windows, heads, tokens, tokens)`.
            output_hidden_states: return the maps after the patch embedding and after each stage.
            return_dict: False returns a plain tuple.

        Returns:
            `last_hidden_state`, `(batch, channels, height, width)`, normalized where `final_norm` is `"tokens"`, and
            `pooler_output`, `(batch, channels)`.

        Raises:
            ValueError: if the images have another channel count or dtype than the network takes.
        """
        output_attentions, output_hidden_states, return_dict = output_options(
            self.config, output_attentions, output_hidden_states, return_dict
        )
        check_pixel_values(pixel_values, next(self.parameters()), self.config.num_channels)
        maps, all_hidden_states, all_attentions = pixel_values, (), ()
        for stage in self.stages:
            embedded, maps, attentions = stage(maps, output_attentions)
            all_hidden_states = (*(all_hidden_states or (embedded,)), maps)
            all_attentions += attentions
        pooled = None
        if self.layernorm is not None:
            normalizes_tokens = self.config.final_norm == "tokens"
            tokens = self.layernorm(maps_to_tokens(maps)) if normalizes_tokens else maps_to_tokens(maps)
            pooled = tokens.mean(dim=1) if normalizes_tokens else self.layernorm(tokens.mean(dim=1))
            maps = tokens_to_maps(tokens, (maps.shape[2], maps.shape[3]))
        outputs = BaseModelOutputWithPooling(
            last_hidden_state=maps,
            pooler_output=pooled,
            hidden_states=all_hidden_states if output_hidden_states else None,
            attentions=all_attentions if output_attentions else None,
        )
        return outputs if return_dict else outputs.to_tuple()


class SKSwinForImageClassification(SKSwinPreTrainedModel):
    """SKSwin with a linear classifier."""

    def __init__(self, config: SKSwinConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.skswin = SKSwinModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels) if config.num_labels else nn.Identity()
        self.post_init()

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ImageClassifierOutput | tuple:
        """Classify images; `SKFormerForImageClassification.forward` says what the arguments are."""
        *_, return_dict = output_options(self.config, output_attentions, output_hidden_states, return_dict)
        outputs = self.skswin(pixel_values, output_attentions, output_hidden_states, return_dict=True)
        return classify(self, outputs, self.classifier(outputs.pooler_output), labels, return_dict)


class SKSwinBackbone(BackboneMixin, SKSwinPreTrainedModel):
    """SKSwin as a source of feature maps, with a layer norm of its own for each that is returned."""

    _keys_to_ignore_on_load_unexpected = [r"^skswin\.layernorm\.", r"^layernorm\.", r"^classifier\."]

    def __init__(self, config: SKSwinConfig):
        super().__init__(config)
        self.skswin = SKSwinModel(config, add_pooling_layer=False)
        self.num_features = [config.hidden_sizes[0], *config.hidden_sizes]
        self.feature_norms = nn.ModuleDict(
            {
                stage: nn.LayerNorm(width, eps=config.layer_norm_eps)
                for stage, width in zip(self.out_features, self.channels)
            }
        )
        self.post_init()

    def forward(
        self,
        pixel_values: torch.Tensor,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> BackboneOutput | tuple:
        """Return normalized feature maps `(batch, channels, height, width)` of the stages in `out_features`."""
        output_attentions, output_hidden_states, return_dict = output_options(
            self.config, output_attentions, output_hidden_states, return_dict
        )
        outputs = self.skswin(pixel_values, output_attentions, output_hidden_states=True, return_dict=True)
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


__all__ = ["SKSwinBackbone", "SKSwinForImageClassification", "SKSwinModel", "SKSwinPreTrainedModel"]
