"""Make transformers' Auto classes know our models, and our models save their code with their weights."""

from transformers import AutoBackbone, AutoConfig, AutoModel, AutoModelForImageClassification

from .models.configuration_skformer import SKFormerConfig
from .models.configuration_skvit import SKViTConfig
from .models.modeling_skformer import SKFormerBackbone, SKFormerForImageClassification, SKFormerModel
from .models.modeling_skvit import SKViTBackbone, SKViTForImageClassification, SKViTModel

AUTO_CLASSES = {
    SKViTConfig: {
        AutoModel: SKViTModel,
        AutoModelForImageClassification: SKViTForImageClassification,
        AutoBackbone: SKViTBackbone,
    },
    SKFormerConfig: {
        AutoModel: SKFormerModel,
        AutoModelForImageClassification: SKFormerForImageClassification,
        AutoBackbone: SKFormerBackbone,
    },
}


def register_auto_classes() -> None:
    for config_class, model_classes in AUTO_CLASSES.items():
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        config_class.register_for_auto_class()
        for auto_class, model_class in model_classes.items():
            auto_class.register(config_class, model_class, exist_ok=True)
            model_class.register_for_auto_class(auto_class.__name__)
