"""Configuration of SKSwin, Swin whose windows may attend with static keys."""

from math import prod
from typing import Any

from transformers.backbone_utils import BackboneConfigMixin
from transformers.configuration_utils import PretrainedConfig

from .configuration_checks import (
    ATTENTION_MIXER_NAMES,
    ATTENTION_NORMALIZATIONS,
    biases_of_mixers,
    check_at_least,
    check_choice,
    check_detector,
    check_rate,
    check_segmenter,
    one_for_each,
    size_pair,
    values_of_layers,
)


class SKSwinConfig(BackboneConfigMixin, PretrainedConfig):
    """The shape of an SKSwin network. The defaults are Swin-T's at 224 pixels, with static keys.

    Args:
        image_size: pixels, one number or `(height, width)`, that keys of one a window are made for.
        num_channels: channels of the image.
        patch_size: pixels a side of a patch.
        depths: layers of each stage; every second one shifts its windows.
        hidden_sizes: channels of each stage.
        token_mixers: mixer of each stage, or of each layer: `"attention"`, `"static_key"`, `"conv_static_key"`,
            `"static_map"`, or `"conv_key"`, the released code's convolutional key (`conv_key.py`).
        attention_bias: bias of the logits, one for all or as many as there are `token_mixers`: `"relative"`, Swin's,
            `"full"` or None (`attention_bias.py`).
        head_dim: channels of a head, which divides the widths.
        attention_normalization: what makes weights of the logits: `"softmax"`, `"sparsemax"` or `"entmax15"`
            (`normalizations.py`).
        window_size: positions a side of a window.
        window_keys: `"shared"` has one static key for every window of a layer, `"separate"` one for each window, as the
            released code (`"static_key"` only).
        downsampling: how many times fewer positions a side each stage has than the one before, from the second on.
        patch_norms: whether patch embedding and merging have a norm, and merging no bias: Swin's. False is the released
            code's, which has none, and a bias.
        final_norm: `"tokens"` normalizes before the mean over the positions, as Swin; `"pooled"` after it, as the
            released code.
        shift_lone_window: whether a map of a single window is shifted too, as in the released code.
        mlp_ratio: channels inside an MLP over those outside.
        qkv_bias: whether the projections of queries, keys and values have biases.
        drop_path_rate: stochastic depth of the last layer; it grows linearly from 0.
        layer_norm_eps: epsilon of the norms.
        initializer_range: standard deviation of the weights before training.
        segmentation_hidden_size: channels of a segmenter's head (UperNet); its auxiliary head has half of them.
        segmentation_auxiliary_weight: of the auxiliary head's loss in a segmenter's; 0 leaves that head out.
        segmentation_ignore_index: the label of pixels that have no class.
        detection_hidden_size: channels of a detector's pyramid and heads (Mask R-CNN).
        detection_masks: whether a detector finds the masks of objects, too, beside their boxes.
        detection_anchor_scale: side of a detector's anchors, in strides of the map that they are on.
        detection_score_threshold: objects of a lower score are not returned.
        detection_max_objects: that are returned of an image, at most.
        out_features, out_indices: which of `"stem"`, `"stage1"` and so on a backbone returns.

    Raises:
        ValueError: if values are unknown or do not fit together.
    """

    model_type = "skswin"
    has_stages = True

    def __init__(
        self,
        image_size: int | list[int] | tuple[int, int] = 224,
        num_channels: int = 3,
        patch_size: int = 4,
        depths: list[int] | tuple[int, ...] = (2, 2, 6, 2),
        hidden_sizes: list[int] | tuple[int, ...] = (96, 192, 384, 768),
        token_mixers: str | list[str] | tuple[str, ...] = "static_key",
        attention_bias: str | list[str | None] | None = "relative",
        head_dim: int = 32,
        attention_normalization: str = "softmax",
        window_size: int = 7,
        window_keys: str = "shared",
        downsampling: int | list[int] | tuple[int, ...] = 2,
        patch_norms: bool = True,
        final_norm: str = "tokens",
        shift_lone_window: bool = False,
        mlp_ratio: float = 4,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        layer_norm_eps: float = 1e-5,
        initializer_range: float = 0.02,
        segmentation_hidden_size: int = 512,
        segmentation_auxiliary_weight: float = 0.4,
        segmentation_ignore_index: int = 255,
        detection_hidden_size: int = 256,
        detection_masks: bool = True,
        detection_anchor_scale: float = 8,
        detection_score_threshold: float = 0.05,
        detection_max_objects: int = 100,
        out_features: list[str] | None = None,
        out_indices: list[int] | None = None,
        **kwargs: Any,
    ):
        self.image_size = image_size
        self.num_channels = num_channels
        self.patch_size = patch_size
        self.depths = list(depths)
        self.hidden_sizes = list(hidden_sizes)
        self.token_mixers = self._of_stages_or_layers("token_mixers", token_mixers)
        self.attention_bias = attention_bias
        self.head_dim = head_dim
        self.attention_normalization = attention_normalization
        self.window_size = window_size
        self.window_keys = window_keys
        self.downsampling = one_for_each("downsampling", downsampling, len(self.depths) - 1, "stages but the first")
        self.patch_norms = patch_norms
        self.final_norm = final_norm
        self.shift_lone_window = shift_lone_window
        self.mlp_ratio = mlp_ratio
        self.qkv_bias = qkv_bias
        self.drop_path_rate = drop_path_rate
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        self.segmentation_hidden_size = segmentation_hidden_size
        self.segmentation_auxiliary_weight = segmentation_auxiliary_weight
        self.segmentation_ignore_index = segmentation_ignore_index
        self.detection_hidden_size = detection_hidden_size
        self.detection_masks = detection_masks
        self.detection_anchor_scale = detection_anchor_scale
        self.detection_score_threshold = detection_score_threshold
        self.detection_max_objects = detection_max_objects
        self._check()
        super().__init__(**kwargs)
        self.stage_names = ["stem"] + [f"stage{i}" for i in range(1, len(self.depths) + 1)]
        self.set_output_features_output_indices(out_features=out_features, out_indices=out_indices)

    def _of_stages_or_layers(self, name: str, value: Any) -> list[Any]:
        """Return a value for each layer where there are as many, else one for each stage."""
        if isinstance(value, list | tuple) and len(value) == sum(self.depths):
            return list(value)
        return one_for_each(name, value, len(self.depths), f"stages, or {sum(self.depths)}, one for each of the layers")

    def _check(self) -> None:
        check_segmenter(self)
        check_detector(self)
        check_at_least(
            1,
            num_channels=self.num_channels,
            patch_size=self.patch_size,
            window_size=self.window_size,
            head_dim=self.head_dim,
        )
        size_pair("image_size", self.image_size)
        one_for_each("hidden_sizes", self.hidden_sizes, len(self.depths), "stages")
        for mixer in self.token_mixers:
            check_choice("token mixer", mixer, ATTENTION_MIXER_NAMES)
        biases_of_mixers(self.attention_bias, self.token_mixers, "token_mixers")
        for stage, (depth, width) in enumerate(zip(self.depths, self.hidden_sizes), 1):
            check_at_least(1, depths=depth, hidden_sizes=width)
            if width % self.head_dim:
                raise ValueError(
                    f"stage {stage} has {width} channels, which heads of {self.head_dim} do not fill:"
                    " choose a head_dim that divides the width."
                )
        for factor in self.downsampling:
            check_at_least(1, downsampling=factor)
        check_choice("attention_normalization", self.attention_normalization, ATTENTION_NORMALIZATIONS)
        check_choice("window_keys", self.window_keys, ("shared", "separate"))
        check_choice("final_norm", self.final_norm, ("tokens", "pooled"))
        check_rate(drop_path_rate=self.drop_path_rate)
        if self.window_keys == "separate" and not set(self.token_mixers) <= {"static_key", "attention"}:
            raise ValueError(
                f"window_keys is 'separate' with the token mixers {self.token_mixers}: only 'static_key' has a key for"
                " each window; use 'shared'."
            )

    @property
    def hidden_size(self) -> int:
        """The channels of the last stage."""
        return self.hidden_sizes[-1]

    @property
    def strides(self) -> list[int]:
        """Pixels between positions of each stage's map."""
        return [self.patch_size * prod(self.downsampling[:stage]) for stage in range(len(self.depths))]

    @property
    def total_stride(self) -> int:
        """Pixels between positions of the last stage's map."""
        return self.strides[-1]

    @property
    def head_dims(self) -> list[int]:
        """The channels of a head in each stage."""
        return [self.head_dim] * len(self.depths)

    @property
    def attention_biases(self) -> list[str | None]:
        """The kind of the attention bias of each of the `token_mixers`."""
        return biases_of_mixers(self.attention_bias, self.token_mixers, "token_mixers")

    def mixers_of_stage(self, stage: int) -> list[tuple[str, str | None]]:
        """Return the token mixer and the kind of the attention bias of each layer of a stage, counted from 0."""
        return values_of_layers(list(zip(self.token_mixers, self.attention_biases)), self.depths)[stage]

    @property
    def window_counts(self) -> list[tuple[int, int]]:
        """Rows and columns of windows of each stage's map at `image_size`."""
        side = self.window_size
        return [(-(-height // side), -(-width // side)) for height, width in self.grid_sizes]

    @property
    def grid_sizes(self) -> list[tuple[int, int]]:
        """`(height, width)` of each stage's map at `image_size`; patches that the image ends in are filled up."""
        height, width = (-(-side // self.patch_size) for side in size_pair("image_size", self.image_size))
        grids = [(height, width)]
        for factor in self.downsampling:
            height, width = -(-height // factor), -(-width // factor)
            grids.append((height, width))
        return grids


__all__ = ["SKSwinConfig"]
