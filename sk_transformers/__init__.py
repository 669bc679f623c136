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
    from .calibration.run import calibrate as calibrate
    from .models.attention_options import AttentionOptions as AttentionOptions
    from .models.configuration_skcait import SKCaiTConfig as SKCaiTConfig
    from .models.configuration_skcvt import SKCvTConfig as SKCvTConfig
    from .models.configuration_skformer import SKFormerConfig as SKFormerConfig
    from .models.configuration_skswin import SKSwinConfig as SKSwinConfig
    from .models.configuration_skvit import SKViTConfig as SKViTConfig
    from .models.conv_key import ConvKeyAttention as ConvKeyAttention
    from .models.modeling_skcait import SKCaiTForImageClassification as SKCaiTForImageClassification
    from .models.modeling_skcait import SKCaiTModel as SKCaiTModel
    from .models.modeling_skcvt import SKCvTBackbone as SKCvTBackbone
    from .models.modeling_skcvt import SKCvTForImageClassification as SKCvTForImageClassification
    from .models.modeling_skcvt import SKCvTModel as SKCvTModel
    from .models.modeling_skformer import SKFormerBackbone as SKFormerBackbone
    from .models.modeling_skformer import SKFormerForImageClassification as SKFormerForImageClassification
    from .models.modeling_skformer import SKFormerModel as SKFormerModel
    from .models.modeling_skformer_detection import SKFormerForObjectDetection as SKFormerForObjectDetection
    from .models.modeling_skformer_segmentation import (
        SKFormerForSemanticSegmentation as SKFormerForSemanticSegmentation,
    )
    from .models.modeling_skswin import SKSwinBackbone as SKSwinBackbone
    from .models.modeling_skswin import SKSwinForImageClassification as SKSwinForImageClassification
    from .models.modeling_skswin import SKSwinModel as SKSwinModel
    from .models.modeling_skswin_detection import SKSwinForObjectDetection as SKSwinForObjectDetection
    from .models.modeling_skswin_segmentation import SKSwinForSemanticSegmentation as SKSwinForSemanticSegmentation
    from .models.modeling_skvit import SKViTBackbone as SKViTBackbone
    from .models.modeling_skvit import SKViTForImageClassification as SKViTForImageClassification
    from .models.modeling_skvit import SKViTModel as SKViTModel
    from .models.modeling_skvit_segmentation import SKViTForSemanticSegmentation as SKViTForSemanticSegmentation
    from .models.static_key import ConvStaticKeyAttention as ConvStaticKeyAttention
    from .models.static_key import SelfAttention as SelfAttention
    from .models.static_key import StaticKeyAttention as StaticKeyAttention
    from .models.static_map import StaticMap as StaticMap

_MODULE_OF = {
    "calibrate": "calibration.run",
    "SKViTConfig": "models.configuration_skvit",
    "SKViTModel": "models.modeling_skvit",
    "SKViTForImageClassification": "models.modeling_skvit",
    "SKViTForSemanticSegmentation": "models.modeling_skvit_segmentation",
    "SKViTBackbone": "models.modeling_skvit",
    "SKCaiTConfig": "models.configuration_skcait",
    "SKCaiTModel": "models.modeling_skcait",
    "SKCaiTForImageClassification": "models.modeling_skcait",
    "SKFormerConfig": "models.configuration_skformer",
    "SKFormerModel": "models.modeling_skformer",
    "SKFormerForImageClassification": "models.modeling_skformer",
    "SKFormerForSemanticSegmentation": "models.modeling_skformer_segmentation",
    "SKFormerForObjectDetection": "models.modeling_skformer_detection",
    "SKFormerBackbone": "models.modeling_skformer",
    "SKSwinConfig": "models.configuration_skswin",
    "SKSwinModel": "models.modeling_skswin",
    "SKSwinForImageClassification": "models.modeling_skswin",
    "SKSwinForSemanticSegmentation": "models.modeling_skswin_segmentation",
    "SKSwinForObjectDetection": "models.modeling_skswin_detection",
    "SKSwinBackbone": "models.modeling_skswin",
    "SKCvTConfig": "models.configuration_skcvt",
    "SKCvTModel": "models.modeling_skcvt",
    "SKCvTForImageClassification": "models.modeling_skcvt",
    "SKCvTBackbone": "models.modeling_skcvt",
    "AttentionOptions": "models.attention_options",
    "SelfAttention": "models.static_key",
    "StaticKeyAttention": "models.static_key",
    "ConvStaticKeyAttention": "models.static_key",
    "StaticMap": "models.static_map",
    "ConvKeyAttention": "models.conv_key",
}

__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]
    "__version__",
    "create_config",
    "create_model",
    "list_models",
    *(name for name in _MODULE_OF if name != "calibrate"),  # which needs the extra `train`
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)


register_when_imported()
