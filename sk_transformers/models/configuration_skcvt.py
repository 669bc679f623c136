"""Configuration of SKCvT, CvT that may attend with static keys."""

from typing import Any

from transformers.backbone_utils import BackboneConfigMixin
from transformers.configuration_utils import PretrainedConfig

from .configuration_checks import (
    ATTENTION_NORMALIZATIONS,
    check_at_least,
    check_choice,
    check_rate,
    one_for_each,
    size_pair,
)

MIXER_NAMES = ("static_key", "conv_static_key", "attention")  # those that can have fewer keys than queries


class SKCvTConfig(BackboneConfigMixin, PretrainedConfig):
    """The shape of an SKCvT network. The defaults are CvT-13's at 224 pixels, with static keys.

    Args:
        image_size: pixels, one number or `(height, width)`, that static keys are made for.
        num_channels: channels of the image.
        patch_sizes, patch_strides, patch_paddings: of the convolution that each stage starts with.
        depths: layers of each stage.
        hidden_sizes: channels of each stage.
        token_mixers: mixer of each stage: `"attention"`, `"static_key"`, `"conv_static_key"`.
        head_dim: channels of a head, one number or one for each stage, which divide the widths.
        conv_kernel_size: side of the depthwise convolutions before the projections, an odd number.
        key_strides: of those of keys and values, one number or one for each stage.
        logit_scale: `"head"` divides logits by the root of `head_dim`; `"width"` by that of the stage's width, as CvT;
            `"none"` leaves them as they are, as the released code does with convolutional static keys.
        attention_normalization: what makes weights of the logits: `"softmax"`, `"sparsemax"` or `"entmax15"`
            (`normalizations.py`).
        hidden_act: activation of the MLPs: `"gelu"` as in transformers, `"quick_gelu"` as in the authors' code.
        mlp_ratio: channels inside an MLP over those outside.
        qkv_bias: whether the projections of queries, keys and values have biases.
        final_norm: `"pooled"` normalizes the class token in the end; None does not, as transformers' CvT without a
            classifier.
        drop_path_rate: stochastic depth of the last layer; it grows linearly from 0.
        layer_norm_eps: epsilon of the norms.
        initializer_range: standard deviation of the weights before training.
        out_features, out_indices: which of `"stem"`, `"stage1"` and so on a backbone returns.

    Raises:
        ValueError: if values are unknown or do not fit together.
    """

    model_type = "skcvt"
    has_stages = True
    static_key_resolution = "interpolate"

    def __init__(
        self,
        image_size: int | list[int] | tuple[int, int] = 224,
        num_channels: int = 3,
        patch_sizes: list[int] | tuple[int, ...] = (7, 3, 3),
        patch_strides: list[int] | tuple[int, ...] = (4, 2, 2),
        patch_paddings: list[int] | tuple[int, ...] = (2, 1, 1),
        depths: list[int] | tuple[int, ...] = (1, 2, 10),
        hidden_sizes: list[int] | tuple[int, ...] = (64, 192, 384),
        token_mixers: str | list[str] | tuple[str, ...] = "static_key",
        head_dim: int | list[int] | tuple[int, ...] = 64,
        conv_kernel_size: int = 3,
        key_strides: int | list[int] | tuple[int, ...] = 2,
        logit_scale: str = "head",
        attention_normalization: str = "softmax",
        hidden_act: str = "gelu",
        mlp_ratio: float = 4,
        qkv_bias: bool = True,
        final_norm: str | None = "pooled",
        drop_path_rate: float = 0.0,
        layer_norm_eps: float = 1e-5,
        initializer_range: float = 0.02,
        out_features: list[str] | None = None,
        out_indices: list[int] | None = None,
        **kwargs: Any,
    ):
        stages = len(depths)
        self.image_size = image_size
        self.num_channels = num_channels
        self.patch_sizes = one_for_each("patch_sizes", patch_sizes, stages, "stages")
        self.patch_strides = one_for_each("patch_strides", patch_strides, stages, "stages")
        self.patch_paddings = one_for_each("patch_paddings", patch_paddings, stages, "stages")
        self.depths = list(depths)
        self.hidden_sizes = one_for_each("hidden_sizes", hidden_sizes, stages, "stages")
        self.token_mixers = one_for_each("token_mixers", token_mixers, stages, "stages")
        self.head_dim = list(head_dim) if isinstance(head_dim, tuple) else head_dim
        self.conv_kernel_size = conv_kernel_size
        self.key_strides = one_for_each("key_strides", key_strides, stages, "stages")
        self.logit_scale = logit_scale
        self.attention_normalization = attention_normalization
        self.hidden_act = hidden_act
        self.mlp_ratio = mlp_ratio
        self.qkv_bias = qkv_bias
        self.final_norm = final_norm
        self.drop_path_rate = drop_path_rate
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        self._check()
        super().__init__(**kwargs)
        self.stage_names = ["stem"] + [f"stage{i}" for i in range(1, stages + 1)]
        self.set_output_features_output_indices(out_features=out_features, out_indices=out_indices)

    def _check(self) -> None:
        check_at_least(1, num_channels=self.num_channels, conv_kernel_size=self.conv_kernel_size)
        if self.conv_kernel_size % 2 == 0:
            raise ValueError(f"conv_kernel_size is {self.conv_kernel_size}, expected an odd number, with a middle.")
        check_rate(drop_path_rate=self.drop_path_rate)
        check_choice("logit_scale", self.logit_scale, ("head", "width", "none"))
        check_choice("attention_normalization", self.attention_normalization, ATTENTION_NORMALIZATIONS)
        check_choice("final_norm", self.final_norm, ("pooled", None))
        for stage, (width, head_dim) in enumerate(zip(self.hidden_sizes, self.head_dims)):
            check_at_least(
                1,
                depths=self.depths[stage],
                hidden_sizes=width,
                head_dim=head_dim,
                patch_sizes=self.patch_sizes[stage],
                patch_strides=self.patch_strides[stage],
                key_strides=self.key_strides[stage],
            )
            check_at_least(0, patch_paddings=self.patch_paddings[stage])
            check_choice("token mixer", self.token_mixers[stage], MIXER_NAMES)
            if width % head_dim:
                raise ValueError(
                    f"stage {stage + 1} has {width} channels, which heads of {head_dim} do not fill:"
                    " choose a head_dim that divides the width."
                )
        smallest = self.min_image_size
        if min(size_pair("image_size", self.image_size)) < smallest:
            raise ValueError(
                f"image_size is {self.image_size!r}, expected at least {smallest}, or other patch_strides."
            )

    @property
    def hidden_size(self) -> int:
        """The channels of the last stage."""
        return self.hidden_sizes[-1]

    @property
    def head_dims(self) -> list[int]:
        """The channels of a head in each stage."""
        return one_for_each("head_dim", self.head_dim, len(self.depths), "stages")

    @property
    def logit_scales(self) -> list[float]:
        """What each stage multiplies its logits by."""
        widths = {"head": self.head_dims, "width": self.hidden_sizes, "none": [1] * len(self.depths)}
        return [width**-0.5 for width in widths[self.logit_scale]]

    @property
    def class_tokens(self) -> list[int]:
        """How many class tokens stand before the positions of each stage: one in the last."""
        return [0] * (len(self.depths) - 1) + [1]

    @property
    def attention_biases(self) -> list[None]:
        """The kind of the attention bias of each stage: none has one."""
        return [None] * len(self.depths)

    @property
    def grid_sizes(self) -> list[tuple[int, int]]:
        """`(height, width)` of each stage's map at `image_size`."""
        height, width = size_pair("image_size", self.image_size)
        grids = []
        for size, stride, padding in zip(self.patch_sizes, self.patch_strides, self.patch_paddings):
            height, width = ((side + 2 * padding - size) // stride + 1 for side in (height, width))
            grids.append((height, width))
        return grids

    @property
    def min_image_size(self) -> int:
        """Pixels a side of the smallest image that leaves the last stage a position."""
        side = 1
        for size, stride, padding in zip(self.patch_sizes[::-1], self.patch_strides[::-1], self.patch_paddings[::-1]):
            side = max(1, (side - 1) * stride + size - 2 * padding)
        return side


__all__ = ["SKCvTConfig"]
