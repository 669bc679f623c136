"""A network run layer by layer, on images that are kept as tokens before the layer that is next."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel

from ..data.loaders import is_readable
from .statistics import LayerSums, layer_sums

BATCH_SIZE = 32  # of passes that train nothing


class Given(nn.Module):
    """Stands for the layers before, and gives what they gave."""

    def __init__(self, tokens: torch.Tensor) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
        return self.tokens, None


class Outputs(NamedTuple):
    """What a network gives: `(images, tokens, hidden_size)`, `(images, channels)`, and of a classifier its logits."""

    last_hidden_state: torch.Tensor
    pooled: torch.Tensor
    logits: torch.Tensor | None

    def images(self, start: int, end: int) -> "Outputs":
        """Return the outputs of some of the images."""
        logits = None if self.logits is None else self.logits[start:end]
        return Outputs(self.last_hidden_state[start:end], self.pooled[start:end], logits)


def run(model: nn.Module, pixel_values: torch.Tensor, network: PreTrainedModel | None = None) -> Outputs:
    """Return a network's outputs on images, those below its head too.

    Args:
        model: the network, or what a library wrapped it in.
        pixel_values: `(batch, channels, height, width)`.
        network: the network in the wrapping.
    """
    inner: Any = network or model
    seen: list[Any] = []
    hook = inner.base_model.register_forward_hook(lambda _, __, outputs: seen.append(outputs))
    try:
        outputs: Any = model(pixel_values=pixel_values)
    finally:
        hook.remove()
    return Outputs(seen[0].last_hidden_state, seen[0].pooler_output, getattr(outputs, "logits", None))


class LayeredNetwork:
    """A network with its layers at hand.

    Args:
        model: an SKViT, with a head or without, on the accelerator's device.
        accelerator: whose device batches are moved to.
    """

    def __init__(self, model: PreTrainedModel, accelerator: Accelerator) -> None:
        self.model, self.accelerator = model.eval().requires_grad_(False), accelerator
        self.base: Any = model.base_model
        self.layers: Any = self.base.layers
        self.grid_size: tuple[int, int] = model.config.grid_size
        self.prefix_tokens: int = self.layers[0].mixer.num_class_tokens
        self.arguments: tuple[tuple, dict] = self._arguments_of_layers()

    def images(self, count: int) -> torch.Tensor:
        """Return blank images, `(count, channels, height, width)`."""
        height, width = self.base.embeddings.image_size
        return torch.zeros(
            count, self.model.config.num_channels, height, width, device=self.model.device, dtype=self.model.dtype
        )

    @torch.no_grad()
    def _arguments_of_layers(self) -> tuple[tuple, dict]:
        """Return what layers get beside the tokens: the same for all images."""
        seen = []
        hook = self.layers[0].register_forward_pre_hook(
            lambda _, args, kwargs: seen.append((args[1:], kwargs)), with_kwargs=True
        )
        self.model(self.images(1))
        hook.remove()
        return seen[0]

    @torch.no_grad()
    def run_layer(self, index: int, tokens: torch.Tensor) -> torch.Tensor:
        """Return what a layer makes of tokens, both `(images, tokens, hidden_size)` in the CPU's memory."""
        args, kwargs = self.arguments
        batches = tokens.split(BATCH_SIZE)
        return torch.cat(
            [self.layers[index](batch.to(self.model.device), *args, **kwargs)[0].cpu() for batch in batches]
        )

    @torch.no_grad()
    def mixer_inputs(self, index: int, tokens: torch.Tensor) -> torch.Tensor:
        """Return what a layer's mixer gets of the layer's tokens."""
        norm = self.layers[index].layernorm_before
        return torch.cat([norm(batch.to(self.model.device)).cpu() for batch in tokens.split(BATCH_SIZE)])

    @torch.no_grad()
    def added_by_mixer(self, index: int, inputs: torch.Tensor) -> torch.Tensor:
        """Return what a layer's mixer adds to the layer's tokens, of its inputs."""
        layer, grid_size = self.layers[index], self.grid_size
        batches = (batch.to(self.model.device) for batch in inputs.split(BATCH_SIZE))
        return torch.cat([layer.mixer_scale(layer.mixer(batch, grid_size)[0]).cpu() for batch in batches])

    @torch.no_grad()
    def outputs_from(self, index: int, tokens: torch.Tensor) -> Iterator[Outputs]:
        """Yield the network's outputs on batches of tokens before a layer: it runs from there to its very end."""
        for batch in tokens.split(BATCH_SIZE):
            with self._layers_after(Given(batch.to(self.model.device)), self.layers[index:]):
                yield run(self.model, self.images(len(batch)))

    @contextmanager
    def _layers_after(self, first: nn.Module, rest: Iterable[nn.Module]) -> Iterator[None]:
        self.base.layers = nn.ModuleList([first, *rest])
        try:
            yield
        finally:
            self.base.layers = self.layers

    @torch.no_grad()
    def read(
        self,
        batches: Iterable[dict[str, torch.Tensor]],
        keep: int,
        layers: Iterable[int] = (),
        convolutional: bool = False,
        mirrored: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, dict[int, LayerSums]]:
        """Run the network on images once.

        Args:
            batches: of `pixel_values` and `labels`; those of unreadable images are left out.
            keep: how many images are kept as tokens.
            layers: whose sums are gathered, of all images.
            convolutional: whether the sums for convolutional keys are wanted, too.
            mirrored: whether every image comes once more, mirrored.

        Returns:
            Tokens before the first layer, `(images, tokens, hidden_size)`, the labels of those images, and the sums.
        """
        tokens, labels, sums, kept = [], [], {}, 0

        def keep_tokens(_: nn.Module, args: tuple) -> None:
            nonlocal kept
            tokens.append(args[0][: keep - kept].cpu())
            kept += len(tokens[-1])

        def add_sums(index: int, inputs: torch.Tensor) -> None:
            batch = layer_sums(self.layers[index].mixer, inputs, self.grid_size, convolutional)
            sums[index] = sums[index] + batch if index in sums else batch

        hooks = [self.layers[0].register_forward_pre_hook(keep_tokens)]
        hooks += [
            self.layers[index].mixer.register_forward_pre_hook(lambda _, args, index=index: add_sums(index, args[0]))
            for index in layers
        ]
        try:
            for batch in batches:
                readable = is_readable(batch["labels"])
                pixel_values = batch["pixel_values"][readable].to(self.model.device, self.model.dtype)
                for images in (pixel_values, pixel_values.flip(-1)) if mirrored else (pixel_values,):
                    labels.append(batch["labels"][readable])
                    if len(images):
                        self.model(images)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.cat(tokens), torch.cat(labels)[:kept], sums
