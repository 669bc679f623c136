"""Whether a conversion is exact: every tensor used, none missing, and the source network's outputs."""

from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForImageClassification, PretrainedConfig, PreTrainedModel

from ..models.configuration_checks import size_pair
from ..models.configuration_skcait import SKCaiTConfig
from ..models.configuration_skcvt import SKCvTConfig
from ..models.configuration_skformer import SKFormerConfig
from ..models.configuration_skswin import SKSwinConfig
from ..models.configuration_skvit import SKViTConfig
from ..registration import AUTO_CLASSES
from .checkpoint import Checkpoint
from .errors import CheckpointError, shorten
from .from_timm import POOLINGS, import_timm
from .names import TIMM_CAIT, TIMM_METAFORMER, TIMM_MIXERS, TIMM_SWIN, TIMM_VIT

CHECK_SIZE = (64, 96)  # pixels; a MetaFormer or CvT without static keys takes any, and float64 convolutions are slow
TOLERANCE = 1e-9  # of outputs in float64, relative to the largest


def build_model(config: PretrainedConfig, tensors: dict[str, torch.Tensor]) -> PreTrainedModel:
    """Return the network with these tensors, in float64: an image classifier, or none where they have no classifier.

    Raises:
        CheckpointError: if tensors are unknown, missing or of another shape; it lists their names.
    """
    is_classifier = has_classifier(tensors)
    network_class = AUTO_CLASSES[type(config)][AutoModelForImageClassification if is_classifier else AutoModel]
    if not is_classifier:
        prefix = f"{network_class.base_model_prefix}."
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    with torch.device("meta"):
        model = network_class(config)
    expected = {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    problems = {
        "unknown": sorted(found.keys() - expected.keys()),
        "missing": sorted(expected.keys() - found.keys()),
        "of another shape": [
            f"{name} {found[name]} for {expected[name]}"
            for name in sorted(found.keys() & expected.keys())
            if found[name] != expected[name]
        ],
    }
    if any(problems.values()):
        lists = [f"{what}: {shorten(names)}" for what, names in problems.items() if names]
        raise CheckpointError(f"The tensors do not fit the network that they seem to be of; {'; '.join(lists)}.")
    model = model.double().to_empty(device="cpu")
    model.load_state_dict(tensors)
    return model.eval()


def has_classifier(tensors: dict[str, torch.Tensor]) -> bool:
    """Return whether any of the tensors, under our names, is a classifier's."""
    return any(name.startswith("classifier.") for name in tensors)


@torch.no_grad()
def largest_difference(model: PreTrainedModel, network: nn.Module) -> float:
    """Return the largest difference of any output for a random image between two networks in float64.

    The outputs are the logits, or without a classifier the last hidden states and what is pooled of them.

    Raises:
        CheckpointError: if it is more than rounding, so that the source network does something that its tensors do
            not show.
    """
    config: Any = model.config
    takes_any = isinstance(config, SKFormerConfig | SKCvTConfig)
    height, width = CHECK_SIZE if takes_any else size_pair("image_size", config.image_size)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, config.num_channels, height, width, generator=generator, dtype=torch.float64)
    found, expected = outputs_of(model, images), outputs_of(network, images)
    differences = [(found[name] - expected[name]).abs().max().item() for name in expected]
    largest = max(output.abs().max().item() for output in expected.values())
    if not max(differences) <= TOLERANCE * max(1.0, largest):
        raise CheckpointError(
            f"All tensors fit, but the outputs differ from the source network's by {max(differences):.2g}: it does"
            " something that its tensors do not show, and the networks of this package cannot."
        )
    return max(differences)


def outputs_of(network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what is compared of a network of ours, transformers' or timm's, by our names for it: maps as tokens."""
    if isinstance(network, PreTrainedModel):
        outputs = network(images)
        if outputs.get("cls_token_value") is not None:  # CvT's
            outputs["pooler_output"] = outputs["cls_token_value"][:, 0]
        names = ("logits",) if "logits" in outputs else ("last_hidden_state", "pooler_output")
        found = {name: outputs[name] for name in names if outputs.get(name) is not None}
        return {name: found[name].flatten(2).mT if found[name].dim() == 4 else found[name] for name in found}
    features: Any = network
    if features.num_classes:
        return {"logits": features(images)}
    hidden_states = features.forward_features(images)
    return {
        "last_hidden_state": hidden_states.flatten(1, 2) if hidden_states.dim() == 4 else hidden_states,
        "pooler_output": features.forward_head(hidden_states, pre_logits=True),
    }


def runnable(source: Checkpoint, config: PretrainedConfig) -> tuple[nn.Module | None, str]:
    """Return the source network in float64 and the library that runs it; `(None, why not)` if none can."""
    if source.network is not None:
        return source.network.double().eval(), source.runs_in
    try:
        import_timm()
    except CheckpointError:
        return None, "timm is not installed"
    if isinstance(config, SKFormerConfig) and is_in_timm(config):
        network = timm_metaformer(config)
    elif isinstance(config, SKViTConfig) and source.code_base is TIMM_VIT:
        network = timm_vit(config, source.state_dict)
    elif isinstance(config, SKCaiTConfig) and source.code_base is TIMM_CAIT:
        network = timm_cait(config)
    elif isinstance(config, SKSwinConfig) and source.code_base is TIMM_SWIN:
        network = timm_swin(config)
    else:
        return None, "neither timm nor transformers has this network"
    state_dict = source.state_dict
    if source.code_base not in (TIMM_VIT, TIMM_METAFORMER, TIMM_SWIN, TIMM_CAIT):
        from timm.models.metaformer import checkpoint_filter_fn

        state_dict = checkpoint_filter_fn(state_dict, network)
    network.double().load_state_dict(state_dict)
    return network.eval(), "timm"


def is_in_timm(config: SKFormerConfig) -> bool:
    """Return whether timm has every mixer and the MLPs of a network."""
    return set(config.token_mixers) <= set(TIMM_MIXERS.values()) and config.mlp_ratio == 4


def timm_metaformer(config: SKFormerConfig) -> nn.Module:
    """Return timm's network of the same shape, for mixers that it has."""
    from timm.models import metaformer

    mixer_classes = {mixer: getattr(metaformer, name, nn.Identity) for name, mixer in TIMM_MIXERS.items()}
    is_attention = [mixer == "attention" for mixer in config.token_mixers]
    if config.norm == "group":
        norms = [metaformer.GroupNorm1NoBias] * len(is_attention)
    else:
        norms = [metaformer.LayerNormNoBias if a else metaformer.LayerNorm2dNoBias for a in is_attention]
    network: Any = metaformer.MetaFormer(**{
        "in_chans": config.num_channels,
        "num_classes": config.num_labels,
        "depths": config.depths,
        "dims": config.hidden_sizes,
        "token_mixers": [mixer_classes[mixer] for mixer in config.token_mixers],
        "norm_layers": norms,
        "use_mlp_head": config.use_mlp_head,
        **({"head_dim": config.head_dims[is_attention.index(True)]} if any(is_attention) else {}),
    })  # fmt: skip
    if config.use_mlp_head:
        network.head.fc.norm.eps = config.head_layer_norm_eps
    return network


def timm_swin(config: SKSwinConfig) -> nn.Module:
    """Return timm's Swin of the same shape."""
    from timm.models.swin_transformer import SwinTransformer

    return SwinTransformer(
        img_size=size_pair("image_size", config.image_size),
        patch_size=config.patch_size,
        in_chans=config.num_channels,
        num_classes=len(config.id2label or ()),
        embed_dim=config.hidden_sizes[0],
        depths=tuple(config.depths),
        num_heads=tuple(width // config.head_dim for width in config.hidden_sizes),
        window_size=config.window_size,
        mlp_ratio=config.mlp_ratio,
        qkv_bias=config.qkv_bias,
    )


def timm_cait(config: SKCaiTConfig) -> nn.Module:
    """Return timm's CaiT of the same shape."""
    from timm.models.cait import Cait

    (side, _) = size_pair("image_size", config.image_size)
    return Cait(
        img_size=side,
        patch_size=size_pair("patch_size", config.patch_size)[0],
        in_chans=config.num_channels,
        num_classes=len(config.id2label or ()),
        embed_dim=config.hidden_size,
        depth=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        mlp_ratio=config.intermediate_size / config.hidden_size,
        qkv_bias=config.qkv_bias,
        depth_token_only=config.num_class_layers,
        mlp_ratio_token_only=config.intermediate_size / config.hidden_size,
    )


def timm_vit(config: PretrainedConfig, state_dict: dict[str, torch.Tensor]) -> nn.Module:
    """timm's Vision Transformer of the same shape."""
    from timm.layers.mlp import Mlp, SwiGLUPacked
    from timm.models.deit import VisionTransformerDistilled
    from timm.models.vision_transformer import VisionTransformer

    grid_height, grid_width = config.grid_size
    network_class = VisionTransformerDistilled if config.distillation_token else VisionTransformer
    inner_size = config.intermediate_size * (2 if config.gated_mlp else 1)
    return network_class(**{
        "img_size": size_pair("image_size", config.image_size),
        "patch_size": size_pair("patch_size", config.patch_size),
        "in_chans": config.num_channels,
        "num_classes": len(config.id2label or ()) if "head.weight" in state_dict else 0,
        "global_pool": next(theirs for theirs, ours in POOLINGS.items() if ours == config.pooling),
        "embed_dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "mlp_ratio": inner_size / config.hidden_size,
        "mlp_layer": SwiGLUPacked if config.gated_mlp else Mlp,
        "act_layer": config.hidden_act.replace("gelu_pytorch_tanh", "gelu_tanh"),
        "qkv_bias": config.qkv_bias,
        "init_values": config.layer_scale_init_value,
        "class_token": config.class_token,
        "reg_tokens": config.num_register_tokens,
        "pre_norm": config.embeddings_layernorm,
        "no_embed_class": state_dict["pos_embed"].shape[1] == grid_height * grid_width,
        "final_norm": config.final_norm is not None,
        "fc_norm": config.final_norm == "pooled",
    })  # fmt: skip
