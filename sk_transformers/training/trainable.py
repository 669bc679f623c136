"""What of a model is trained: its head alone, or low-rank adapters."""

import argparse

from torch import nn
from transformers import PreTrainedModel


def freeze_backbone(model: PreTrainedModel) -> None:
    """Leave only the head to train."""
    model.base_model.requires_grad_(False)


def add_lora(model: PreTrainedModel, args: argparse.Namespace) -> nn.Module:
    """The model with low-rank adapters (arXiv 2106.09685) on its linear layers, those and the head alone to train."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ImportError("--lora_rank needs PEFT, which is not installed: pip install peft") from error
    targets = args.lora_target_modules or "all-linear"
    config = LoraConfig(
        r=args.lora_rank,
        lora_alpha=args.lora_alpha or args.lora_rank,
        lora_dropout=args.lora_dropout,
        target_modules=targets,
        modules_to_save=["classifier"],
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise ValueError(
            f"--lora_target_modules {' '.join(args.lora_target_modules or [])}: no adapter fits: {error}"
        ) from error
