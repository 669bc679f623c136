"""What all model families share: their base class, and the ends of a forward pass."""

from collections import OrderedDict
from typing import Any, cast

import torch
from torch import nn
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin
from transformers.configuration_utils import PretrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import output_capturing

OUTPUT_OPTIONS = ("output_attentions", "output_hidden_states", "return_dict")


class Recorded(nn.Module):
    """A module that transformers records outputs with. Its hooks are closures, so pickles and copies leave them out."""

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state.pop("_output_capturing_hooks_installed", None)
        hooks = state["_forward_hooks"].items()
        others = ((key, hook) for key, hook in hooks if hook.__module__ != output_capturing.__name__)
        return {**state, "_forward_hooks": OrderedDict(others)}


class StaticKeyPreTrainedModel(Recorded, PreTrainedModel):
    """What transformers needs to know of a network with static keys."""

    main_input_name = "pixel_values"
    input_modalities = ("image",)  # pyright: ignore[reportAssignmentType] (as transformers itself has it)
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # Trainer would pass the number of items otherwise
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `forward`; outputs that None is said of are the configuration's, where transformers takes them as off."""
        return super().__call__(*args, **{k: v for k, v in kwargs.items() if v is not None or k not in OUTPUT_OPTIONS})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if isinstance(self, BackboneMixin):  # which has hooks from the start, since torch.compile cannot install them
            output_capturing.maybe_install_capturing_hooks(cast(Any, self))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif hasattr(module, "reset_parameters"):
            cast(Any, module).reset_parameters()


def check_pixel_values(pixel_values: torch.Tensor | None, weight: torch.Tensor, num_channels: int) -> None:
    """Raise unless `pixel_values` is a batch of images with the channels and the dtype of the first `weight`."""
    if pixel_values is None:
        raise ValueError("pixel_values is missing: pass a batch of images, (batch, channels, height, width).")
    if pixel_values.dim() != 4 or pixel_values.shape[1] != num_channels:
        raise ValueError(
            f"pixel_values has shape {tuple(pixel_values.shape)}, expected (batch, {num_channels}, height, width):"
            f" this model reads images with {num_channels} channels."
        )
    if not pixel_values.is_floating_point():
        raise ValueError(
            f"pixel_values is {pixel_values.dtype}, expected {weight.dtype}: normalize images with the model's image"
            " processor first."
        )
    if pixel_values.dtype != weight.dtype and not torch.is_autocast_enabled(pixel_values.device.type):
        raise ValueError(
            f"pixel_values is {pixel_values.dtype} but the model's weights are {weight.dtype}:"
            " use pixel_values.to(model.dtype)."
        )


def check_labels(labels: torch.Tensor, logits: torch.Tensor, problem_type: str | None) -> None:
    """Raise unless integer `labels` name classes that `logits` has.

    Only labels in the CPU's memory are looked at: reading others would make every step wait for the device.
    """
    is_class_index = not labels.is_floating_point() and problem_type in (None, "single_label_classification")
    if not is_class_index or logits.shape[-1] == 1 or labels.device.type != "cpu" or torch.compiler.is_compiling():
        return
    wrong = labels[((labels < 0) & (labels != -100)) | (labels >= logits.shape[-1])]
    if wrong.numel():
        raise ValueError(
            f"labels hold class {wrong[0].item()}, but the model has {logits.shape[-1]} classes, 0 to"
            f" {logits.shape[-1] - 1}: check the data, or set num_labels."
        )


def classify(
    model: StaticKeyPreTrainedModel,
    outputs: BaseModelOutputWithPooling,
    logits: torch.Tensor,
    labels: torch.Tensor | None,
) -> ImageClassifierOutput:
    """Return what a classifier does, `logits` `(batch, num_labels)` with their loss if there are labels.

    Args:
        model: the classifier; its configuration says which loss.
        outputs: those of the network without a head.
        labels: what `forward` got, or None for no loss.

    Raises:
        ValueError: if a label is not a class.
    """
    loss = None
    if labels is not None:
        check_labels(labels, logits, model.config.problem_type)
        loss = model.loss_function(labels, logits, model.config)
    return ImageClassifierOutput(
        loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
    )


def wants_attentions(config: PretrainedConfig, output_attentions: bool | None) -> bool:
    """Return whether layers have to compute attention weights, by the configuration where the caller says nothing."""
    return bool(config.output_attentions if output_attentions is None else output_attentions)
