"""Sigma reparametrization: weights whose spectral norm is a trained number.

A linear map `W` is trained as `gamma / sigma(W) * W`, where sigma is its largest singular value and gamma a scalar. It
keeps the entropy of attention from collapsing. Source: "Stabilizing Transformer Training by Preventing Attention
Entropy Collapse", Zhai et al., arXiv 2303.06296. Here gamma starts as sigma, so that nothing changes at the start, of
fresh weights as of trained ones; a static key has one gamma a head, a grouped convolution one a group. At the end all
of it is folded into plain weights.

Sigma is followed by one power iteration a step. The paper's code makes it in each forward pass; here the pass makes it
without keeping it, and `advance` keeps it once a step, so that gradient checkpointing and accumulation, and a run that
is resumed, see the same numbers. (torch's own `spectral_norm` has no gamma, takes one norm of all heads or groups, and
moves on in each pass.)
"""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatch

import torch
from torch import nn
from torch.nn.utils import parametrize

FIRST_ITERATIONS = 50  # from a random start
HEAD = "classifier"  # which is left alone, unless it is named


class SpectralReparam(nn.Module):
    """What makes a weight of the tensor that is trained in its place.

    Args:
        weight: it starts from, `(..., out, in)` after `as_matrices`.
        groups: of a convolution, each with a gamma of its own.
    """

    gamma: nn.Parameter
    u: torch.Tensor

    def __init__(self, weight: torch.Tensor, groups: int = 1):
        super().__init__()
        self.groups = groups
        matrices = self.as_matrices(weight.detach())
        generator = torch.Generator().manual_seed(0)
        u = torch.randn(len(matrices), matrices.shape[2], generator=generator).to(matrices)
        for _ in range(FIRST_ITERATIONS):
            _, u = iterate(matrices, u)
        self.register_buffer("u", u)  # an estimate of the right singular vector of each matrix
        self.gamma = nn.Parameter(self.sigma(matrices))

    def as_matrices(self, weight: torch.Tensor) -> torch.Tensor:
        """Return `(matrices, out, in)`: of a static key one a head, of a grouped convolution one a group."""
        if weight.dim() == 3:
            return weight
        return weight.flatten(1).unflatten(0, (self.groups, -1))

    def sigma(self, matrices: torch.Tensor) -> torch.Tensor:
        """Return the estimate of the largest singular value of each matrix, differentiable in the matrices alone."""
        v, u = iterate(matrices.detach(), self.u)
        return torch.einsum("mo,moi,mi->m", v, matrices, u)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight with gamma as its spectral norm, in float32 also under autocast."""
        with torch.autocast(weight.device.type, enabled=False):
            matrices = self.as_matrices(weight)
            factors = self.gamma / self.sigma(matrices)
            return (matrices * factors[:, None, None]).view_as(weight)

    @torch.no_grad()
    def advance(self, weight: torch.Tensor) -> None:
        """Keep the power iteration that the last pass made."""
        self.u.copy_(iterate(self.as_matrices(weight), self.u)[1])


def iterate(matrices: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return left and right singular vectors of matrices `(m, out, in)` after a power iteration from `u` `(m, in)`."""
    v = nn.functional.normalize(torch.einsum("moi,mi->mo", matrices, u), dim=1)
    return v, nn.functional.normalize(torch.einsum("moi,mo->mi", matrices, v), dim=1)


def add_spectral_reparam(model: nn.Module, patterns: Sequence[str]) -> None:
    """Reparametrize weights of linear layers and convolutions, and static keys.

    Args:
        model: with the weights that training starts from.
        patterns: of names of modules, as `"*mlp*"`; without one, all but the classifier's.

    Raises:
        ValueError: if a pattern fits none, or a weight is zero.
    """
    places = list(reparametrizable(model))
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name, *_ in places):
            example = places[len(places) // 2][0] if places else "none"
            raise ValueError(
                f"--spectral_reparam {pattern}: no linear layer, convolution or static key is called so; they have"
                f" names such as {example}."
            )
    for name, module, leaf, groups in places:
        wanted = any(fnmatch(name, pattern) for pattern in patterns) if patterns else HEAD not in name.split(".")[0]
        if not wanted:
            continue
        weight = module.get_parameter(leaf)
        reparam = SpectralReparam(weight, groups)
        if not bool((reparam.gamma > 0).all()):
            raise ValueError(f"--spectral_reparam: {name}.{leaf} has a part that is zero, and so no direction to keep.")
        parametrize.register_parametrization(module, leaf, reparam)


def reparametrizable(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, int]]:
    """Yield name, module, name of the parameter and groups of each weight that may be reparametrized."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            yield name, module, "weight", 1
        elif isinstance(module, nn.Conv2d):
            yield name, module, "weight", module.groups
        elif isinstance(getattr(module, "key", None), nn.Parameter):
            yield name, module, "key", 1


def advance(model: nn.Module) -> None:
    """Let each estimate of a singular vector go on by an iteration; once a step, before the weights change."""
    for module in model.modules():
        if isinstance(module, parametrize.ParametrizationList):
            for reparam in module:
                if isinstance(reparam, SpectralReparam):
                    reparam.advance(module.original)


def fold(model: nn.Module) -> None:
    """Make plain weights of what was reparametrized, of the same values."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for leaf in list(module.parametrizations):  # pyright: ignore[reportArgumentType]
                parametrize.remove_parametrizations(module, leaf, leave_parametrized=True)
