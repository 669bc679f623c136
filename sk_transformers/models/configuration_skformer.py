"""Configuration of SKFormer, the four-stage MetaFormer hybrid whose middle stages may attend with static keys."""

from typing import Any

from transformers.backbone_utils import BackboneConfigMixin
from transformers.configuration_utils import PretrainedConfig

from .configuration_checks import (
    ATTENTION_NORMALIZATIONS,
    SPATIAL_MIXER_NAMES,
    biases_of_mixers,
    check_at_least,
    check_choice,
    check_detector,
    check_mixers,
    check_rate,
    check_segmenter,
    one_for_each,
    size_pair,
)

NUM_STAGES = 4


class SKFormerConfig(BackboneConfigMixin, PretrainedConfig):
    """The shape of an SKFormer network. The defaults are SKAFormer-S18 at 224 pixels.

    Args:
        image_size: pixels, one number or `(height, width)`, that the static keys' grids are made for.
        num_channels: channels of the image.
        stem_kernel_size, stem_stride: pixels of the convolution that makes the first stage's map, and between its
            positions: 7 and 4, or 3 and 2 where images are small.
        depths: layers of each of the four stages.
        hidden_sizes: channels of each stage.
        token_mixers: mixer of each stage: `"static_key"` (SKA), `"conv_static_key"` (CSKA), `"static_map"`,
            `"attention"`, `"conv_key"`, `"separable_conv"`, `"pooling"`, `"identity"`, `"random"`.
        head_dim: channels of a head, one number or one for each stage; it divides the widths of stages that attend.
        attention_bias: a trained bias of the logits, one for all stages that attend or a list with one for each: None,
            `"full"`, a number for each pair of tokens, or `"relative"`, one for each distance on the grid (Swin,
            BEiT); see `attention_bias.py`. A static map has a full one where it is None.
        attention_normalization: what makes weights of the logits in the stages that attend: `"softmax"`, or
            `"sparsemax"` or `"entmax15"`, which give tokens a weight of exactly 0, slowly (`normalizations.py`).
        query_projection: False makes a token its own query, in the stages with static keys.
        mlp_ratio: channels inside an MLP over those outside, in the layers and in the head.
        norm: the norm of the layers: `"layer"`, over the channels of a token, or `"group"`, a group norm of one
            group, over the channels of all tokens of an image (IdentityFormer, RandFormer, PoolFormerV2).
        use_mlp_head: False classifies with one linear layer instead of an MLP (the same three families).
        drop_path_rate: stochastic depth of the last layer; it grows linearly from 0.
        head_dropout: dropout before the classifier.
        static_key_resolution: what static keys do on grids other than theirs: `"interpolate"` resizes the keys, at a
            cost that grows with the square of the positions; `"window"` cuts the map into windows of the trained
            grid, at a cost that grows with the positions.
        layer_norm_eps: epsilon of the norms.
        head_layer_norm_eps: epsilon of the layer norm in the MLP head.
        initializer_range: standard deviation of the weights before training.
        segmentation_hidden_size: channels of a segmenter's head (UperNet); its auxiliary head has half of them.
        segmentation_auxiliary_weight: of the auxiliary head's loss in a segmenter's; 0 leaves that head out.
        segmentation_ignore_index: the label of pixels that have no class.
        detection_hidden_size: channels of a detector's pyramid and heads (Mask R-CNN).
        detection_masks: whether a detector finds the masks of objects, too, beside their boxes.
        detection_anchor_scale: side of a detector's anchors, in strides of the map that they are on.
        detection_score_threshold: objects of a lower score are not returned.
        detection_max_objects: that are returned of an image, at most.
        out_features, out_indices: which of `"stem"`, `"stage1"` to `"stage4"` a backbone returns.

    Raises:
        ValueError: if values are unknown or do not fit together.
    """

    model_type = "skformer"
    has_stages = True

    def __init__(
        self,
        image_size: int | list[int] | tuple[int, int] = 224,
        num_channels: int = 3,
        stem_kernel_size: int = 7,
        stem_stride: int = 4,
        depths: list[int] | tuple[int, ...] = (3, 3, 9, 3),
        hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 320, 512),
        token_mixers: list[str] | tuple[str, ...] = ("separable_conv", "static_key", "static_key", "attention"),
        head_dim: int | list[int] | tuple[int, ...] = 32,
        attention_bias: str | list[str | None] | None = None,
        attention_normalization: str = "softmax",
        query_projection: bool = True,
        mlp_ratio: float = 4,
        norm: str = "layer",
        use_mlp_head: bool = True,
        drop_path_rate: float = 0.0,
        head_dropout: float = 0.0,
        static_key_resolution: str = "interpolate",
        layer_norm_eps: float = 1e-6,
        head_layer_norm_eps: float = 1e-5,
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
        self.stem_kernel_size = stem_kernel_size
        self.stem_stride = stem_stride
        self.depths = list(depths)
        self.hidden_sizes = list(hidden_sizes)
        self.token_mixers = one_for_each("token_mixers", token_mixers, NUM_STAGES, "stages")
        self.head_dim = head_dim
        self.attention_bias = attention_bias
        self.attention_normalization = attention_normalization
        self.query_projection = query_projection
        self.mlp_ratio = mlp_ratio
        if "layer_norm_scope" in kwargs:  # what configurations of version 0.1 call it
            scope = str(kwargs.pop("layer_norm_scope"))
            norm = {"channel": "layer", "map": "group"}.get(scope, scope)
        self.norm = norm
        self.use_mlp_head = use_mlp_head
        self.drop_path_rate = drop_path_rate
        self.head_dropout = head_dropout
        self.static_key_resolution = static_key_resolution
        self.layer_norm_eps = layer_norm_eps
        self.head_layer_norm_eps = head_layer_norm_eps
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
        self.stage_names = ["stem"] + [f"stage{i}" for i in range(1, NUM_STAGES + 1)]
        self.set_output_features_output_indices(out_features=out_features, out_indices=out_indices)

    def _check(self) -> None:
        check_segmenter(self)
        check_detector(self)
        check_at_least(1, num_channels=self.num_channels, stem_stride=self.stem_stride)
        check_at_least(self.stem_stride, stem_kernel_size=self.stem_kernel_size)  # else pixels are seen by nothing
        check_at_least(
            self.min_image_size, **dict(zip(("image height", "image width"), size_pair("image_size", self.image_size)))
        )
        for name in ("depths", "hidden_sizes"):
            for value in one_for_each(name, getattr(self, name), NUM_STAGES, "stages"):
                check_at_least(1, **{name: value})
        check_mixers("token_mixers", self.token_mixers, NUM_STAGES, "stages")
        biases_of_mixers(self.attention_bias, self.token_mixers, "stages")
        check_choice("attention_normalization", self.attention_normalization, ATTENTION_NORMALIZATIONS)
        check_rate(drop_path_rate=self.drop_path_rate, head_dropout=self.head_dropout)
        check_choice("norm", self.norm, ("layer", "group"))
        check_choice("static_key_resolution", self.static_key_resolution, ("interpolate", "window"))
        for stage, (mixer, width, head_dim) in enumerate(zip(self.token_mixers, self.hidden_sizes, self.head_dims), 1):
            check_at_least(1, head_dim=head_dim)
            if mixer not in SPATIAL_MIXER_NAMES and width % head_dim:
                raise ValueError(
                    f"stage {stage} has {width} channels, which heads of {head_dim} do not fill:"
                    " choose a head_dim that divides the width."
                )

    @property
    def hidden_size(self) -> int:
        """The channels of the last stage, which `VisionTextDualEncoderModel` asks for.

        `VisionEncoderDecoderModel` asks for them too, but then reads tokens, which this network has none of.
        """
        return self.hidden_sizes[-1]

    @property
    def head_dims(self) -> list[int]:
        """The channels of a head in each stage."""
        return one_for_each("head_dim", self.head_dim, NUM_STAGES, "stages")

    @property
    def strides(self) -> list[int]:
        """Pixels between positions of each stage's map."""
        return [self.stem_stride * 2**stage for stage in range(NUM_STAGES)]

    @property
    def total_stride(self) -> int:
        """Pixels between positions of the last stage's map."""
        return self.strides[-1]

    @property
    def min_image_size(self) -> int:
        """Pixels a side of the smallest images that are taken: the last stage then has one position."""
        return self.total_stride

    @property
    def stem_padding(self) -> int:
        """Zeros around the image, with which a map is as large as its image over the stride."""
        return (self.stem_kernel_size - self.stem_stride + 1) // 2

    @property
    def attention_biases(self) -> list[str | None]:
        """The kind of the attention bias of each stage."""
        return biases_of_mixers(self.attention_bias, self.token_mixers, "stages")

    @property
    def grid_sizes(self) -> list[tuple[int, int]]:
        """`(height, width)` of each stage's map at `image_size`."""
        outside = 2 * self.stem_padding - self.stem_kernel_size
        height, width = ((side + outside) // self.stem_stride + 1 for side in size_pair("image_size", self.image_size))
        grids = [(height, width)]
        for _ in range(1, NUM_STAGES):  # 3x3, stride 2, padding 1
            height, width = grids[-1]
            grids.append(((height - 1) // 2 + 1, (width - 1) // 2 + 1))
        return grids


__all__ = ["SKFormerConfig"]
