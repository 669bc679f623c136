"""How time, memory and multiply-adds are measured."""

import pytest
import torch
from torch import nn

from sk_transformers import create_model
from sk_transformers.benchmarks.measure import (
    count_module_macs,
    median_ratio,
    peak_memory,
    time_interleaved,
    training_work,
)


def test_peak_memory_is_what_is_held_at_once():
    numbers = torch.ones(2**20)
    assert peak_memory(lambda: (numbers * 2) * 2) == pytest.approx(2 * numbers.nbytes, rel=0.01)
    assert peak_memory(lambda: numbers.mul_(2)) == pytest.approx(0, abs=1000)


def test_works_are_interleaved():
    ticks, order = iter(range(100)), []
    works = [lambda: order.append("a"), lambda: order.append("b") or next(ticks)]
    seconds = time_interleaved(works, rounds=3, clock=lambda: next(ticks))
    assert order == ["a", "b"] * 4  # the first round does not count
    assert seconds == [[1] * 3, [2] * 3]


def test_a_ratio_is_of_the_same_round():
    assert median_ratio([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == 2.0


def test_macs_of_attention_and_convolution():
    class Attention(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x)

    assert count_module_macs(Attention(), torch.randn(2, 3, 7, 5)) == 2 * 2 * 3 * 7 * 7 * 5
    assert count_module_macs(nn.Conv2d(4, 6, 3, padding=1, groups=2), torch.randn(1, 4, 5, 5)) == 6 * 25 * 2 * 9


def test_training_is_a_full_step():
    torch.manual_seed(0)
    model = create_model("skvit-nano-patch4-32", num_labels=1000)
    before = {name: p.clone() for name, p in model.named_parameters()}
    training_work(model, torch.randn(2, 3, 32, 32), torch.float32)()
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())
