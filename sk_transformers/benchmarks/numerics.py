"""The mixers on a device beside the reference in float64: how far their outputs and gradients are, by which kernel."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from ..models.attention_options import AttentionOptions
from ..models.token_mixers import build_token_mixer

# The largest error that is no fault, over the norm of what is right.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}
GRID, WIDTH, HEADS, BATCH = (14, 14), 128, 4, 4
MIXERS: dict[str, tuple[str, dict[str, Any]]] = {
    "attention": ("attention", {}),
    "attention, full bias": ("attention", {"attention_bias": "full"}),
    "SKA": ("static_key", {}),
    "SKA, full bias": ("static_key", {"attention_bias": "full"}),
    "SKA, masked diagonal": ("static_key", {"mask_diagonal": True}),
    "CSKA": ("conv_static_key", {}),
    "CSKA, full bias": ("conv_static_key", {"attention_bias": "full"}),
    "static map": ("static_map", {}),
    "convolved key": ("conv_key", {}),
}
KERNELS = (
    "TritonConvStaticKey",
    "tiled_attention",
    "_scaled_dot_product_",
)  # in the names of the operators that are kernels


@dataclass(frozen=True)
class Check:
    """A mixer in a dtype: relative errors beside float64, and the kernel of its forward pass."""

    mixer: str
    dtype: str
    kernel: str
    output_error: float
    input_gradient_error: float
    parameter_gradient_error: float  # of the worst parameter
    tolerance: float

    @property
    def is_right(self) -> bool:
        """Whether no error is over the tolerance; an error that is not a number is."""
        errors = (self.output_error, self.input_gradient_error, self.parameter_gradient_error)
        return all(error <= self.tolerance for error in errors)


def check_mixers(device: torch.device, names: Sequence[str] = tuple(MIXERS)) -> Iterator[Check]:
    """Yield a check of each mixer in each dtype, float32 without TF32."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        for name in names:
            for dtype in TOLERANCES:
                yield check_mixer(name, dtype, device)
    finally:
        torch.set_float32_matmul_precision(precision)


def check_mixer(name: str, dtype: torch.dtype, device: torch.device) -> Check:
    """Return the errors of a mixer, whose parameters and tokens are rounded to the dtype before both ways take them."""
    torch.manual_seed(0)
    mixer = make_mixer(name).to(dtype)
    tokens, cotangent = (torch.randn(BATCH, GRID[0] * GRID[1], WIDTH).to(dtype) for _ in range(2))
    exact = run(copy.deepcopy(mixer).double(), tokens.double(), cotangent.double(), "eager")
    mixer, tokens, cotangent = mixer.to(device), tokens.to(device), cotangent.to(device)
    output, input_gradient, *gradients = map(relative_error, run(mixer, tokens, cotangent, "sdpa"), exact)
    return Check(
        name,
        str(dtype).removeprefix("torch."),
        kernel_of(mixer, tokens),
        output,
        input_gradient,
        max(gradients),
        TOLERANCES[dtype],
    )


def make_mixer(name: str) -> nn.Module:
    """Return a mixer of `MIXERS` with all of its parameters drawn."""
    kind, fields = MIXERS[name]
    mixer = build_token_mixer(kind, AttentionOptions(WIDTH, GRID, HEADS, WIDTH // HEADS, **fields))
    for parameter_name, parameter in mixer.named_parameters():
        if "proj" not in parameter_name:  # keys and biases, which a network would draw
            nn.init.normal_(parameter, std=0.5)
    return mixer


def run(mixer: nn.Module, tokens: torch.Tensor, cotangent: torch.Tensor, implementation: str) -> list[torch.Tensor]:
    """Return a mixer's output, and the gradients of its tokens and of each parameter."""
    tokens = tokens.requires_grad_()
    output = mixer(tokens, implementation=implementation)[0]
    return [output.detach(), *torch.autograd.grad(output, [tokens, *mixer.parameters()], cotangent)]


def relative_error(value: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the norm of a difference over that of what is right."""
    return float((value.cpu().double() - exact).norm() / exact.norm())


def kernel_of(mixer: nn.Module, tokens: torch.Tensor) -> str:
    """Return the operator that attends in a forward pass with gradients, or "products" where there is no kernel."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        mixer(tokens, implementation="sdpa")
    operators = [event.key.split("::")[-1] for event in profiler.key_averages()]
    return next((operator for operator in operators if any(part in operator for part in KERNELS)), "products")


def to_table(checks: Sequence[Check]) -> str:
    """Return Markdown: a row for each check."""
    lines = [
        "| mixer | dtype | kernel | output | tokens' gradient | parameters' gradients | |",
        "| --- | --- | --- | ---: | ---: | ---: | --- |",
    ]
    for check in checks:
        errors = (check.output_error, check.input_gradient_error, check.parameter_gradient_error)
        verdict = "right" if check.is_right else f"**wrong**: over {check.tolerance:.0e}"
        cells = [check.mixer, check.dtype, check.kernel, *(f"{error:.1e}" for error in errors), verdict]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
