"""Networks of timm's as sources, by name."""

from difflib import get_close_matches
from types import ModuleType
from typing import Any

from ..errors import first_line
from .checkpoint import Checkpoint
from .errors import CheckpointError
from .names import TIMM_METAFORMER, TIMM_MIXERS, TIMM_VIT


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
    }
    code_base = known.get(type(model).__name__)
    if code_base is None:
        raise CheckpointError(
            f"{name} is a {type(model).__name__} of timm's, which has no counterpart here: expected a MetaFormer or a"
            " VisionTransformer."
        )
    from timm.data import resolve_model_data_config

    data_config = resolve_model_data_config(model)
    published = getattr(model, "pretrained_cfg", None) or {}
    if code_base is TIMM_VIT:
        settings = {"image_size": model.patch_embed.img_size, "head_dim": model.blocks[0].attn.head_dim}
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
        model.state_dict(),
        {**code_base.settings, **settings},
        network=model,
        runs_in="timm",
        data_config=data_config,
        license=published.get("license"),
        hub_id=published.get("hf_hub_id"),
    )


def import_timm() -> ModuleType:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise CheckpointError("timm is not installed: pip install 'sk-transformers[convert]'.") from error
    return timm
