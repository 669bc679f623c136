"""What an attention mixer is made of."""

from dataclasses import dataclass

from .configuration_checks import ATTENTION_NORMALIZATIONS, TALKING_HEADS, check_choice
from .grids import strided_size


@dataclass(frozen=True)
class AttentionOptions:
    """What attention, with computed or with static keys, is made of.

    Args:
        hidden_size: channels of the tokens.
        grid_size: `(height, width)` of the grid of positions; it binds static keys only.
        num_heads, head_dim: number of heads and channels of a head; they need not fill `hidden_size`.
        num_class_tokens: class tokens, distillation tokens among them, that stand before the positions.
        query_projection: False makes the tokens themselves the query, where the key is no projection.
        qkv_bias, output_bias: whether the projections have biases.
        key_bias: whether that of the key has one too, where `qkv_bias`.
        mask_diagonal: keep a token from attending to its own position (locality self-attention, arXiv 2112.13492).
        learned_temperature: train the scale of the logits, as a logarithm that starts at `head_dim ** -0.5` (same
            source).
        logit_scale: the scale of the logits where it is not trained; None is `head_dim ** -0.5`.
        rope_theta: turn queries, and keys that are computed, by rotary positions of this base (see `rotary.py`); None
            for none. A static key holds its own rotation: what is right for the turned query.
        attention_bias: a trained bias of the logits: None, `"full"` or `"relative"` (see `attention_bias.py`).
        attention_normalization: what makes weights of the logits: `"softmax"`, `"sparsemax"` or `"entmax15"` (see
            `normalizations.py`).
        talking_heads: mix the heads before and after that: None, `"linear"` or `"affine"` (see `talking_heads.py`).
        static_key_resolution: what static keys do on another grid than `grid_size`: `"interpolate"` resizes them,
            `"window"` cuts the map into windows of the trained grid.
        key_windows: rows and columns of windows of `grid_size` that a static key has rows for, one key a window; None
            has one key for all windows.
        conv_kernel_size: side of the depthwise convolution, an odd number, before each projection (see
            `conv_projection.py`); None for none.
        key_stride: of those of keys and values, which then lie on a grid as many times coarser.
        initializer_range: standard deviation of the keys of CSKA before training.

    Raises:
        ValueError: if the options do not fit together.
    """

    hidden_size: int
    grid_size: tuple[int, int]
    num_heads: int
    head_dim: int
    num_class_tokens: int = 0
    query_projection: bool = True
    qkv_bias: bool = False
    output_bias: bool = True
    key_bias: bool = True
    mask_diagonal: bool = False
    learned_temperature: bool = False
    logit_scale: float | None = None
    rope_theta: float | None = None
    attention_bias: str | None = None
    attention_normalization: str = "softmax"
    talking_heads: str | None = None
    static_key_resolution: str = "interpolate"
    key_windows: tuple[int, int] | None = None
    conv_kernel_size: int | None = None
    key_stride: int = 1
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        check_choice("attention_normalization", self.attention_normalization, ATTENTION_NORMALIZATIONS)
        check_choice("talking_heads", self.talking_heads, TALKING_HEADS)
        if not self.query_projection and self.inner_size != self.hidden_size:
            raise ValueError(
                f"query_projection=False makes the {self.hidden_size} channels of a token its query, but there are"
                f" {self.num_heads} heads of {self.head_dim}: choose heads that fill {self.hidden_size} channels."
            )
        if self.rope_theta is not None and self.head_dim % 4:
            raise ValueError(f"Rotary positions turn channels by fours, and head_dim is {self.head_dim}.")
        if self.static_key_resolution == "window" and self.num_class_tokens:
            raise ValueError(
                "static_key_resolution='window' cuts the map into windows, and a class token is in none:"
                " use 'interpolate', or a network without a class token."
            )
        if self.key_stride != 1:
            self._check_strided()

    def _check_strided(self) -> None:
        """Raise unless nothing needs a key at the place of each query."""
        if self.conv_kernel_size is None:
            raise ValueError(f"key_stride={self.key_stride} is of convolutions: set conv_kernel_size too.")
        for name, without in {
            "mask_diagonal": False,
            "rope_theta": None,
            "attention_bias": None,
            "key_windows": None,
            "static_key_resolution": "interpolate",
        }.items():
            value = getattr(self, name)
            if value != without:
                raise ValueError(
                    f"{name}={value!r} takes a key at the place of each query, and key_stride={self.key_stride} leaves"
                    f" fewer: use {name}={without!r}, or key_stride=1."
                )

    @property
    def inner_size(self) -> int:
        """Channels of all heads together."""
        return self.num_heads * self.head_dim

    @property
    def scaling(self) -> float:
        """The scale of logits that is not trained."""
        return self.head_dim**-0.5 if self.logit_scale is None else self.logit_scale

    @property
    def key_grid_size(self) -> tuple[int, int]:
        """`(height, width)` of the grid of keys and values."""
        return strided_size(self.grid_size, self.key_stride)

    @property
    def num_positions(self) -> int:
        """Rows of a static key: one for each class token and each position of a key."""
        return self.num_class_tokens + self.key_grid_size[0] * self.key_grid_size[1]
