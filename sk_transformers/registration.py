"""Make transformers' Auto classes know our models, and our models save their code with their weights."""

from typing import Any

from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForObjectDetection,
    AutoModelForSemanticSegmentation,
    PreTrainedModel,
)

from .models.configuration_skcait import SKCaiTConfig
from .models.configuration_skcvt import SKCvTConfig
from .models.configuration_skformer import SKFormerConfig
from .models.configuration_skswin import SKSwinConfig
from .models.configuration_skvit import SKViTConfig
from .models.modeling_skcait import SKCaiTForImageClassification, SKCaiTModel
from .models.modeling_skcvt import SKCvTBackbone, SKCvTForImageClassification, SKCvTModel
from .models.modeling_skformer import SKFormerBackbone, SKFormerForImageClassification, SKFormerModel
from .models.modeling_skformer_detection import SKFormerForObjectDetection
from .models.modeling_skformer_segmentation import SKFormerForSemanticSegmentation
from .models.modeling_skswin import SKSwinBackbone, SKSwinForImageClassification, SKSwinModel
from .models.modeling_skswin_detection import SKSwinForObjectDetection
from .models.modeling_skswin_segmentation import SKSwinForSemanticSegmentation
from .models.modeling_skvit import SKViTBackbone, SKViTForImageClassification, SKViTModel
from .models.modeling_skvit_segmentation import SKViTForSemanticSegmentation

AUTO_CLASSES = {
    SKViTConfig: {
        AutoModel: SKViTModel,
        AutoModelForImageClassification: SKViTForImageClassification,
        AutoModelForSemanticSegmentation: SKViTForSemanticSegmentation,
        AutoBackbone: SKViTBackbone,
    },
    SKCaiTConfig: {
        AutoModel: SKCaiTModel,
        AutoModelForImageClassification: SKCaiTForImageClassification,
    },
    SKFormerConfig: {
        AutoModel: SKFormerModel,
        AutoModelForImageClassification: SKFormerForImageClassification,
        AutoModelForSemanticSegmentation: SKFormerForSemanticSegmentation,
        AutoModelForObjectDetection: SKFormerForObjectDetection,
        AutoBackbone: SKFormerBackbone,
    },
    SKSwinConfig: {
        AutoModel: SKSwinModel,
        AutoModelForImageClassification: SKSwinForImageClassification,
        AutoModelForSemanticSegmentation: SKSwinForSemanticSegmentation,
        AutoModelForObjectDetection: SKSwinForObjectDetection,
        AutoBackbone: SKSwinBackbone,
    },
    SKCvTConfig: {
        AutoModel: SKCvTModel,
        AutoModelForImageClassification: SKCvTForImageClassification,
        AutoBackbone: SKCvTBackbone,
    },
}


def register_auto_classes() -> None:
    """Register our classes with the Auto classes, and mark them to be saved as code with their weights."""
    for config_class, model_classes in AUTO_CLASSES.items():
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        config_class.register_for_auto_class()
        for auto_class, model_class in model_classes.items():
            auto_class.register(config_class, model_class, exist_ok=True)
            model_class.register_for_auto_class(auto_class.__name__)


def is_ours(model: Any) -> bool:
    """Return whether it is a model of this package, here or as remote code, whose code can travel with it.

    Args:
        model: anything; one that is wrapped, in DistributedDataParallel, `torch.compile` or PEFT, is not.
    """
    families = {config_class.model_type for config_class in AUTO_CLASSES}
    return isinstance(model, PreTrainedModel) and model.config.model_type in families


def auto_class_of(architecture: str) -> Any:
    """Return the Auto class that opens a model of this package, by the name of its class."""
    for ending, auto_class in (
        ("ForImageClassification", AutoModelForImageClassification),
        ("ForSemanticSegmentation", AutoModelForSemanticSegmentation),
        ("ForObjectDetection", AutoModelForObjectDetection),
    ):
        if architecture.endswith(ending):
            return auto_class
    return AutoModel
