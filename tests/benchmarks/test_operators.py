"""Time by groups of operators."""

import pytest
import torch
from torch import nn

from sk_transformers.benchmarks.operators import OPERATORS, group_of, time_by_operator, to_table


def test_every_operator_is_in_a_group():
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 5), nn.GELU(), nn.LayerNorm(5))
    images = torch.randn(2, 3, 8, 8)

    def work():
        with torch.no_grad():
            layers(images).softmax(-1)

    spent = time_by_operator(work, rounds=2)
    used = {
        "matrix products",
        "convolutions",
        "norms",
        "softmax, exponentials",
        "activations, sums, scales",
        "the rest",
    }
    assert {group for group, milliseconds in spent.items() if milliseconds > 0} >= used
    assert spent["attention kernels"] == 0


def test_columns_add_up():
    times = {"ours": dict.fromkeys(OPERATORS, 1.0) | {"the rest": 2.0}, "baseline": dict.fromkeys(OPERATORS, 10.0)}
    *_, last = to_table(times).splitlines()
    assert [float(cell) for cell in last.split("|")[2:-1]] == [pytest.approx(len(OPERATORS) + 2), 10 * len(OPERATORS)]


@pytest.mark.parametrize(
    ("operator", "group"),
    [
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention kernels"),
        ("aten::addmm", "matrix products"),
        ("aten::addcmul_", "activations, sums, scales"),
        ("aten::_softmax", "softmax, exponentials"),
        ("aten::empty", "the rest"),
    ],
)
def test_groups(operator, group):
    assert group_of(operator) == group
