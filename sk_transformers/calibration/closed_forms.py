"""What stands in for a layer's attention, in closed form: functions of sums over images (`statistics.py`).

Attention of one head is `softmax(s * (q @ k.T)) @ v`, of logits `l = q @ k.T` and their scale `s`. What replaces it is
`softmax(s * (f @ K.T) + B) @ v`, of features `f` of the query: the query itself for a static key, its 3x3 neighborhood
and a one for a convolutional one, nothing for a static map. Key and bias are the ridge regression of the logits on the
features, over images and query positions. Softmax does not see a constant of a row: the logits of a row have their mean
taken off throughout.
"""

import torch

RIDGE = 1e-3  # of the mean square of a feature
LEAST_WEIGHT = 1e-12  # whose logarithm stands in for that of 0


def static_map(weights: torch.Tensor, images: int) -> torch.Tensor:
    """Return the bias `B = log E[A]`, `(heads, queries, keys)`, of the sum of attention weights over images."""
    return (weights / images).clamp(min=LEAST_WEIGHT).log()


def least_squares_key(gram: torch.Tensor, cross: torch.Tensor, ridge: float = RIDGE) -> torch.Tensor:
    """Return the key that predicts logits best, `(heads, keys, features)`.

    Args:
        gram: `sum f f^T` over images and query positions, `(heads, features, features)`.
        cross: `sum f l^T`, `(heads, features, keys)`.
        ridge: added to the diagonal, as a fraction of its mean.
    """
    return ridge_solve(gram, cross, ridge * mean_diagonal(gram))


def least_squares_key_and_bias(
    gram: torch.Tensor,
    cross: torch.Tensor,
    features: torch.Tensor,
    logits: torch.Tensor,
    images: int,
    ridge: float = RIDGE,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return key `(heads, keys, features)` and bias `(heads, queries, keys)` that together predict logits best.

    The bias of a query position takes up what logits are on average there; the key is the regression of how both differ
    from their averages, the ridge that of `least_squares_key`.

    Args:
        gram, cross, ridge: as of `least_squares_key`.
        features: `sum f` over images, `(heads, queries, features)`.
        logits: `sum l` over images, `(heads, queries, keys)`.
        images: how many were added up.
    """
    key = ridge_solve(
        gram - features.mT @ features / images,
        cross - features.mT @ logits / images,
        ridge * mean_diagonal(gram),
    )
    return key, (logits - features @ key.mT) / images


def mean_diagonal(matrices: torch.Tensor) -> torch.Tensor:
    """Return the mean of the diagonal of each matrix, `(..., 1, 1)`."""
    return matrices.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]


def ridge_solve(gram: torch.Tensor, cross: torch.Tensor, ridge: torch.Tensor) -> torch.Tensor:
    """Return `((gram + ridge I)^-1 cross)^T`, by Cholesky: an LU of hundreds of features failed on some machines."""
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return torch.cholesky_solve(cross, torch.linalg.cholesky(gram + ridge * identity)).mT
