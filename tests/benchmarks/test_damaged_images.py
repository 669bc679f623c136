"""No damage of a file of any format or mode gets past the decoder but as its own exception."""

import random

import pytest

from sk_transformers.benchmarks.damaged_images import FILES, damage, decode_damaged, decode_damaged_elsewhere, render


@pytest.mark.parametrize("name", FILES)
def test_damages_are_read_or_refused(name):
    outcome = decode_damaged(name, damages=25, seed=1)
    assert not outcome.failures
    assert outcome.read + outcome.refused == 25 and outcome.refused > 0


def test_damages_are_all_different_and_always_the_same():
    content, dice = FILES["BMP"](), random.Random(0)
    damaged = [damage(content, dice) for _ in range(50)]
    assert len({*damaged, content}) > 45
    dice = random.Random(0)
    assert damaged == [damage(content, dice) for _ in range(50)]


@pytest.mark.slow
def test_a_process_that_dies_is_told_of():
    outcome = decode_damaged_elsewhere("no such file", damages=1)
    assert outcome.died and "KeyError" in outcome.failures[0]
    assert "| no such file | 1 | 0 | 0 | died |" in render([outcome])
