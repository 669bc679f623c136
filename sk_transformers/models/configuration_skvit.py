"""Configuration of SKViT, the Vision Transformer whose attention keys may be static."""

from typing import Any

from transformers.backbone_utils import BackboneConfigMixin
from transformers.configuration_utils import PretrainedConfig

from .configuration_checks import (
    ATTENTION_NORMALIZATIONS,
    GRID_MIXER_NAMES,
    INTERPOLATION_NAMES,
    TALKING_HEADS,
    biases_of_mixers,
    check_at_least,
    check_choice,
    check_mixers,
    check_rate,
    check_segmenter,
    one_for_each,
    size_pair,
)

CLASS_TOKEN_POOLINGS = ("cls", "cls_mean")


class SKViTConfig(BackboneConfigMixin, PretrainedConfig):
    """The shape of an SKViT network. The defaults are SKViT-Base at 224 pixels.

    Args:
        image_size: pixels, one number or `(height, width)`, that positions and static keys are made for.
        strict_image_size: whether images of another size are refused where `interpolate_pos_encoding` is not given.
            False takes them, of any size, and leaves out what makes no whole patch at the right and at the bottom, as
            DINOv2 does.
        patch_size: pixels of a patch, one number or `(height, width)`; it divides `image_size` where that is strict.
        num_channels: channels of the image.
        hidden_size: channels of the tokens.
        num_hidden_layers: number of layers.
        num_attention_heads: heads of the mixers that attend.
        head_dim: channels of a head, `hidden_size // num_attention_heads` when None.
        intermediate_size: channels inside the MLP.
        token_mixer: the mixer of all layers, or a list with one for each: `"static_key"` (SKA),
            `"conv_static_key"` (CSKA), `"static_map"`, `"attention"`, and, with `pooling="mean"`, `"conv_key"`,
            `"separable_conv"`, `"pooling"`, `"identity"`, `"random"`.
        attention_bias: a trained bias of the logits, one for all layers that attend or a list with one for each: None,
            `"full"`, a number for each pair of tokens, or `"relative"`, one for each distance on the grid (Swin,
            BEiT); see `attention_bias.py`. A static map has a full one where it is None.
        attention_normalization: what makes weights of the logits in the layers that attend: `"softmax"`, or
            `"sparsemax"` or `"entmax15"`, which give tokens a weight of exactly 0, slowly (`normalizations.py`).
        talking_heads: mix the heads' logits and their weights in the layers that attend, slowly: None, `"linear"`, or
            `"affine"`, with biases (`talking_heads.py`).
        query_projection: False makes a token its own query, in the layers with static keys.
        qkv_bias: whether the query, key and value projections have biases.
        key_bias: False leaves out the key's, which BEiT and DINOv3 do not have.
        patch_bias: whether the projection of patches has a bias, which CLIP's does not.
        mask_diagonal: keep tokens from attending to themselves (locality self-attention, arXiv 2112.13492).
        learned_temperature: train the scale of the logits (same source).
        shifted_patch_tokenization: see patches together with the image shifted by a pixel four ways (same source).
        pooling: what the classifier reads: `"cls"`, the class token; `"mean"`, the mean of the patches' tokens;
            `"cls_mean"`, both, one after the other (DINOv2); or `"attention"`, a trained query and an MLP (SigLIP).
        class_token: whether there is a class token; None where the pooling reads one.
        num_register_tokens: tokens after the class tokens that the network keeps notes in and nothing reads (arXiv
            2309.16588). They have no positions.
        position_embedding_type: `"learned"`, positions that are added to the tokens; `"rotary"`, which turn queries and
            computed keys, while a static key holds its own rotation (DINOv3); or None.
        rope_theta: the longest period of rotary positions is so many times the shortest.
        position_interpolation: how learned positions are resized to another grid: `"bicubic"`, `"bicubic_antialias"`,
            `"bilinear_antialias"`, or `"auto"`, bicubic and antialiased where it shrinks.
        distillation_token: add a second class token, which learns from a teacher (DeiT, arXiv 2012.12877).
        distillation_head: give that token a classifier of its own; the logits are then the mean of both.
        hidden_act: activation of the MLP.
        gated_mlp: let a second projection gate the MLP (arXiv 2002.05202): SwiGLU with `hidden_act="silu"`.
        layer_scale_init_value: train a factor for each channel of the residual branches, from this value on (layer
            scale, arXiv 2103.17239); None for no such factors.
        drop_path_rate: stochastic depth of the last layer; it grows linearly from 0.
        layer_norm_eps: epsilon of the layer norms.
        embeddings_layernorm: whether the tokens are normalized before the first layer (CLIP).
        final_norm: what is normalized after the last layer: `"tokens"`, of which it is pooled then; `"pooled"`, what is
            pooled of tokens that are not (CLIP, BEiT); or None.
        initializer_range: standard deviation of the weights before training.
        segmentation_hidden_size: channels of a segmenter's head (UperNet); its auxiliary head has half of them.
        segmentation_auxiliary_weight: of the auxiliary head's loss in a segmenter's; 0 leaves that head out.
        segmentation_ignore_index: the label of pixels that have no class.
        out_features, out_indices: which of `"stem"`, `"stage1"`, ... a backbone returns; a stage is a layer.
        apply_layernorm: whether a backbone normalizes what it returns.
        reshape_hidden_states: whether a backbone returns maps; False returns tokens, the class token first, which
            some heads take (DPT, Depth Anything).

    Raises:
        ValueError: if values are unknown or do not fit together.
    """

    model_type = "skvit"
    has_stages = False
    poolings = (*CLASS_TOKEN_POOLINGS, "mean", "attention")

    def __init__(
        self,
        image_size: int | list[int] | tuple[int, int] = 224,
        strict_image_size: bool = True,
        patch_size: int | list[int] | tuple[int, int] = 16,
        num_channels: int = 3,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        head_dim: int | None = None,
        intermediate_size: int = 3072,
        token_mixer: str | list[str] = "static_key",
        attention_bias: str | list[str | None] | None = None,
        attention_normalization: str = "softmax",
        talking_heads: str | None = None,
        query_projection: bool = True,
        qkv_bias: bool = True,
        key_bias: bool = True,
        patch_bias: bool = True,
        mask_diagonal: bool = False,
        learned_temperature: bool = False,
        shifted_patch_tokenization: bool = False,
        pooling: str = "cls",
        class_token: bool | None = None,
        num_register_tokens: int = 0,
        position_embedding_type: str | None = "learned",
        rope_theta: float = 100.0,
        position_interpolation: str = "auto",
        distillation_token: bool = False,
        distillation_head: bool = False,
        hidden_act: str = "gelu",
        gated_mlp: bool = False,
        layer_scale_init_value: float | None = None,
        drop_path_rate: float = 0.0,
        layer_norm_eps: float = 1e-6,
        embeddings_layernorm: bool = False,
        final_norm: str | None = "tokens",
        initializer_range: float = 0.02,
        segmentation_hidden_size: int = 512,
        segmentation_auxiliary_weight: float = 0.4,
        segmentation_ignore_index: int = 255,
        out_features: list[str] | None = None,
        out_indices: list[int] | None = None,
        apply_layernorm: bool = True,
        reshape_hidden_states: bool = True,
        **kwargs: Any,
    ):
        self.image_size = image_size
        self.strict_image_size = strict_image_size
        self.patch_size = patch_size
        self.num_channels = num_channels
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.head_dim = head_dim
        self.intermediate_size = intermediate_size
        self.token_mixer = token_mixer
        self.attention_bias = attention_bias
        self.attention_normalization = attention_normalization
        self.talking_heads = talking_heads
        self.query_projection = query_projection
        self.qkv_bias = qkv_bias
        self.key_bias = key_bias
        self.patch_bias = patch_bias
        self.mask_diagonal = mask_diagonal
        self.learned_temperature = learned_temperature
        self.shifted_patch_tokenization = shifted_patch_tokenization
        self.pooling = pooling
        self.class_token = pooling in CLASS_TOKEN_POOLINGS if class_token is None else class_token
        self.num_register_tokens = num_register_tokens
        self.position_embedding_type = position_embedding_type
        self.rope_theta = rope_theta
        self.position_interpolation = position_interpolation
        self.distillation_token = distillation_token
        self.distillation_head = distillation_head
        self.hidden_act = hidden_act
        self.gated_mlp = gated_mlp
        self.layer_scale_init_value = layer_scale_init_value
        self.drop_path_rate = drop_path_rate
        self.layer_norm_eps = layer_norm_eps
        self.embeddings_layernorm = embeddings_layernorm
        self.final_norm = final_norm
        self.initializer_range = initializer_range
        self.apply_layernorm = apply_layernorm
        self.reshape_hidden_states = reshape_hidden_states
        self.segmentation_hidden_size = segmentation_hidden_size
        self.segmentation_auxiliary_weight = segmentation_auxiliary_weight
        self.segmentation_ignore_index = segmentation_ignore_index
        self._check()
        if self.head_dim is None:
            self.head_dim = hidden_size // num_attention_heads
        super().__init__(**kwargs)
        self.stage_names = ["stem"] + [f"stage{i}" for i in range(1, num_hidden_layers + 1)]
        self.set_output_features_output_indices(out_features=out_features, out_indices=out_indices)

    def _check(self) -> None:
        check_segmenter(self)
        check_at_least(1, num_channels=self.num_channels, hidden_size=self.hidden_size)
        check_at_least(1, num_hidden_layers=self.num_hidden_layers, intermediate_size=self.intermediate_size)
        check_at_least(1, num_attention_heads=self.num_attention_heads)
        check_rate(drop_path_rate=self.drop_path_rate)
        if self.layer_scale_init_value is not None:
            check_at_least(0, layer_scale_init_value=self.layer_scale_init_value)
        check_at_least(0, num_register_tokens=self.num_register_tokens)
        check_choice("pooling", self.pooling, self.poolings)
        check_choice("position_embedding_type", self.position_embedding_type, ("learned", "rotary", None))
        check_choice("final_norm", self.final_norm, ("tokens", "pooled", None))
        if self.pooling == "cls_mean" and self.final_norm == "pooled":
            raise ValueError("final_norm='pooled' goes with every pooling but 'cls_mean': use 'tokens' or None.")
        if self.pooling == "attention" and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"pooling='attention' splits hidden_size {self.hidden_size} into {self.num_attention_heads} heads:"
                " choose num_attention_heads that divides it."
            )
        check_choice("position_interpolation", self.position_interpolation, INTERPOLATION_NAMES)
        if self.pooling in CLASS_TOKEN_POOLINGS and not self.class_token:
            raise ValueError(f"pooling={self.pooling!r} reads a class token, but class_token is False: use 'mean'.")
        if self.distillation_token and not self.class_token:
            raise ValueError(
                f"distillation_token needs a class token in all layers, but pooling is {self.pooling!r}: use an SKViT"
                " with 'cls'."
            )
        if self.distillation_head and not self.distillation_token:
            raise ValueError("distillation_head classifies the distillation token: set distillation_token too.")
        if self.distillation_head and self.pooling != "cls":
            raise ValueError(f"distillation_head goes with pooling='cls', but pooling is {self.pooling!r}.")
        if not self.reshape_hidden_states and self.num_prefix_tokens != 1:
            raise ValueError(
                f"reshape_hidden_states=False is for heads that expect one class token before the patches, and this"
                f" network has {self.num_prefix_tokens} tokens there: use pooling='cls' without a distillation token or"
                " registers."
            )
        check_mixers("token_mixer", self.token_mixers, self.num_hidden_layers, "layers")
        biases_of_mixers(self.attention_bias, self.token_mixers, "layers")
        check_choice("attention_normalization", self.attention_normalization, ATTENTION_NORMALIZATIONS)
        check_choice("talking_heads", self.talking_heads, TALKING_HEADS)
        whole_patches = self.strict_image_size or self.shifted_patch_tokenization
        for image, patch in zip(size_pair("image_size", self.image_size), size_pair("patch_size", self.patch_size)):
            if image < patch or (image % patch and whole_patches):
                raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}.")
        if self.head_dim is not None:
            check_at_least(1, head_dim=self.head_dim)
        elif self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} cannot be split into {self.num_attention_heads} heads:"
                " choose num_attention_heads that divides it, or give head_dim."
            )
        head_dim = self.head_dim or self.hidden_size // self.num_attention_heads
        if self.position_embedding_type == "rotary" and head_dim % 4:
            raise ValueError(f"Rotary positions turn channels by fours, and head_dim is {head_dim}.")
        heads_width = self.num_attention_heads * (self.head_dim or self.hidden_size // self.num_attention_heads)
        if not self.query_projection and heads_width != self.hidden_size:
            raise ValueError(
                f"query_projection=False needs heads as wide as the tokens: {self.num_attention_heads} heads of"
                f" {self.head_dim} are {heads_width} channels, and hidden_size is {self.hidden_size}."
            )
        on_grid = sorted(set(self.token_mixers) & set(GRID_MIXER_NAMES))
        if self.num_prefix_tokens and on_grid:
            raise ValueError(
                f"token mixer {on_grid[0]!r} works on the grid of patches and cannot feed a class token:"
                " use pooling='mean', without registers."
            )

    @property
    def token_mixers(self) -> list[str]:
        """The mixer of each layer."""
        return one_for_each("token_mixer", self.token_mixer, self.num_hidden_layers, "layers")

    @property
    def attention_biases(self) -> list[str | None]:
        """The kind of the attention bias of each layer."""
        return biases_of_mixers(self.attention_bias, self.token_mixers, "layers")

    @property
    def num_class_tokens(self) -> int:
        """Tokens with a position before those of the patches: the class token and the distillation token."""
        return self.class_token + self.distillation_token

    @property
    def num_prefix_tokens(self) -> int:
        """All tokens before those of the patches: class tokens first, then registers."""
        return self.num_class_tokens + self.num_register_tokens

    @property
    def pooled_size(self) -> int:
        """Channels of what the classifier reads."""
        return self.hidden_size * (2 if self.pooling == "cls_mean" else 1)

    @property
    def grid_size(self) -> tuple[int, int]:
        """`(height, width)` of the grid of patches at `image_size`."""
        (height, width), patch = size_pair("image_size", self.image_size), size_pair("patch_size", self.patch_size)
        return height // patch[0], width // patch[1]


__all__ = ["SKViTConfig"]
