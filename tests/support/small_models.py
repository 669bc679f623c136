"""The smallest networks that still have every part: the settings of models that a test builds in milliseconds."""

from sk_transformers import (
    SKCaiTConfig,
    SKCaiTForImageClassification,
    SKCvTConfig,
    SKCvTForImageClassification,
    SKFormerConfig,
    SKFormerForImageClassification,
    SKSwinConfig,
    SKSwinForImageClassification,
    SKViTConfig,
    SKViTForImageClassification,
)

SMALL_DATA = {
    "qkv_bias": False,
    "mask_diagonal": True,
    "learned_temperature": True,
    "shifted_patch_tokenization": True,
}
VITS = {
    "skvit": {"token_mixer": "static_key"},
    "cskvit": {"token_mixer": "conv_static_key"},
    "vit": {"token_mixer": "attention"},
    "skvit-small-data": {"token_mixer": "static_key", **SMALL_DATA},
    "cskvit-small-data": {"token_mixer": "conv_static_key", **SMALL_DATA},
    "vit-small-data": {"token_mixer": "attention", **SMALL_DATA},
    "deit": {"token_mixer": "attention", "distillation_token": True, "distillation_head": True},
    "cskvit-deit": {"token_mixer": ["static_key", "conv_static_key"], "distillation_token": True},
    "layer-scale-vit": {"token_mixer": "attention", "layer_scale_init_value": 0.1},
    "dinov2": {
        "token_mixer": ["attention", "static_key"], "num_register_tokens": 2, "pooling": "cls_mean", "gated_mlp": True,
        "layer_scale_init_value": 0.1,
    },
    "clip": {
        "token_mixer": ["attention", "static_key"], "embeddings_layernorm": True, "patch_bias": False,
        "final_norm": "pooled", "hidden_act": "quick_gelu",
    },
    "siglip": {"token_mixer": ["attention", "conv_static_key"], "pooling": "attention"},
    "dinov3": {
        "token_mixer": ["attention", "static_key", "conv_static_key"], "position_embedding_type": "rotary",
        "num_register_tokens": 2, "key_bias": False,
    },
    "skvit-mean": {"token_mixer": "static_key", "pooling": "mean"},
    "skvit-no-query": {"token_mixer": ["static_key", "conv_static_key"], "query_projection": False},
    "bias-vit": {
        "token_mixer": ["static_map", "attention", "static_key", "conv_static_key"],
        "attention_bias": [None, "relative", "full", "relative"],
    },
    "bias-vit-small-data": {
        "token_mixer": ["static_map", "conv_static_key"],
        "attention_bias": ["relative", "full"],
        **SMALL_DATA,
    },
    "sparse-vit": {
        "token_mixer": ["static_map", "attention", "static_key", "conv_static_key"],
        "attention_normalization": "entmax15",
    },
    "talking-vit": {
        "token_mixer": ["static_map", "attention", "static_key", "conv_static_key"],
        "talking_heads": "affine",
    },
    "spatial-vit": {"token_mixer": ["separable_conv", "pooling", "identity", "random"], "pooling": "mean"},
}  # fmt: skip
CAITS = {
    "cait": {"token_mixer": "attention"},
    "skcait": {"token_mixer": "static_key"},
    "cskcait": {"token_mixer": ["conv_static_key", "static_map"], "talking_heads": None},
    "authors-cait": {
        "token_mixer": ["static_key", "attention"], "talking_heads": "linear", "class_talking_heads": "linear",
        "normalize_patches": False, "qkv_bias": False,
    },
}  # fmt: skip
FORMERS = {
    "skaformer": {},
    "cskaformer": {"token_mixers": ["separable_conv", "conv_static_key", "attention", "attention"]},
    "map-norm-former": {
        "token_mixers": ["identity", "pooling", "random", "static_key"],
        "norm": "group",
        "use_mlp_head": False,
    },
    "window-former": {
        "token_mixers": ["pooling", "conv_static_key", "static_key", "random"],
        "static_key_resolution": "window",
    },
    "bias-former": {
        "token_mixers": ["static_map", "static_key", "static_map", "conv_static_key"],
        "attention_bias": ["relative", "relative", "full", "full"],
        "static_key_resolution": "window",
    },
    "sparse-former": {
        "token_mixers": ["separable_conv", "static_map", "conv_static_key", "static_key"],
        "attention_normalization": "sparsemax",
        "static_key_resolution": "window",
    },
    "no-query-former": {"token_mixers": ["separable_conv", "identity", "static_key", "conv_static_key"],
                        "query_projection": False},
}  # fmt: skip
SWINS = {
    "skswin": {"token_mixers": "static_key"},
    "separate-swin": {"token_mixers": ["static_key", "attention"], "window_keys": "separate"},
    "cskswin": {"token_mixers": ["conv_static_key", "conv_key"]},
    "sparse-swin": {"token_mixers": ["conv_static_key", "static_map"], "attention_normalization": "entmax15"},
    "authors-swin": {
        "token_mixers": "attention", "patch_norms": False, "final_norm": "pooled", "shift_lone_window": True,
        "qkv_bias": False,
    },
}  # fmt: skip
CVTS = {
    "skcvt": {"token_mixers": "static_key"},
    "cskcvt": {"token_mixers": ["static_key", "conv_static_key"]},
    "cvt": {"token_mixers": "attention", "logit_scale": "width", "hidden_act": "quick_gelu"},
}
ALL = [*VITS, *CAITS, *FORMERS, *SWINS, "cskcvt"]


def small_config(name: str, **overrides):
    """Return the configuration of one of `ALL`, with fields set anew."""
    if name in (vits := {**VITS, **CAITS}):
        mixers = vits[name]["token_mixer"]
        sizes = {
            "image_size": 16, "patch_size": 4, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32,
            "num_hidden_layers": len(mixers) if isinstance(mixers, list) else 2, "num_labels": 3,
        }  # fmt: skip
        return (SKViTConfig if name in VITS else SKCaiTConfig)(**{**sizes, **vits[name], **overrides})
    if name in SWINS:
        sizes = {
            "image_size": 32, "patch_size": 2, "depths": [2, 2], "hidden_sizes": [16, 32], "head_dim": 8,
            "window_size": 4, "num_labels": 3,
        }  # fmt: skip
        return SKSwinConfig(**{**sizes, **SWINS[name], **overrides})
    if name in CVTS:
        sizes = {
            "image_size": 32, "patch_sizes": [5, 3], "patch_strides": [4, 2], "patch_paddings": [2, 1],
            "depths": [1, 1], "hidden_sizes": [16, 32], "head_dim": 8, "mlp_ratio": 2, "num_labels": 3,
        }  # fmt: skip
        return SKCvTConfig(**{**sizes, **CVTS[name], **overrides})
    sizes = {
        "image_size": 64, "depths": [1, 2, 1, 1], "hidden_sizes": [16, 16, 32, 32], "head_dim": 8, "num_labels": 3,
    }  # fmt: skip
    return SKFormerConfig(**{**sizes, **FORMERS[name], **overrides})


def small_model(name: str, **overrides):
    """A classifier with fresh weights, in evaluation mode."""
    config = small_config(name, **overrides)
    classes = {
        SKViTConfig: SKViTForImageClassification,
        SKCaiTConfig: SKCaiTForImageClassification,
        SKFormerConfig: SKFormerForImageClassification,
        SKSwinConfig: SKSwinForImageClassification,
        SKCvTConfig: SKCvTForImageClassification,
    }
    return classes[type(config)](config).eval()
