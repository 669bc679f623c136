"""Static key attention for vision: models for the Hugging Face Hub, and what trains and publishes them.

Importing this package registers its models with transformers' Auto classes, once those are imported; torch and
transformers are imported when they are needed.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .registration_hook import register_when_imported
from .version import __version__
from .zoo import create_config, create_model, list_models

if TYPE_CHECKING:  # what the names below are, for type checkers and editors
    from .models.attention_options import AttentionOptions as AttentionOptions
    from .models.configuration_skformer import SKFormerConfig as SKFormerConfig
    from .models.configuration_skvit import SKViTConfig as SKViTConfig
    from .models.modeling_skformer import SKFormerBackbone as SKFormerBackbone
    from .models.modeling_skformer import SKFormerForImageClassification as SKFormerForImageClassification
    from .models.modeling_skformer import SKFormerModel as SKFormerModel
    from .models.modeling_skvit import SKViTBackbone as SKViTBackbone
    from .models.modeling_skvit import SKViTForImageClassification as SKViTForImageClassification
    from .models.modeling_skvit import SKViTModel as SKViTModel
    from .models.static_key import ConvStaticKeyAttention as ConvStaticKeyAttention
    from .models.static_key import SelfAttention as SelfAttention
    from .models.static_key import StaticKeyAttention as StaticKeyAttention

_MODULE_OF = {
    "SKViTConfig": "configuration_skvit",
    "SKViTModel": "modeling_skvit",
    "SKViTForImageClassification": "modeling_skvit",
    "SKViTBackbone": "modeling_skvit",
    "SKFormerConfig": "configuration_skformer",
    "SKFormerModel": "modeling_skformer",
    "SKFormerForImageClassification": "modeling_skformer",
    "SKFormerBackbone": "modeling_skformer",
    "AttentionOptions": "attention_options",
    "SelfAttention": "static_key",
    "StaticKeyAttention": "static_key",
    "ConvStaticKeyAttention": "static_key",
}

__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]
    "__version__",
    "create_config",
    "create_model",
    "list_models",
    *_MODULE_OF,
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".models.{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)


register_when_imported()
