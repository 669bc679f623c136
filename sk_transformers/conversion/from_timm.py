"""Networks of timm's as sources, by name."""

from difflib import get_close_matches
from types import ModuleType
from typing import Any

from ..errors import first_line
from .checkpoint import Checkpoint
from .errors import CheckpointError
from .names import TIMM_CAIT, TIMM_METAFORMER, TIMM_MIXERS, TIMM_SWIN, TIMM_VIT

ACTIVATIONS = {  # by the names of classes of torch's and timm's
    "GELU": "gelu", "GELUTanh": "gelu_pytorch_tanh", "QuickGELU": "quick_gelu", "SiLU": "silu",
}  # fmt: skip
POOLINGS = {"token": "cls", "avg": "mean", "map": "attention"}
SHARED_SPACE = "the projection to the space that images share with text"


def read_timm(name: str, random: bool) -> Checkpoint:
    """Return a network of timm's by its name, `timm:NAME`."""
    timm = import_timm()
    model_name = name.removeprefix("timm:")
    architecture = model_name.partition(".")[0]
    if not timm.is_model(architecture):
        near = get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() names them all."
        raise CheckpointError(f"timm has no model {architecture!r}: {hint}")
    try:
        model: Any = timm.create_model(model_name, pretrained=not random).eval()
    except Exception as error:  # of timm, of the Hub's client, of the network between
        raise CheckpointError(
            f"timm could not make {model_name} ({first_line(error)}): check the name and the"
            " connection, or pass --random for fresh weights."
        ) from error
    known = {
        "MetaFormer": TIMM_METAFORMER,
        "VisionTransformer": TIMM_VIT,
        "VisionTransformerDistilled": TIMM_VIT,
        "SwinTransformer": TIMM_SWIN,
        "Cait": TIMM_CAIT,
    }
    code_base = known.get(type(model).__name__)
    if code_base is None:
        raise CheckpointError(
            f"{name} is a {type(model).__name__} of timm's, which has no counterpart here: expected a MetaFormer, a"
            " VisionTransformer, a SwinTransformer or a Cait."
        )
    from timm.data import resolve_model_data_config

    data_config = resolve_model_data_config(model)
    published = getattr(model, "pretrained_cfg", None) or {}
    state_dict, left_out = model.state_dict(), {}
    if code_base is TIMM_VIT:
        settings = vit_settings(model, name)
        if "norm_pre.weight" in state_dict and model.num_classes and not is_imagenet(model.num_classes):
            left_out[SHARED_SPACE] = [key for key in state_dict if key.startswith("head.")]
            state_dict = {key: tensor for key, tensor in state_dict.items() if not key.startswith("head.")}
            model.num_classes = 0
    elif code_base is TIMM_CAIT:
        settings = {"image_size": model.patch_embed.img_size}
    elif code_base is TIMM_SWIN:
        settings = {"image_size": model.patch_embed.img_size, "patch_size": model.patch_embed.patch_size[0]}
    else:
        mixers = [type(stage.blocks[0].token_mixer).__name__ for stage in model.stages]
        norm = type(model.stages[0].blocks[0].norm1).__name__
        settings = {
            "image_size": data_config["input_size"][1:],
            "token_mixers": [TIMM_MIXERS[mixer] for mixer in mixers],
            "norm": "group" if norm.startswith("GroupNorm") else "layer",
        }
        if "Attention" in mixers:
            settings["head_dim"] = model.stages[mixers.index("Attention")].blocks[0].token_mixer.head_dim
    return Checkpoint(
        name,
        code_base,
        state_dict,
        {**code_base.settings, **settings},
        network=model,
        runs_in="timm",
        data_config=data_config,
        left_out=left_out,
        license=published.get("license"),
        hub_id=published.get("hf_hub_id"),
    )


def vit_settings(model: Any, name: str) -> dict[str, Any]:
    """Return what a Vision Transformer of timm's says of itself, in fields of ours.

    Raises:
        CheckpointError: if it has an activation or a pooling that SKViT does not have.
    """
    activation, pooling = type(model.blocks[0].mlp.act).__name__, model.global_pool
    if not pooling:
        pooling = "token" if model.has_class_token else "avg"
    for what, found, known in (("activation", activation, ACTIVATIONS), ("pooling", pooling, POOLINGS)):
        if found not in known:
            raise CheckpointError(f"{name} has the {what} {found}, expected one of {', '.join(known)}.")
    height, width = model.patch_embed.img_size
    patch_height, patch_width = model.patch_embed.patch_size
    final_norm = "tokens" if hasattr(model.norm, "weight") else "pooled" if hasattr(model.fc_norm, "weight") else None
    return {
        "image_size": model.patch_embed.img_size,
        "strict_image_size": height % patch_height == 0 and width % patch_width == 0,
        "head_dim": model.blocks[0].attn.head_dim,
        "hidden_act": ACTIVATIONS[activation],
        "layer_norm_eps": model.blocks[0].norm1.eps,
        "pooling": POOLINGS[pooling],
        "final_norm": final_norm,
        "position_interpolation": "bicubic_antialias",
    }


def vit_file_settings(state_dict: dict[str, Any], hidden_act: str | None) -> tuple[dict[str, Any], list[str]]:
    """Return what the names in a file of a Vision Transformer of timm's say, in fields of ours, and what is assumed.

    Args:
        hidden_act: the activation, where it was told.

    Raises:
        CheckpointError: if it was not, and tensors do not tell one of two that are usual.
    """
    settings: dict[str, Any] = {"position_interpolation": "bicubic_antialias"}
    assumed = []
    if "fc_norm.weight" in state_dict:
        settings |= {"pooling": "mean", "final_norm": "pooled"}
    elif "norm.weight" not in state_dict:
        settings["final_norm"] = None
    if hidden_act is None and "norm_pre.weight" in state_dict:
        raise CheckpointError(
            "The tensors are of a CLIP, of which some have the activation gelu and some quick_gelu: pass --hidden_act."
        )
    if hidden_act is None and "attn_pool.latent" in state_dict:
        hidden_act = "gelu_pytorch_tanh"
        assumed.append(f"hidden_act {hidden_act}, SigLIP's; --hidden_act tells another")
    first, second = state_dict.get("blocks.0.mlp.fc1.weight"), state_dict.get("blocks.0.mlp.fc2.weight")
    if hidden_act is None and first is not None and second is not None and first.shape[0] == 2 * second.shape[1]:
        hidden_act = "silu"
        assumed.append("hidden_act silu, SwiGLU's; --hidden_act tells another")
    return settings if hidden_act is None else {**settings, "hidden_act": hidden_act}, assumed


def is_imagenet(num_classes: int) -> bool:
    """Return whether timm knows a subset of ImageNet with as many classes."""
    from timm.data import infer_imagenet_subset

    return infer_imagenet_subset({"num_classes": num_classes}) is not None


def import_timm() -> ModuleType:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise CheckpointError("timm is not installed: pip install 'sk-transformers[convert]'.") from error
    return timm
