"""The named networks, as data, with the figures that their authors published.

A variant is its family and what its configuration sets. To add one, add a row.
"""

from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Published:
    """Figures of a network as its authors printed them. None: not printed."""

    parameters: float | None = None  # millions
    macs: float | None = None  # billions of multiply-adds, at the variant's image size
    macs_384: float | None = None  # the same at 384 pixels
    top1: float | None = None  # per cent
    dataset: str = "ImageNet-1k"
    source: str = "Hu et al., arXiv 2412.07049"
    note: str = ""  # why the multiply-adds are not those that are counted


@dataclass(frozen=True)
class Variant:
    """A named network: `family` is the configuration's model type, `settings` what it sets."""

    family: str
    settings: dict[str, Any]
    published: Published = field(default_factory=Published)


VIT_MIXERS = {"skvit": "static_key", "cskvit": "conv_static_key", "smvit": "static_map", "vit": "attention"}
VIT_SIZES = {  # hidden size, layers, heads
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}
CIFAR_HEADS = {"skvit": 10, "cskvit": 8, "smvit": 8, "vit": 8}
WITH_SMALL_OPERATIONS = "the published MACs are 2 to 4% more than matrix products and convolutions come to."
WITHOUT_KEY_PRODUCT = (
    "the published MACs are nearly those without the products of queries and static keys (3.98 and 22.9 G); these"
    " count them. Where the paper has its static keys is inferred from its parameter counts."
)
WITHOUT_CONVOLUTION = "the published MACs leave out the grouped convolution that makes the logits; these count it."
MICRO_HEAD_DIMS = {"skvit": 32, "cskvit": 16, "smvit": 32, "vit": 32}  # CSKA's keys are nine times as wide
CIFAR_PUBLISHED = {
    "skvit": Published(9.5, 0.64, top1=84.7, dataset="CIFAR-10", note=WITH_SMALL_OPERATIONS),
    "cskvit": Published(10.0, 0.67, top1=87.0, dataset="CIFAR-10", note=WITH_SMALL_OPERATIONS),
    "vit": Published(top1=83.4, dataset="CIFAR-10"),
}
SMALL_DATA_SETTINGS = {  # "Vision Transformer for Small-Size Datasets", Lee et al., arXiv 2112.13492
    "qkv_bias": False,
    "mask_diagonal": True,
    "learned_temperature": True,
    "shifted_patch_tokenization": True,
    "layer_norm_eps": 1e-5,
}
FORMER_MIXERS = {  # mixer of each stage, head size of each stage
    "skaformer": (["separable_conv", "static_key", "static_key", "attention"], 32),
    "cskaformer": (["separable_conv", "conv_static_key", "attention", "attention"], [32, 16, 32, 32]),
    "caformer": (["separable_conv", "separable_conv", "attention", "attention"], 32),
    "convformer": (["separable_conv"] * 4, 32),
}
FORMER_SIZES = {  # depths, hidden sizes
    "s18": ([3, 3, 9, 3], [64, 128, 320, 512]),
    "s36": ([3, 12, 18, 3], [64, 128, 320, 512]),
    "m36": ([3, 12, 18, 3], [96, 192, 384, 576]),
    "b36": ([3, 12, 18, 3], [128, 256, 512, 768]),
}
METAFORMER_PAPER = "Yu et al., arXiv 2210.13452"
FORMER_PUBLISHED = {
    "skaformer-s18": Published(26, 4.0, top1=82.3, note=WITHOUT_KEY_PRODUCT),
    "skaformer-b36": Published(97, 22.8, top1=83.9, note=WITHOUT_KEY_PRODUCT),
    "cskaformer-s18": Published(28, 4.1, top1=83.4, note=WITHOUT_CONVOLUTION),
    "cskaformer-b36": Published(119, 24.2, top1=85.7, note=WITHOUT_CONVOLUTION),
    "caformer-s18": Published(26, 4.1, 13.4, top1=83.6, source=METAFORMER_PAPER),
    "caformer-s36": Published(39, 8.0, 26.0, top1=84.5, source=METAFORMER_PAPER),
    "caformer-m36": Published(56, 13.2, 42.0, top1=85.2, source=METAFORMER_PAPER),
    "caformer-b36": Published(99, 23.2, 72.2, top1=85.5, source=METAFORMER_PAPER),
    "convformer-s18": Published(27, 3.9, 11.6, top1=83.0, source=METAFORMER_PAPER),
    "convformer-s36": Published(40, 7.6, 22.4, top1=84.1, source=METAFORMER_PAPER),
    "convformer-m36": Published(57, 12.8, 37.7, top1=84.5, source=METAFORMER_PAPER),
    "convformer-b36": Published(100, 22.6, 66.5, top1=84.8, source=METAFORMER_PAPER),
}
SWIN_MIXERS = {"swin": "attention", "skswin": "static_key", "cskswin": "conv_static_key"}
SWIN_AT_32 = {  # the released code's: no norms of patches, one after the mean, and a shift of the last map's one window
    "image_size": 32, "patch_size": 2, "window_size": 4, "downsampling": [2, 2, 1], "patch_norms": False,
    "final_norm": "pooled", "shift_lone_window": True, "qkv_bias": False,
}  # fmt: skip

CAIT_MIXERS = {"cait": "attention", "skcait": "static_key", "cskcait": "conv_static_key"}
CVT_MIXERS = {"cvt": "attention", "skcvt": "static_key", "cskcvt": "conv_static_key"}
CVT_PUBLISHED = {"cvt-13": Published(20, 4.5, 16.3, top1=81.6, source="Wu et al., arXiv 2103.15808")}


def _vit_variants() -> dict[str, Variant]:
    variants = {}
    for family, mixer in VIT_MIXERS.items():
        for size, (width, layers, heads) in VIT_SIZES.items():
            variants[f"{family}-{size}-patch16-224"] = Variant("skvit", {
                "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
                "intermediate_size": 4 * width, "token_mixer": mixer, "num_labels": 1000,
            })  # fmt: skip
        variants[f"{family}-small-patch4-32"] = Variant("skvit", {
            "image_size": 32, "patch_size": 4, "hidden_size": 512, "num_hidden_layers": 6,
            "num_attention_heads": CIFAR_HEADS[family], "head_dim": 64, "intermediate_size": 512,
            "token_mixer": mixer, "num_labels": 10, **SMALL_DATA_SETTINGS,
        }, CIFAR_PUBLISHED.get(family, Published()))  # fmt: skip
        variants[f"{family}-nano-patch4-32"] = Variant("skvit", {
            "image_size": 32, "patch_size": 4, "hidden_size": 64, "num_hidden_layers": 4,
            "num_attention_heads": 4, "intermediate_size": 128, "token_mixer": mixer, "num_labels": 10,
        })  # fmt: skip
        variants[f"{family}-micro-patch4-32"] = Variant("skvit", {
            "image_size": 32, "patch_size": 4, "hidden_size": 128, "num_hidden_layers": 7,
            "num_attention_heads": 4, "head_dim": MICRO_HEAD_DIMS[family], "intermediate_size": 512,
            "token_mixer": mixer, "pooling": "mean", "initializer_range": 0.05, "num_labels": 10, **SMALL_DATA_SETTINGS,
        })  # fmt: skip
    return variants


def _former_variants() -> dict[str, Variant]:
    variants = {}
    for family, (mixers, head_dim) in FORMER_MIXERS.items():
        for size, (depths, widths) in FORMER_SIZES.items():
            name = f"{family}-{size}"
            variants[name] = Variant("skformer", {
                "depths": depths, "hidden_sizes": widths, "token_mixers": mixers, "head_dim": head_dim,
                "num_labels": 1000,
            }, FORMER_PUBLISHED.get(name, Published()))  # fmt: skip
        variants[f"{family}-nano"] = Variant("skformer", {
            "image_size": 64, "depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 64, 64], "token_mixers": mixers,
            "head_dim": 16, "num_labels": 10,
        })  # fmt: skip
        variants[f"{family}-micro-32"] = Variant("skformer", {
            "image_size": 32, "stem_kernel_size": 3, "stem_stride": 2, "depths": [2, 2, 3, 1],
            "hidden_sizes": [40, 80, 128, 160], "token_mixers": mixers, "head_dim": [8, 16, 32, 32],
            "use_mlp_head": False, "initializer_range": 0.05, "num_labels": 10,
        })  # fmt: skip
    return variants


def _swin_variants() -> dict[str, Variant]:
    variants = {}
    for family, mixer in SWIN_MIXERS.items():
        mixers = {"token_mixers": [mixer] * 4}
        variants[f"{family}-tiny"] = Variant("skswin", {**mixers, "num_labels": 1000})  # the configuration's defaults
        variants[f"{family}-tiny-32"] = Variant("skswin", {**SWIN_AT_32, **mixers, "num_labels": 10})
        variants[f"{family}-nano"] = Variant("skswin", {
            "image_size": 32, "patch_size": 2, "depths": [2, 2, 2], "hidden_sizes": [32, 64, 96], "head_dim": 16,
            "window_size": 4, "mlp_ratio": 2, "token_mixers": [mixer] * 3, "initializer_range": 0.05, "num_labels": 10,
        })  # fmt: skip
    return variants


def _cait_variants() -> dict[str, Variant]:
    variants = {}
    for family, mixer in CAIT_MIXERS.items():
        mixers = {"token_mixer": mixer}
        variants[f"{family}-xxs24-patch16-224"] = Variant("skcait", {**mixers, "num_labels": 1000})  # the defaults
        variants[f"{family}-nano-patch4-32"] = Variant("skcait", {
            **mixers, "image_size": 32, "patch_size": 4, "hidden_size": 64, "num_hidden_layers": 4,
            "intermediate_size": 128, "layer_scale_init_value": 0.1, "initializer_range": 0.05, "num_labels": 10,
        })  # fmt: skip
    return variants


def _cvt_variants() -> dict[str, Variant]:
    variants = {}
    for family, mixer in CVT_MIXERS.items():
        mixers = {"token_mixers": [mixer] * 3, **({"logit_scale": "width"} if mixer == "attention" else {})}
        name = f"{family}-13"  # the configuration's defaults
        variants[name] = Variant("skcvt", {**mixers, "num_labels": 1000}, CVT_PUBLISHED.get(name, Published()))
        variants[f"{family}-nano"] = Variant("skcvt", {
            **mixers, "image_size": 32, "patch_sizes": [3, 3, 3], "patch_strides": [2, 2, 2],
            "patch_paddings": [1, 1, 1], "depths": [1, 1, 2], "hidden_sizes": [32, 64, 96], "head_dim": 16,
            "mlp_ratio": 2, "num_labels": 10,
        })  # fmt: skip
    return variants


VARIANTS: dict[str, Variant] = {
    **_vit_variants(),
    **_former_variants(),
    **_swin_variants(),
    **_cait_variants(),
    **_cvt_variants(),
}
# The networks of which there are trained weights.
TRAINED = (
    "skaformer-micro-32",
    "cskaformer-micro-32",
    "caformer-micro-32",
    "vit-micro-patch4-32",
    "skvit-micro-patch4-32",
)
TRAINED_FOLDER = Path(__file__).parents[1] / "model_cards"  # of a checkout: a folder for each of them
ORGANIZATION = "sk-transformers"  # on the Hub: a repo for each of them


def list_models(filter: str | None = None, pretrained: bool = False) -> list[str]:
    """Return the names of the zoo's networks, sorted.

    Args:
        filter: a part of a name, or a pattern as `"cska*-s*"`.
        pretrained: only those of which there are trained weights.
    """
    names = sorted(TRAINED if pretrained else VARIANTS)
    if filter is None:
        return names
    pattern = filter if any(wildcard in filter for wildcard in "*?[") else f"*{filter}*"
    return [name for name in names if fnmatch(name, pattern)]


def get_variant(name: str) -> Variant:
    """Return the row of the zoo called `name`; ValueError, with the nearest names, when there is none."""
    if name in VARIANTS:
        return VARIANTS[name]
    longer = [known for known in sorted(VARIANTS) if known.startswith(name)]
    near = longer[:3] or get_close_matches(name, VARIANTS, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(repr(n) for n in near)}?" if near else "list_models() names them all."
    raise ValueError(f"Unknown model {name!r}. {hint}")


def create_config(name: str, **overrides: Any) -> "PretrainedConfig":
    """Return the configuration of the network called `name`, with any of its fields set anew.

    Args:
        name: one of `list_models()`.
        overrides: fields of its configuration, such as `SKViTConfig`, or those of every configuration of transformers.

    Raises:
        ValueError: if there is no such network, or no such field, or a value does not fit.
    """
    variant = get_variant(name)
    from .models.configuration_skcait import SKCaiTConfig
    from .models.configuration_skcvt import SKCvTConfig
    from .models.configuration_skformer import SKFormerConfig
    from .models.configuration_skswin import SKSwinConfig
    from .models.configuration_skvit import SKViTConfig

    config_classes = (SKViTConfig, SKCaiTConfig, SKFormerConfig, SKSwinConfig, SKCvTConfig)
    config_class = next(config for config in config_classes if config.model_type == variant.family)
    settings = dict(variant.settings)
    if "id2label" in overrides:
        settings.pop("num_labels")  # the labels count themselves
    _check_fields(config_class, overrides)
    return config_class(**{**settings, **overrides})


def _check_fields(config_class: type, overrides: dict[str, Any]) -> None:
    known = config_class()
    for field_name in overrides:
        if not hasattr(known, field_name):
            near = get_close_matches(field_name, vars(known), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{config_class.__name__} has no field {field_name!r}.{hint}")


def create_model(name: str, pretrained: bool = False, **overrides: Any) -> "PreTrainedModel":
    """Return an image classifier with the configuration of `create_config(name, **overrides)`.

    Args:
        name: one of `list_models()`.
        pretrained: load its trained weights, from the checkout that the package lies in, or else from the Hub. With
            another `num_labels` or `id2label` the classifier's last layers start afresh.
        overrides: see `create_config`.

    Raises:
        ValueError: see `create_config`; or if there are no trained weights, or they do not fit the overrides.
        OSError: if they cannot be loaded.
    """
    from transformers import AutoModelForImageClassification

    if not pretrained:
        return AutoModelForImageClassification.from_config(create_config(name, **overrides))
    source = trained_source(name)
    create_config(name, **overrides)  # names a field that there is not
    model, report = AutoModelForImageClassification.from_pretrained(
        source, ignore_mismatched_sizes=True, output_loading_info=True, **overrides
    )
    fresh = [*report["missing_keys"], *(key if isinstance(key, str) else key[0] for key in report["mismatched_keys"])]
    lost = [key for key in fresh if key.startswith(f"{model.base_model_prefix}.")]
    if lost:
        raise ValueError(
            f"The trained weights of {name} do not fit {', '.join(overrides)} ({len(lost)} tensors, as {min(lost)}):"
            " leave such fields out, or start afresh with pretrained=False."
        )
    return model


def trained_source(name: str) -> str:
    """Return where the trained weights of a network are: a folder of the checkout, or a Hub id.

    Raises:
        ValueError: if there is no such network, or no trained weights of it.
    """
    get_variant(name)
    if name not in TRAINED:
        raise ValueError(
            f"There are no trained weights of {name!r}, only of {', '.join(TRAINED)}: choose one of them, or start"
            " afresh."
        )
    folder = TRAINED_FOLDER / name
    return str(folder) if (folder / "model.safetensors").is_file() else f"{ORGANIZATION}/{name}"
