"""Time by the kind of operator."""

import pytest
import torch
from torch import nn

from sk_transformers.benchmarks.operators import KINDS, time_by_kind, to_table


def test_every_operator_is_of_one_kind():
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 5), nn.GELU(), nn.LayerNorm(5))
    images = torch.randn(2, 3, 8, 8)

    def work():
        with torch.no_grad():
            layers(images).softmax(-1)

    spent = time_by_kind(work, rounds=2)
    used = {
        "matrix products",
        "convolutions",
        "norms",
        "softmax, exponentials",
        "activations, sums, scales",
        "the rest",
    }
    assert {kind for kind, milliseconds in spent.items() if milliseconds > 0} >= used
    assert spent["attention kernels"] == 0


def test_columns_add_up():
    times = {"ours": dict.fromkeys(KINDS, 1.0) | {"the rest": 2.0}, "peer": dict.fromkeys(KINDS, 10.0)}
    *_, last = to_table(times).splitlines()
    assert [float(cell) for cell in last.split("|")[2:-1]] == [pytest.approx(len(KINDS) + 2), 10 * len(KINDS)]
