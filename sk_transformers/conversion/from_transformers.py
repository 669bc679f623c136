"""Networks of transformers' as sources: what each architecture is called there, and what its configuration says."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    CLIPVisionModel,
    SiglipVisionModel,
)

from ..errors import first_line
from ..hub.licenses import license_on_card
from .checkpoint import Checkpoint
from .errors import CheckpointError, shorten
from .names import (
    TRANSFORMERS_BEIT,
    TRANSFORMERS_CLIP,
    TRANSFORMERS_CVT,
    TRANSFORMERS_DINOV2,
    TRANSFORMERS_DINOV3,
    TRANSFORMERS_MAE,
    TRANSFORMERS_SIGLIP,
    TRANSFORMERS_SWIN,
    TRANSFORMERS_VIT,
    CodeBase,
)

LEFT_OUT_THERE = "which transformers leaves out too"
OF_PRETRAINING = "which masked pretraining alone uses"
TEXT_PART = "the text part and what compares it with images"
FRESH_NORM = "the layer norm of the pooled output is fresh, since masked pretraining has none"
POOLER = "a pooler that SKViT does not have: its pooled output is the class token itself"


def see_all_patches(encoder: Any) -> None:
    """Let an encoder of MAE's see all patches in their order, and not a part of them in any."""
    encoder.embeddings.random_masking = lambda sequence, noise=None: (sequence, None, None)


@dataclass(frozen=True)
class Architecture:
    """One of transformers' that is read.

    Args:
        code_base: its names.
        settings: from its configuration, and whether it is a classifier, to fields of ours.
        left_out: beginnings of names of tensors, without the prefix of the base model, and why they are not converted.
        unused: why what the loader does not use is not converted.
        model_class: what loads a network without a classifier.
        prepare: called with the network, so that it gives the same outputs every time.
        part: the field of its configuration with that of the images' part, if there is another part.
    """

    code_base: CodeBase
    settings: Callable[[Any, bool], dict[str, Any]]
    left_out: dict[str, str] = field(default_factory=dict)
    unused: str = LEFT_OUT_THERE
    model_class: Any = AutoModel
    prepare: Callable[[Any], None] = lambda network: None
    part: str | None = None


def vit_settings(config: Any, is_classifier: bool) -> dict[str, Any]:
    """Return the fields that every ViT of transformers tells in the same words."""
    if getattr(config, "pruned_heads", None):
        raise CheckpointError(
            "The source has pruned attention heads, and SKViT has as many heads in every layer: convert it unpruned."
        )
    return {
        "image_size": config.image_size,
        "head_dim": getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        "hidden_act": config.hidden_act,
        "layer_norm_eps": config.layer_norm_eps,
        "position_interpolation": "bicubic",
    }


def beit_settings(config: Any, is_classifier: bool) -> dict[str, Any]:
    return {
        **vit_settings(config, is_classifier),
        "strict_image_size": False,
        "position_embedding_type": "learned" if config.use_absolute_position_embeddings else None,
        "pooling": "mean" if config.use_mean_pooling else "cls",
        "final_norm": "pooled" if config.use_mean_pooling else "tokens",
    }


def dinov2_settings(config: Any, is_classifier: bool) -> dict[str, Any]:
    has_registers = config.model_type == "dinov2_with_registers"
    return {
        **vit_settings(config, is_classifier),
        "strict_image_size": False,
        "position_interpolation": "bicubic_antialias" if has_registers else "bicubic",
        "hidden_act": "silu" if config.use_swiglu_ffn else config.hidden_act,
        "pooling": "cls_mean" if is_classifier else "cls",
        "apply_layernorm": config.apply_layernorm,
    }


def dinov3_settings(config: Any, is_classifier: bool) -> dict[str, Any]:
    expected = {"proj_bias": True, "mlp_bias": True, "value_bias": config.query_bias}
    for name, value in expected.items():
        if getattr(config, name) != value:
            raise CheckpointError(f"The source has {name}={not value}, and SKViT can only do {name}={value} there.")
    return {
        **vit_settings(config, is_classifier),
        "strict_image_size": False,
        "position_embedding_type": "rotary",
        "rope_theta": config.rope_theta,
        "pooling": "cls",
        "apply_layernorm": config.apply_layernorm,
    }


def clip_settings(config: Any, is_classifier: bool) -> dict[str, Any]:
    return {**vit_settings(config, is_classifier), "pooling": "cls", "final_norm": "pooled"}


def siglip_settings(config: Any, is_classifier: bool) -> dict[str, Any]:
    whole_patches = config.image_size % config.patch_size == 0
    pooling = "attention" if config.vision_use_head else "mean"
    return {**vit_settings(config, is_classifier), "strict_image_size": whole_patches, "pooling": pooling}


def ijepa_settings(config: Any, is_classifier: bool) -> dict[str, Any]:
    return {**vit_settings(config, is_classifier), "pooling": "mean"}


def mae_settings(config: Any, is_classifier: bool) -> dict[str, Any]:
    return {**vit_settings(config, is_classifier), "pooling": "cls"}


def swin_settings(config: Any, is_classifier: bool) -> dict[str, Any]:
    expected = {"hidden_act": "gelu", "use_absolute_embeddings": False}
    for name, value in expected.items():
        if getattr(config, name) != value:
            raise CheckpointError(
                f"The source has {name}={getattr(config, name)!r}, and SKSwin can only do {name}={value!r} there."
            )
    return {
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "head_dim": config.embed_dim // config.num_heads[0],
        "layer_norm_eps": config.layer_norm_eps,
    }


def cvt_settings(config: Any, is_classifier: bool) -> dict[str, Any]:
    stages, kernel_size = len(config.depth), config.kernel_qkv[0]
    expected = {
        "cls_token": [False] * (stages - 1) + [True],
        "qkv_projection_method": ["dw_bn"] * stages,
        "kernel_qkv": [kernel_size] * stages,
        "padding_q": [kernel_size // 2] * stages,
        "padding_kv": [kernel_size // 2] * stages,
        "stride_q": [1] * stages,
        "qkv_bias": [config.qkv_bias[0]] * stages,
        "mlp_ratio": [config.mlp_ratio[0]] * stages,
    }
    for name, value in expected.items():
        if list(getattr(config, name)) != value:
            raise CheckpointError(
                f"The source has {name}={list(getattr(config, name))}, and SKCvT can only do {name}={value} there."
            )
    return {
        "patch_strides": list(config.patch_stride),
        "patch_paddings": list(config.patch_padding),
        "key_strides": list(config.stride_kv),
        "head_dim": [width // heads for width, heads in zip(config.embed_dim, config.num_heads)],
        "logit_scale": "width",
        "final_norm": "pooled" if is_classifier else None,
        "layer_norm_eps": 1e-5,  # its own layer_norm_eps is read by nothing
    }


CLIP = Architecture(
    TRANSFORMERS_CLIP, clip_settings, unused=TEXT_PART, model_class=CLIPVisionModel, part="vision_config"
)
SIGLIP = Architecture(
    TRANSFORMERS_SIGLIP, siglip_settings, unused=TEXT_PART, model_class=SiglipVisionModel, part="vision_config"
)
MASK_TOKEN = {"embeddings.mask_token": OF_PRETRAINING}
ARCHITECTURES = {  # by model type
    "vit": Architecture(TRANSFORMERS_VIT, vit_settings, {"pooler.": POOLER, **MASK_TOKEN}),
    "deit": Architecture(TRANSFORMERS_VIT, vit_settings, {"pooler.": POOLER, **MASK_TOKEN}),
    "beit": Architecture(TRANSFORMERS_BEIT, beit_settings, MASK_TOKEN),
    "vit_mae": Architecture(TRANSFORMERS_MAE, mae_settings, unused=OF_PRETRAINING, prepare=see_all_patches),
    "dinov2": Architecture(TRANSFORMERS_DINOV2, dinov2_settings, MASK_TOKEN),
    "dinov2_with_registers": Architecture(TRANSFORMERS_DINOV2, dinov2_settings, MASK_TOKEN),
    "dinov3_vit": Architecture(TRANSFORMERS_DINOV3, dinov3_settings, MASK_TOKEN),
    "clip": CLIP,
    "clip_vision_model": CLIP,
    "siglip": SIGLIP,
    "siglip_vision_model": SIGLIP,
    "swin": Architecture(TRANSFORMERS_SWIN, swin_settings, MASK_TOKEN),
    "cvt": Architecture(TRANSFORMERS_CVT, cvt_settings),
    "ijepa": Architecture(TRANSFORMERS_VIT, ijepa_settings, {"pooler.": POOLER, **MASK_TOKEN}),
}


def read_transformers(name: str) -> Checkpoint:
    """Return a network of transformers', of any release: its own loader knows the names of older ones.

    Raises:
        CheckpointError: if there is none, or none that is read, or it cannot be loaded.
    """
    try:
        config: Any = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{name} is not a checkpoint file, and transformers finds no model there ({first_line(error)})."
        ) from error
    architecture = ARCHITECTURES.get(config.model_type)
    if architecture is None:
        raise CheckpointError(
            f"{name} is a {config.model_type!r} of transformers', expected one of {', '.join(ARCHITECTURES)}."
        )
    is_classifier = any("ForImageClassification" in name for name in config.architectures or ())
    if is_classifier and architecture.part:
        raise CheckpointError(
            f"{name} is a {config.architectures[0]}: of {config.model_type}, the tower alone is read."
        )
    model, unexpected, fresh = load(
        name, AutoModelForImageClassification if is_classifier else architecture.model_class
    )
    architecture.prepare(model)
    state_dict, left_out = leave_out(model, architecture.left_out)
    if unexpected:
        left_out[architecture.unused] = sorted(unexpected)
    if getattr(model, "pooler", None) is not None and POOLER in left_out:
        model.pooler = None  # what it makes of the class token is not compared
    id2label: Any = config.id2label
    has_names = is_classifier and id2label is not None and id2label.get(0) != "LABEL_0"
    return Checkpoint(
        name,
        architecture.code_base,
        state_dict,
        architecture.settings(model.config if architecture.part else config, is_classifier),
        network=model,
        runs_in="transformers",
        image_processor=load_image_processor(name),
        id2label=id2label if has_names else None,
        left_out=left_out,
        assumed=[FRESH_NORM] if fresh & set(state_dict) else [],
        license=license_on_card(name),
        hub_id=None if Path(name).exists() else name,
    )


def load(name: str, auto_class: Any) -> tuple[Any, set[str], set[str]]:
    """Return the network of a folder or Hub id, the names of tensors that it does not use, and of those it lacks.

    Those can only be a pooler's, which is left out or starts as a layer norm that changes nothing.
    """
    try:
        model, loading = auto_class.from_pretrained(name, dtype="auto", output_loading_info=True)
    except (OSError, RuntimeError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"transformers could not load {name} ({first_line(error)}).") from error
    fresh = set(loading["missing_keys"])
    missing = {key for key in fresh if "pooler." not in key}
    if missing:
        raise CheckpointError(
            f"{name} lacks tensors of a {type(model).__name__}: {shorten(missing)}. Restore them, or correct"
            " architectures in its config.json."
        )
    return model, set(loading["unexpected_keys"]), fresh


def leave_out(model: Any, reasons: dict[str, str]) -> tuple[dict[str, torch.Tensor], dict[str, list[str]]]:
    """Return the tensors that are converted, and the names of the others by the reason."""
    kept, left_out = {}, {}
    tensors = {name: tensor for name, tensor in model.state_dict().items() if tensor.numel()}  # such as no registers
    for name, tensor in tensors.items():
        inside = name.removeprefix(f"{model.base_model_prefix}.")
        reason = next((why for beginning, why in reasons.items() if inside.startswith(beginning)), None)
        if reason is None:
            kept[name] = tensor
        else:
            left_out.setdefault(reason, []).append(name)
    return kept, left_out


def load_image_processor(name: str) -> Any:
    """Return the image processor of a folder or Hub id; None if it has none."""
    try:
        return AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError):
        return None
