"""What the closed forms of a layer need of its images: sums in float64, which add up over batches and processes."""

from dataclasses import dataclass, field
from typing import Any

import torch

from ..models.attention import scale, split_heads
from ..models.attention_bias import logit_mask
from ..models.grids import neighborhoods
from ..models.rotary import rotate


@dataclass
class Moments:
    """Sums of features `f` of query positions and of their logits `l`, whose mean over a row is 0.

    Args:
        features: `sum f` over images, `(heads, queries, features)`.
        logits: `sum l` over images, `(heads, queries, keys)`.
        gram: `sum f f^T` over images and queries, `(heads, features, features)`.
        cross: `sum f l^T`, `(heads, features, keys)`.
    """

    features: torch.Tensor
    logits: torch.Tensor
    gram: torch.Tensor
    cross: torch.Tensor


@dataclass
class LayerSums:
    """Sums over images of one layer's attention.

    Args:
        images: how many.
        weights: of the attention weights, `(heads, queries, keys)`.
        keys: of the keys, `(heads, keys, head_dim)`.
        moments: by what the features are: `"query"` of all tokens, and for convolutional keys `"neighborhood"` of the
            grid's and `"class_query"` of the class tokens', if there are any.
    """

    images: int
    weights: torch.Tensor
    keys: torch.Tensor
    moments: dict[str, Moments] = field(default_factory=dict)

    def __add__(self, other: "LayerSums") -> "LayerSums":
        tensors, others = self.to_tensors(), other.to_tensors()
        return from_tensors({name: tensor + others[name] for name, tensor in tensors.items()})

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """Return all sums by names, to be saved or added up over processes."""
        tensors = {"images": torch.tensor(self.images, dtype=torch.float64), "weights": self.weights, "keys": self.keys}
        return tensors | {
            f"{kind}.{name}": tensor for kind, moments in self.moments.items() for name, tensor in vars(moments).items()
        }


def from_tensors(tensors: dict[str, torch.Tensor]) -> LayerSums:
    """Undo `LayerSums.to_tensors`."""
    kinds = dict.fromkeys(name.split(".")[0] for name in tensors if "." in name)
    names = Moments.__dataclass_fields__
    moments = {kind: Moments(**{name: tensors[f"{kind}.{name}"] for name in names}) for kind in kinds}
    return LayerSums(int(tensors["images"]), tensors["weights"], tensors["keys"], moments)


@torch.no_grad()
def layer_sums(
    mixer: Any,
    inputs: torch.Tensor,
    grid_size: tuple[int, int],
    convolutional: bool,
    teacher_inputs: torch.Tensor | None = None,
) -> LayerSums:
    """Return the sums of one batch.

    Args:
        mixer: a layer's self-attention.
        inputs: what it gets, `(batch, tokens, hidden_size)`: the queries are made of it.
        grid_size: `(height, width)` of the grid.
        convolutional: whether the sums for convolutional keys are wanted, too.
        teacher_inputs: what it gets in the untouched network, where that differs: the logits are made of it.
    """
    query, key = project(mixer, inputs, grid_size)
    seen, key = (query, key) if teacher_inputs is None else project(mixer, teacher_inputs, grid_size)
    scaled, scaling = scale(mixer, seen)
    mask = logit_mask(mixer, None, grid_size, seen)
    weights = (scaled @ key.mT * scaling + (0.0 if mask is None else mask)).softmax(dim=-1)
    logits = seen @ key.mT
    logits = logits - logits.mean(dim=-1, keepdim=True)
    moments = {"query": make_moments(query, logits)}
    if convolutional:
        first = mixer.num_class_tokens
        moments["neighborhood"] = make_moments(
            with_one(neighborhoods(query[:, :, first:], grid_size)), logits[:, :, first:]
        )
        if first:
            moments["class_query"] = make_moments(query[:, :, :first], logits[:, :, :first])
    return LayerSums(len(inputs), weights.double().sum(0).cpu(), key.double().sum(0).cpu(), moments)


def project(mixer: Any, inputs: torch.Tensor, grid_size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return query and key of a layer's self-attention, each `(batch, heads, tokens, head_dim)`.

    Rotary positions have turned both: a static key is compared with turned queries, and its own turn is a part of it.
    """
    options = mixer.options
    query, key = (split_heads(projection(inputs), options.num_heads) for projection in (mixer.q_proj, mixer.k_proj))
    if options.rope_theta is not None:
        query, key = rotate(grid_size, mixer.num_class_tokens, options.rope_theta, query, key)
    return query, key


def with_one(features: torch.Tensor) -> torch.Tensor:
    """Return the features with a one after them, whose weight is a key's bias."""
    return torch.cat([features, torch.ones_like(features[..., :1])], dim=-1)


def make_moments(features: torch.Tensor, logits: torch.Tensor) -> Moments:
    """Return the moments of a batch, `(batch, heads, queries, features)` and `(batch, heads, queries, keys)`."""
    rows, row_logits = features.transpose(0, 1).flatten(1, 2), logits.transpose(0, 1).flatten(1, 2)
    sums = (features.double().sum(0), logits.double().sum(0), rows.mT @ rows, rows.mT @ row_logits)
    return Moments(*(tensor.double().cpu() for tensor in sums))
