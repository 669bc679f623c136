"""SKSwin: Swin, whose tokens attend within windows, with computed or with static keys.

Source of the frame: "Swin Transformer", Liu et al., arXiv 2103.14030. The mixers see a window as an image of their own
grid: what is Swin's is the windows, their shift, and a mask where a shifted window holds tokens of two sides of a map.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention_options import AttentionOptions
from .configuration_skswin import SKSwinConfig
from .grids import map_size, maps_to_tokens, tokens_to_maps, window_partition, window_reverse
from .layers import MLP, DropPath, drop_path_rates
from .modeling_common import Recorded, StaticKeyPreTrainedModel, check_pixel_values
from .modeling_stages import Stage, StagedBackbone, StagedClassifier, StagedModel
from .token_mixers import build_token_mixer


class SKSwinPatches(nn.Module):
    """Patches of a map, `(batch, channels, height, width)`, to positions of another; parts of a patch are filled up."""

    def __init__(self, config: SKSwinConfig, stage: int):
        super().__init__()
        is_first, width = stage == 0, config.hidden_sizes[stage]
        self.num_channels = config.num_channels if is_first else config.hidden_sizes[stage - 1]
        self.size = config.patch_size if is_first else config.downsampling[stage - 1]
        inside, eps = self.num_channels * self.size**2, config.layer_norm_eps
        merges = config.patch_norms and not is_first
        self.norm_before = nn.LayerNorm(inside, eps=eps) if merges else None
        self.projection = nn.Linear(inside, width, bias=not merges)
        self.norm_after = nn.LayerNorm(width, eps=eps) if config.patch_norms and is_first else None

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the map `(batch, channels, height, width)`; in a patch channels come first, then rows and columns."""
        size = self.size
        maps = F.pad(maps, (0, -maps.shape[3] % size, 0, -maps.shape[2] % size))
        patches = maps.unflatten(3, (-1, size)).unflatten(2, (-1, size)).permute(0, 2, 4, 1, 3, 5).flatten(3)
        patches = patches if self.norm_before is None else self.norm_before(patches)
        patches = self.projection(patches)
        patches = patches if self.norm_after is None else self.norm_after(patches)
        return patches.permute(0, 3, 1, 2)


class SKSwinStem(SKSwinPatches):
    """Patches of an image to the first stage's map."""

    def __init__(self, config: SKSwinConfig):
        super().__init__(config, 0)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        check_pixel_values(maps, self.projection.weight, self.num_channels)
        return super().forward(maps)


def shift_mask(grid_size: tuple[int, int], window: tuple[int, int], shift: int, like: torch.Tensor) -> torch.Tensor:
    """Return the additive mask, `(windows, 1, tokens, tokens)`, that keeps the sides of a shifted map apart.

    Args:
        grid_size: of the map, which windows fill.
        window: its height and width.
        shift: by how many positions the map was rolled, up and to the left.
        like: has the mask's dtype and device.
    """
    # Along each axis: before the last window, in it, and in the part of it that came from the other side.
    rows, columns = (
        torch.stack([torch.arange(size, device=like.device) >= size - last for last in (side, shift)]).sum(dim=0)
        for size, side in zip(grid_size, window)
    )
    regions = (3 * rows[:, None] + columns).reshape(1, -1, 1).to(like.dtype)
    regions = window_partition(regions, grid_size, window)  # (windows, tokens, 1)
    return ((regions != regions.mT).to(like.dtype) * torch.finfo(like.dtype).min).unsqueeze(1)


class SKSwinLayer(Recorded, GradientCheckpointingLayer):
    """A Swin block: `x + mixer(norm(x))` in windows, then `x + mlp(norm(x))`."""

    def __init__(self, config: SKSwinConfig, stage: int, layer: int, drop_path_rate: float):
        super().__init__()
        self.config, self.is_shifted = config, layer % 2 == 1
        width, side = config.hidden_sizes[stage], config.window_size
        mixer, attention_bias = config.mixers_of_stage(stage)[layer]
        self.has_window_keys = config.window_keys == "separate" and mixer == "static_key"
        self.layernorm_before = nn.LayerNorm(width, eps=config.layer_norm_eps)
        options = AttentionOptions(
            width,
            (side, side),
            num_heads=width // config.head_dim,
            head_dim=config.head_dim,
            qkv_bias=config.qkv_bias,
            attention_bias=attention_bias,
            attention_normalization=config.attention_normalization,
            key_windows=config.window_counts[stage] if self.has_window_keys else None,
            initializer_range=config.initializer_range,
        )
        self.mixer = build_token_mixer(mixer, options)
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
        windows, mask = self.cut(tokens, grid_size)
        side, _ = self.window_and_shift(grid_size)
        of_map = {"windows": (-(-grid_size[0] // side), -(-grid_size[1] // side))} if self.has_window_keys else {}
        implementation = self.config._attn_implementation
        mixed, weights = self.mixer(windows, (side, side), output_attentions, implementation, mask, **of_map)
        return self.join(mixed, grid_size), weights

    def window_and_shift(self, grid_size: tuple[int, int]) -> tuple[int, int]:
        """Return the positions a side of a window on a grid, and by how many the map is rolled before it is cut."""
        side = min(self.config.window_size, *grid_size)
        is_lone = min(grid_size) <= self.config.window_size and not self.config.shift_lone_window
        return side, side // 2 if self.is_shifted and not is_lone else 0

    def cut(self, tokens: torch.Tensor, grid_size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the windows of a map, `(batch * windows, side * side, channels)`, and their mask if it is rolled."""
        (side, shift), (height, width) = self.window_and_shift(grid_size), grid_size
        maps = F.pad(tokens.unflatten(1, grid_size), (0, 0, 0, -width % side, 0, -height % side))
        window, padded_size = (side, side), (maps.shape[1], maps.shape[2])
        if not shift:
            return window_partition(maps.flatten(1, 2), padded_size, window), None
        maps = maps.roll((-shift, -shift), (1, 2))
        mask = shift_mask(padded_size, window, shift, tokens).repeat(tokens.shape[0], 1, 1, 1)
        return window_partition(maps.flatten(1, 2), padded_size, window), mask

    def join(self, windows: torch.Tensor, grid_size: tuple[int, int]) -> torch.Tensor:
        """Undo `cut`."""
        (side, shift), (height, width) = self.window_and_shift(grid_size), grid_size
        padded_size = (height + -height % side, width + -width % side)
        maps = window_reverse(windows, padded_size, (side, side)).unflatten(1, padded_size)
        maps = maps.roll((shift, shift), (1, 2)) if shift else maps
        return maps[:, :height, :width].flatten(1, 2)


class SKSwinPreTrainedModel(StaticKeyPreTrainedModel):
    config_class = SKSwinConfig
    config: SKSwinConfig
    base_model_prefix = "skswin"
    _no_split_modules = ["SKSwinStem", "SKSwinPatches", "SKSwinLayer"]
    _can_record_outputs = {"hidden_states": Stage, "attentions": SKSwinLayer}


class SKSwinModel(StagedModel, SKSwinPreTrainedModel):
    """SKSwin without a head, for images of any size. `add_pooling_layer=False` leaves out the final norm and the mean.

    `last_hidden_state` is normalized where `config.final_norm` is `"tokens"`.
    """

    def __init__(self, config: SKSwinConfig, add_pooling_layer: bool = True):
        super().__init__(config)
        self.stem = SKSwinStem(config)
        rates = iter(drop_path_rates(config.drop_path_rate, sum(config.depths)))
        self.stages = nn.ModuleList(
            Stage(
                SKSwinPatches(config, stage) if stage > 0 else None,
                [SKSwinLayer(config, stage, layer, next(rates)) for layer in range(depth)],
            )
            for stage, depth in enumerate(config.depths)
        )
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if add_pooling_layer else None
        self.post_init()

    def pool(self, maps: torch.Tensor, class_tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self.layernorm is None:
            return maps, None
        if self.config.final_norm == "pooled":
            return maps, self.layernorm(maps_to_tokens(maps).mean(dim=1))
        tokens = self.layernorm(maps_to_tokens(maps))
        return tokens_to_maps(tokens, map_size(maps)), tokens.mean(dim=1)


class SKSwinForImageClassification(StagedClassifier, SKSwinPreTrainedModel):
    """SKSwin with a linear classifier."""

    def __init__(self, config: SKSwinConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.skswin = SKSwinModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels) if config.num_labels else nn.Identity()
        self.post_init()


class SKSwinBackbone(StagedBackbone, SKSwinPreTrainedModel):
    """SKSwin as a source of feature maps, at strides 4, 4, 8, 16 and 32 by default, each normalized."""

    _keys_to_ignore_on_load_unexpected = [r"^skswin\.layernorm\.", r"^layernorm\.", r"^classifier\."]

    def __init__(self, config: SKSwinConfig):
        super().__init__(config)
        self.skswin = SKSwinModel(config, add_pooling_layer=False)
        self.add_feature_norms(bias=True)
        self.post_init()


__all__ = ["SKSwinBackbone", "SKSwinForImageClassification", "SKSwinModel", "SKSwinPreTrainedModel"]
