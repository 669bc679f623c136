"""What of a model is trained: its head alone, or low-rank adapters."""

from torch import nn
from transformers import PreTrainedModel

from .options import LoraOptions


def freeze_backbone(model: PreTrainedModel) -> None:
    """Leave only the head to train."""
    model.base_model.requires_grad_(False)


def add_lora(model: PreTrainedModel, options: LoraOptions) -> nn.Module:
    """Return the model with low-rank adapters (arXiv 2106.09685), if they are asked for: they and the head are trained.

    Raises:
        ImportError: if PEFT is not installed.
        ValueError: if no layer has one of the names.
    """
    rank = options.lora_rank
    if rank is None:
        return model
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ImportError("--lora_rank needs PEFT, which is not installed: pip install peft") from error
    config = LoraConfig(
        r=rank,
        lora_alpha=options.lora_alpha or rank,  # pyright: ignore[reportArgumentType]: a fraction is fine
        lora_dropout=options.lora_dropout,
        target_modules=options.lora_target_modules or "all-linear",
        modules_to_save=["classifier"],
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise ValueError(
            f"--lora_target_modules {' '.join(options.lora_target_modules or [])}: no adapter fits: {error}"
        ) from error
