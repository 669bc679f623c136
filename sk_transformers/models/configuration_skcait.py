"""Configuration of SKCaiT, CaiT whose patches may attend with static keys."""

from typing import Any

from .configuration_checks import TALKING_HEADS, check_at_least, check_choice
from .configuration_skvit import SKViTConfig


class SKCaiTConfig(SKViTConfig):
    """The shape of an SKCaiT network: a ViT without a class token, and then layers in which a class token reads.

    The defaults are CaiT-XXS24's at 224 pixels, with static keys. `SKViTConfig` says what the fields that are not told
    here are; they are those of the layers of patches.

    Args:
        talking_heads: see `SKViTConfig`; in CaiT `"affine"`.
        num_class_layers: layers after the others, in which the class token alone attends, to itself and to the patches.
        class_talking_heads: what `talking_heads` is in the layers of patches, in those of the class token.
        normalize_patches: whether such a layer also normalizes the patches that it reads, as CaiT does. False is the
            form of the static keys' released code.
        kwargs: other fields of `SKViTConfig`, or of every configuration. `pooling` is `"class_layers"` always.

    Raises:
        ValueError: if values are unknown or do not fit together.
    """

    model_type = "skcait"
    poolings = ("class_layers",)

    def __init__(
        self,
        hidden_size: int = 192,
        num_hidden_layers: int = 24,
        num_attention_heads: int = 4,
        intermediate_size: int = 768,
        talking_heads: str | None = "affine",
        layer_scale_init_value: float | None = 1e-5,
        num_class_layers: int = 2,
        class_talking_heads: str | None = None,
        normalize_patches: bool = True,
        **kwargs: Any,
    ):
        self.num_class_layers = num_class_layers
        self.class_talking_heads = class_talking_heads
        self.normalize_patches = normalize_patches
        check_at_least(1, num_class_layers=num_class_layers)
        check_choice("class_talking_heads", class_talking_heads, TALKING_HEADS)
        super().__init__(
            hidden_size=hidden_size,
            num_hidden_layers=num_hidden_layers,
            num_attention_heads=num_attention_heads,
            intermediate_size=intermediate_size,
            talking_heads=talking_heads,
            layer_scale_init_value=layer_scale_init_value,
            **{"pooling": "class_layers", "final_norm": "pooled", **kwargs},
        )


__all__ = ["SKCaiTConfig"]
