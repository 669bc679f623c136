"""A network run layer by layer, on images that are kept as tokens before the layer that is next.

`LayeredNetwork` runs Vision Transformers, `LayeredSwin` what is Swin's: stages of several grids, and mixers that see
windows.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel

from ..data.loaders import is_readable
from ..models.configuration_checks import size_pair
from ..models.grids import maps_to_tokens, tokens_to_maps
from ..models.modeling_stages import Stage
from .statistics import LayerSums, layer_sums

BATCH_SIZE = 32  # of passes that train nothing


class Given(nn.Module):
    """Stands for what comes before, and gives what that gave."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, *_: Any, **__: Any) -> Any:
        return self.output


class Outputs(NamedTuple):
    """What a network gives: `(images, tokens, hidden_size)`, `(images, channels)`, and of a classifier its logits.

    Maps of a network of stages are tokens here, too.
    """

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
    hidden = seen[0].last_hidden_state
    hidden = maps_to_tokens(hidden) if hidden.dim() == 4 else hidden
    return Outputs(hidden, seen[0].pooler_output, getattr(outputs, "logits", None))


class LayeredNetwork:
    """A Vision Transformer with its layers at hand.

    Args:
        model: an SKViT, with a head or without, on the accelerator's device.
        accelerator: whose device batches are moved to.
    """

    def __init__(self, model: PreTrainedModel, accelerator: Accelerator) -> None:
        self.model, self.accelerator = model.eval().requires_grad_(False), accelerator
        self.base: Any = model.base_model
        self.layers: Any = self.layers_in_order()
        self.grid_sizes, self.numbers_of_tokens = self._shapes()

    def layers_in_order(self) -> Any:
        """Return the layers."""
        return self.base.layers

    def images(self, count: int) -> torch.Tensor:
        """Return blank images, `(count, channels, height, width)`."""
        config: Any = self.model.config
        height, width = size_pair("image_size", config.image_size)
        return torch.zeros(
            count, config.num_channels, height, width, device=self.model.device, dtype=self.model.dtype
        )  # fmt: skip

    @torch.no_grad()
    def _shapes(self) -> tuple[list[tuple[int, int]], list[int]]:
        """Return the grid of each layer, `(height, width)`, and how many numbers an image is there."""
        grids, numbers = [], []

        def note(_: nn.Module, args: tuple) -> None:
            grids.append(args[1])
            numbers.append(args[0][0].numel())

        hooks = [layer.register_forward_pre_hook(note) for layer in self.layers]
        self.model(self.images(1))
        for hook in hooks:
            hook.remove()
        return grids, numbers

    def mixer_grid(self, index: int) -> tuple[int, int]:
        """Return the grid that a layer's mixer sees."""
        return self.grid_sizes[index]

    @torch.no_grad()
    def run_layer(self, index: int, tokens: torch.Tensor) -> torch.Tensor:
        """Return what is before the next layer, of tokens before a layer: `(images, tokens, channels)`, on the CPU."""
        batches = tokens.split(BATCH_SIZE)
        return torch.cat([self._after_layer(index, batch.to(self.model.device)).cpu() for batch in batches])

    def _after_layer(self, index: int, tokens: torch.Tensor) -> torch.Tensor:
        return self.layers[index](tokens, self.grid_sizes[index])[0]

    @torch.no_grad()
    def mixer_inputs(self, index: int, tokens: torch.Tensor) -> torch.Tensor:
        """Return what a layer gives its mixer of the layer's tokens: they are normalized."""
        norm = self.layers[index].layernorm_before
        return torch.cat([norm(batch.to(self.model.device)).cpu() for batch in tokens.split(BATCH_SIZE)])

    def added_by(self, mixer: nn.Module, index: int, inputs: torch.Tensor) -> torch.Tensor:
        """Return what a mixer in a layer's place adds to the layer's tokens, of a batch of its inputs."""
        return self.layers[index].mixer_scale(mixer(inputs, self.grid_sizes[index])[0])

    @torch.no_grad()
    def added_by_mixer(self, index: int, inputs: torch.Tensor) -> torch.Tensor:
        """Return what a layer's mixer adds to the layer's tokens, of its inputs."""
        batches, mixer = inputs.split(BATCH_SIZE), self.layers[index].mixer
        return torch.cat([self.added_by(mixer, index, batch.to(self.model.device)).cpu() for batch in batches])

    def seen_by_mixer(self, index: int, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the tokens that a mixer is called with, `(batch or windows, tokens, channels)`, of its inputs.

        Returns:
            Those, and `(batch or windows,)` whether all tokens of one may attend to each other.
        """
        return inputs, torch.ones(len(inputs), dtype=torch.bool, device=inputs.device)

    @torch.no_grad()
    def outputs_from(self, index: int, tokens: torch.Tensor) -> Iterator[Outputs]:
        """Yield the network's outputs on batches of tokens before a layer: it runs from there to its very end."""
        for batch in tokens.split(BATCH_SIZE):
            with self._starting_at(index, batch.to(self.model.device)):
                yield run(self.model, self.images(len(batch)))

    @contextmanager
    def _starting_at(self, index: int, tokens: torch.Tensor) -> Iterator[None]:
        self.base.layers = nn.ModuleList([Given((tokens, None)), *self.layers[index:]])
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

        def add_sums(index: int, layer_tokens: torch.Tensor) -> None:
            batch = self.sums(index, self.layers[index].layernorm_before(layer_tokens), convolutional)
            sums[index] = sums[index] + batch if index in sums else batch

        hooks = [self.layers[0].register_forward_pre_hook(keep_tokens)]
        hooks += [
            self.layers[index].register_forward_pre_hook(lambda _, args, index=index: add_sums(index, args[0]))
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

    @torch.no_grad()
    def sums(
        self, index: int, inputs: torch.Tensor, convolutional: bool, teacher_inputs: torch.Tensor | None = None
    ) -> LayerSums:
        """Return the sums of a batch of a mixer's inputs; see `layer_sums`. Windows with a mask are left out."""
        seen, whole = self.seen_by_mixer(index, inputs)
        teacher = None if teacher_inputs is None else self.seen_by_mixer(index, teacher_inputs)[0][whole]
        return layer_sums(self.layers[index].mixer, seen[whole], self.mixer_grid(index), convolutional, teacher)


class LayeredSwin(LayeredNetwork):
    """A Swin with its layers at hand, those of all stages in one row; to its mixers a window is an image."""

    def layers_in_order(self) -> Any:
        self.stages: list[Any] = list(self.base.stages)
        return [layer for stage in self.stages for layer in stage.layers]

    def mixer_grid(self, index: int) -> tuple[int, int]:
        side = self.model.config.window_size
        return side, side

    def place(self, index: int) -> tuple[int, int]:
        """Return the stage of a layer, and which layer of it that is."""
        stage = 0
        while index >= len(self.stages[stage].layers):
            index -= len(self.stages[stage].layers)
            stage += 1
        return stage, index

    def _after_layer(self, index: int, tokens: torch.Tensor) -> torch.Tensor:
        tokens, (stage, layer) = super()._after_layer(index, tokens), self.place(index)
        if index + 1 == len(self.layers) or layer + 1 < len(self.stages[stage].layers):
            return tokens
        return maps_to_tokens(self.stages[stage + 1].downsampling(tokens_to_maps(tokens, self.grid_sizes[index])))

    def added_by(self, mixer: nn.Module, index: int, inputs: torch.Tensor) -> torch.Tensor:
        layer = self.layers[index]
        own, layer.mixer = layer.mixer, mixer
        try:
            return layer.mix_windows(inputs, self.grid_sizes[index], output_attentions=False)[0]
        finally:
            layer.mixer = own

    def seen_by_mixer(self, index: int, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        windows, mask = self.layers[index].cut(inputs, self.grid_sizes[index])
        if mask is None:
            return super().seen_by_mixer(index, windows)
        return windows, (mask == 0).flatten(1).all(dim=1)

    @contextmanager
    def _starting_at(self, index: int, tokens: torch.Tensor) -> Iterator[None]:
        stage, layer = self.place(index)
        maps = tokens_to_maps(tokens, self.grid_sizes[index])
        first = Stage(Given(maps), self.stages[stage].layers[layer:])
        self.base.stages = nn.ModuleList([first, *self.stages[stage + 1 :]])
        try:
            yield
        finally:
            self.base.stages = nn.ModuleList(self.stages)


def layered(model: PreTrainedModel, accelerator: Accelerator) -> LayeredNetwork:
    """Return a network with its layers at hand."""
    return (LayeredSwin if model.config.model_type == "skswin" else LayeredNetwork)(model, accelerator)
