"""Where checkpoints come from: files here, timm by name, transformers by folder or name. No source's code is run."""

import pickle
import re
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from .checkpoint import Checkpoint
from .errors import CheckpointError
from .from_timm import read_timm, vit_file_settings
from .from_transformers import read_transformers
from .names import RECOGNIZED, TIMM_VIT

FILE_SUFFIXES = (".pth", ".pt", ".tar", ".bin", ".ckpt", ".safetensors")
CONTAINERS = {False: ("state_dict", "model"), True: ("state_dict_ema", "model_ema")}  # by use_ema


def read_source(name: str, use_ema: bool = False, random: bool = False, hidden_act: str | None = None) -> Checkpoint:
    """Read `timm:NAME`, a checkpoint file, or a folder or Hub id of transformers.

    Args:
        name: the source.
        use_ema: take a file's averaged weights.
        random: take timm's network with fresh weights instead of pretrained ones.
        hidden_act: the activation of a network in a file.

    Raises:
        CheckpointError: if it cannot be read, or is of no network that is known here.
    """
    is_timm, path = name.startswith("timm:"), Path(name)
    is_file = path.is_file() or path.name.endswith(FILE_SUFFIXES)
    if use_ema and (is_timm or not is_file):
        raise CheckpointError(f"--use_ema is for checkpoint files, and {name} is not one: leave it out.")
    if random and not is_timm:
        raise CheckpointError(f"--random is for timm:NAME, and {name} has weights of its own: leave it out.")
    if hidden_act is not None and (is_timm or not is_file):
        raise CheckpointError(f"--hidden_act is for checkpoint files, and {name} tells its activation: leave it out.")
    if is_timm:
        return read_timm(name, random)
    return read_file(name, use_ema, hidden_act) if is_file else read_transformers(name)


def read_file(name: str, use_ema: bool, hidden_act: str | None = None) -> Checkpoint:
    """Return the checkpoint in a file, and whose names its tensors have."""
    state_dict = state_dict_of(load_tensors(Path(name)), name, use_ema)
    code_base = next((code for code in RECOGNIZED if all(key in state_dict for key in code.signature)), None)
    if code_base is None:
        titles = "; ".join(code.title for code in RECOGNIZED)
        raise CheckpointError(
            f"{name} has {len(state_dict)} tensors ({', '.join(list(state_dict)[:3])}, ...), which are of no network"
            f" known here: {titles}."
        )
    settings, assumed = dict(code_base.settings), []
    if code_base is TIMM_VIT:
        told, assumed = vit_file_settings(state_dict, hidden_act)
        settings |= told
    elif hidden_act is not None:
        raise CheckpointError(f"--hidden_act is for a Vision Transformer of timm's, and {name} is none: leave it out.")
    return Checkpoint(name, code_base, state_dict, settings, assumed=assumed)


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
