"""What may take the place of a layer's attention: kinds of mixers, made by closed forms and fitted to its output."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from ..data.seeds import seed_of
from ..models.attention import scale
from ..models.token_mixers import build_token_mixer
from .closed_forms import least_squares_key, least_squares_key_and_bias, static_map
from .statistics import LayerSums

BIAS = "attention_bias.bias"  # the name of the parameter
Parameters = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Kind:
    """A token mixer, with or without a static bias of its logits."""

    mixer: str
    bias: bool


KINDS = {
    "static_map": Kind("static_map", True),
    "static_key": Kind("static_key", False),
    "static_key+bias": Kind("static_key", True),
    "conv_static_key": Kind("conv_static_key", False),
    "conv_static_key+bias": Kind("conv_static_key", True),
}


def build_candidate(attention: Any, kind: str) -> nn.Module:
    """Return a mixer of this kind with the projections of a layer's self-attention; its own parameters are not set."""
    options = replace(attention.options, attention_bias="full" if KINDS[kind].bias else None)
    candidate = build_token_mixer(KINDS[kind].mixer, options).to(attention.v_proj.weight)
    own = own_parameters(candidate, attention)
    shared = {name: attention.state_dict()[name] for name in candidate.state_dict() if name not in own}
    candidate.load_state_dict(shared, strict=False)
    return candidate.eval()


def own_parameters(candidate: nn.Module, attention: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that attention does not have: keys, and a bias, which is another than one it has."""
    inherited = {name for name, _ in attention.named_parameters()} - {BIAS}
    return {name: parameter for name, parameter in candidate.named_parameters() if name not in inherited}


def closed_forms(kind: str, sums: LayerSums, attention: Any) -> dict[str, Parameters]:
    """Return values of a candidate's own parameters, by what they are called.

    Args:
        kind: one of `KINDS`.
        sums: of the layer.
        attention: the layer's self-attention.
    """
    mixer, bias = KINDS[kind].mixer, KINDS[kind].bias
    mean_map = static_map(sums.weights, sums.images)
    if mixer == "static_map":
        return {"mean weights": {BIAS: mean_map}}
    make = conv_key if mixer == "conv_static_key" else plain_key
    least_squares = make(sums, attention, bias)
    if bias:
        no_key = {name: torch.zeros_like(tensor) for name, tensor in least_squares.items()}
        return {"mean weights": {**no_key, BIAS: mean_map}, "least squares": least_squares}
    if mixer == "static_key":
        return {"mean key": {"key": sums.keys / sums.images}, "least squares": least_squares}
    return {"least squares": least_squares}


def plain_key(sums: LayerSums, attention: Any, bias: bool) -> Parameters:
    """Return the least squares key of SKA, with or without a bias."""
    moments = sums.moments["query"]
    if not bias:
        return {"key": least_squares_key(moments.gram, moments.cross)}
    key, offsets = least_squares_key_and_bias(**vars(moments), images=sums.images)
    return {"key": key, BIAS: offsets * logit_scale(attention) + own_bias(attention)}


def conv_key(sums: LayerSums, attention: Any, bias: bool) -> Parameters:
    """Return the least squares key of CSKA, with or without a bias; that of the class tokens is its own regression."""
    kinds = ["neighborhood"] if attention.num_class_tokens == 0 else ["class_query", "neighborhood"]
    keys, rows = [], []
    for moments in (sums.moments[kind] for kind in kinds):
        if bias:
            key, offsets = least_squares_key_and_bias(**vars(moments), images=sums.images)
            rows.append(offsets * logit_scale(attention))
        else:
            key = least_squares_key(moments.gram, moments.cross)
        keys.append(key)
    # The convolution has no learned temperature: its weight absorbs it.
    key = keys[-1] if attention.temperature is None else keys[-1] * logit_scale(attention)
    parameters = {"key": key[..., :-1], "key_bias": key[..., -1]}
    if attention.num_class_tokens:
        parameters["class_key"] = keys[0]
    return parameters | ({BIAS: torch.cat(rows, dim=1) + own_bias(attention)} if bias else {})


def logit_scale(attention: Any) -> float:
    """Return what attention multiplies `q @ k.T` by."""
    one = attention.v_proj.weight.new_ones(1, attention.options.head_dim)
    query, scaling = scale(attention, one)
    return float(query[0, 0].detach() * scaling)


def own_bias(attention: Any) -> torch.Tensor | float:
    """Return the bias of the logits that attention has already, as BEiT's, `(heads, tokens, tokens)`, or 0."""
    bias = attention.attention_bias
    return 0.0 if bias is None else bias(attention.grid_size).detach().double().cpu()


@torch.no_grad()
def set_parameters(candidate: nn.Module, values: Parameters) -> None:
    """Give a candidate these values of its own parameters."""
    parameters = dict(candidate.named_parameters())
    for name, value in values.items():
        parameters[name].copy_(value)


# The fit


@dataclass(frozen=True)
class FitSettings:
    """How a candidate is fitted: Adam with a cosine, on batches of images kept as tokens.

    Args:
        steps, batch_size, seed: of the fit.
        learning_rate: of keys and biases.
        projection_learning_rate: of the projections of query, value and output; 0 leaves them as they are.
    """

    steps: int
    batch_size: int
    learning_rate: float
    projection_learning_rate: float
    seed: int


@dataclass(frozen=True)
class Task:
    """What a mixer gets of the kept images of this process, and what it should add to its layer's tokens.

    Args:
        inputs, targets: `(images, tokens, channels)`.
        output: what a mixer adds to the layer's tokens, of the mixer and a batch of the inputs.
        weights: `(channels,)`, of the errors: a channel counts by how much of it is lost, however small it is.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    output: Callable[[nn.Module, torch.Tensor], torch.Tensor]
    weights: torch.Tensor

    def error(self, mixer: nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Return how far off a mixer is for some of the images, `(images, tokens, channels)`, weighted."""
        device = self.weights.device
        output = self.output(mixer, self.inputs[images].to(device))
        return (output - self.targets[images].to(device)) * self.weights


def fitted_parameters(candidate: nn.Module, attention: nn.Module, settings: FitSettings) -> dict[str, nn.Parameter]:
    """Return the parameters of a candidate that are fitted: its own, and the projections unless they are to stay."""
    if settings.projection_learning_rate and settings.steps:
        return dict(candidate.named_parameters())
    return own_parameters(candidate, attention)


@torch.no_grad()
def output_error(accelerator: Accelerator, candidate: nn.Module, task: Task) -> float:
    """Return what a mixer leaves unexplained of what it should add, weighted, over all processes."""
    squares = torch.zeros(2, dtype=torch.float64)
    for images in torch.arange(len(task.inputs)).split(64):
        squares[0] += task.error(candidate, images).double().square().sum().cpu()
        squares[1] += (task.targets[images] * task.weights.cpu()).double().square().sum()
    squares = accelerator.reduce(squares.to(accelerator.device, torch.float32), "sum")
    return float(squares[0] / squares[1])


def fit(
    accelerator: Accelerator,
    candidate: nn.Module,
    attention: nn.Module,
    task: Task,
    settings: FitSettings,
    report: Callable[[], None] = lambda: None,
) -> None:
    """Fit a candidate to what it should add to its layer's tokens, by the mean square of the weighted errors.

    Args:
        accelerator: whose processes each take a share of every batch; in bfloat16 where its precision is that.
        candidate: the mixer.
        attention: in whose place it is.
        task: what it gets and should give.
        settings: steps, batches, learning rates.
        report: called after each step.
    """
    own = own_parameters(candidate, attention)
    fitted = fitted_parameters(candidate, attention, settings)
    parameters = list(fitted.values())
    for name, parameter in candidate.named_parameters():
        parameter.requires_grad_(name in fitted)
    rates = {True: settings.learning_rate, False: settings.projection_learning_rate}
    groups = [{"params": [one], "lr": rates[name in own]} for name, one in fitted.items()]
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    generator = torch.Generator().manual_seed(seed_of(settings.seed, accelerator.process_index))
    share = max(1, settings.batch_size // accelerator.num_processes)
    # Small gradients would be lost in float16, which nothing scales here.
    in_bfloat16 = torch.autocast(accelerator.device.type, torch.bfloat16, enabled=accelerator.mixed_precision == "bf16")
    order = torch.empty(0, dtype=torch.long)
    for _ in range(settings.steps):
        while len(order) < share:
            order = torch.cat([order, torch.randperm(len(task.inputs), generator=generator)])
        batch, order = order[:share], order[share:]
        with in_bfloat16:
            error = task.error(candidate, batch)  # in float32: targets and weights are
        error.square().mean().backward()
        for parameter in parameters:
            gradient: Any = accelerator.reduce(parameter.grad, "mean")
            parameter.grad = gradient
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        report()
    candidate.requires_grad_(False)
