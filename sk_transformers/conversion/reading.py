"""Where checkpoints come from: files, timm by name, transformers by folder or name. Nothing here runs their code."""

import pickle
import re
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import PretrainedConfig

from ..errors import first_line
from ..hub.licenses import license_on_card
from .errors import CheckpointError, shorten
from .names import RECOGNIZED, TIMM_METAFORMER, TIMM_MIXERS, TIMM_VIT, TRANSFORMERS_VIT, CodeBase

FILE_SUFFIXES = (".pth", ".pt", ".tar", ".bin", ".ckpt", ".safetensors")
CONTAINERS = {False: ("state_dict", "model"), True: ("state_dict_ema", "model_ema")}  # by use_ema


@dataclass
class Checkpoint:
    """A checkpoint, and all that is known of its network beside the tensors.

    Args:
        name: as the user gave it.
        code_base: whose names the tensors carry.
        state_dict: the tensors under those names.
        settings: fields of our configuration that the source tells.
        network: the network itself, if the source is one and not a file.
        runs_in: the library that runs it.
        data_config: what its image processor does, in timm's terms: `mean`, `std`, `crop_pct`, ...
        image_processor: the image processor itself, if the source has one of transformers'.
        id2label: the names of the classes, if the source has them.
        left_out: tensors that the source has and its own network does not use.
        license: of the weights, as the Hub names it, if the source tells.
        hub_id: of the source, if it is on the Hub.
    """

    name: str
    code_base: CodeBase
    state_dict: dict[str, torch.Tensor]
    settings: dict[str, Any] = field(default_factory=dict)
    network: nn.Module | None = None
    runs_in: str = ""
    data_config: dict[str, Any] = field(default_factory=dict)
    image_processor: Any = None
    id2label: dict[int, str] | None = None
    left_out: list[str] = field(default_factory=list)
    license: str | None = None
    hub_id: str | None = None


def read_source(name: str, use_ema: bool = False, random: bool = False) -> Checkpoint:
    """Read `timm:NAME`, a checkpoint file, or a folder or Hub id of transformers.

    Args:
        name: the source.
        use_ema: take a file's averaged weights.
        random: take timm's network with fresh weights instead of pretrained ones.

    Raises:
        CheckpointError: if it cannot be read, or is of no network that is known here.
    """
    is_timm, path = name.startswith("timm:"), Path(name)
    is_file = path.is_file() or path.name.endswith(FILE_SUFFIXES)
    if use_ema and (is_timm or not is_file):
        raise CheckpointError(f"--use_ema is for checkpoint files, and {name} is not one: leave it out.")
    if random and not is_timm:
        raise CheckpointError(f"--random is for timm:NAME, and {name} has weights of its own: leave it out.")
    if is_timm:
        return read_timm(name, random)
    return read_file(name, use_ema) if is_file else read_transformers(name)


def read_file(name: str, use_ema: bool) -> Checkpoint:
    """Return the checkpoint in a file, and whose names its tensors have."""
    state_dict = state_dict_of(load_tensors(Path(name)), name, use_ema)
    code_base = next((code for code in RECOGNIZED if all(key in state_dict for key in code.signature)), None)
    if code_base is None:
        titles = "; ".join(code.title for code in RECOGNIZED)
        raise CheckpointError(
            f"{name} has {len(state_dict)} tensors ({', '.join(list(state_dict)[:3])}, ...), which are of no network"
            f" known here: {titles}."
        )
    return Checkpoint(name, code_base, state_dict, dict(code_base.settings))


def load_tensors(path: Path) -> Any:
    """Return what a file holds, without running any code that it carries."""
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist: give a checkpoint file, timm:NAME, or a transformers folder.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([Namespace]):  # timm's training saves its options, which are plain data
            return torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        needed = re.search(r"(?:GLOBAL|class|function) ([\w.]+\.\w+)", str(error))
        if needed is None:
            raise CheckpointError(f"{path} is not a checkpoint, or a damaged one: it cannot be unpickled.") from error
        raise CheckpointError(
            f"{path} holds more than tensors: reading it takes {needed[1]}, and a pickle that may call that may run"
            " anything; if you trust it, load it with weights_only=False and save its state dict alone."
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(f"{path} is not a checkpoint, or a damaged one ({reason}).") from error


def state_dict_of(checkpoint: Any, name: str, use_ema: bool) -> dict[str, torch.Tensor]:
    """Return the tensors in what a training run saved, without DistributedDataParallel's prefix of their names."""
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f"{name} holds a {type(checkpoint).__name__}, expected a dictionary of tensors.")
    inside = next((key for key in CONTAINERS[use_ema] if isinstance(checkpoint.get(key), Mapping)), None)
    has = f"it has {', '.join(map(str, list(checkpoint)[:5]))}" + (", ..." if len(checkpoint) > 5 else "")
    if use_ema and inside is None:
        raise CheckpointError(f"{name} has no averaged weights (state_dict_ema), {has}: leave out --use_ema.")
    if inside is None and any(key in checkpoint for key in CONTAINERS[True]):
        raise CheckpointError(f"{name} has averaged weights only, {has}: pass --use_ema.")
    state_dict = checkpoint if inside is None else checkpoint[inside]
    if not state_dict or not all(isinstance(value, torch.Tensor) for value in state_dict.values()):
        raise CheckpointError(f"{name} is not a dictionary of tensors, nor has it one called state_dict: {has}.")
    return {str(key).removeprefix("module."): tensor for key, tensor in state_dict.items()}


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


def read_transformers(name: str) -> Checkpoint:
    """Return a ViT or DeiT of transformers', of any release: its own loader knows the names of older ones."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

    try:
        config: Any = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{name} is not a checkpoint file, and transformers finds no model there ({first_line(error)})."
        ) from error
    if config.model_type not in ("vit", "deit"):
        raise CheckpointError(f"{name} is a {config.model_type!r} of transformers', expected a 'vit' or a 'deit'.")
    try:
        model, loading = AutoModelForImageClassification.from_pretrained(name, dtype="auto", output_loading_info=True)
    except (OSError, RuntimeError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
        reason = first_line(error)
        raise CheckpointError(f"transformers could not load {name} ({reason}).") from error
    if loading["missing_keys"]:
        raise CheckpointError(
            f"{name} lacks tensors of an image classifier: {shorten(loading['missing_keys'])}. Fine-tune it in"
            " transformers first, or convert a checkpoint that has a classifier."
        )
    try:
        image_processor = AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError):
        image_processor = None  # a folder need not have one
    id2label: Any = config.id2label
    return Checkpoint(
        name,
        TRANSFORMERS_VIT,
        model.state_dict(),
        _vit_settings(config),
        network=model,
        runs_in="transformers",
        image_processor=image_processor,
        id2label=None if id2label is None or id2label.get(0) == "LABEL_0" else id2label,
        left_out=sorted(loading["unexpected_keys"]),
        license=license_on_card(name),
        hub_id=None if Path(name).exists() else name,
    )


def _vit_settings(config: PretrainedConfig) -> dict[str, Any]:
    return {
        "image_size": config.image_size,
        "head_dim": getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        "hidden_act": config.hidden_act,
        "layer_norm_eps": config.layer_norm_eps,
    }
