"""Dataclasses as options of a command line: their defaults, types, rules, and what is said of wrong values."""

import argparse
from dataclasses import dataclass

import pytest

from sk_transformers.options import (
    add_options,
    fraction,
    image_size,
    non_negative,
    non_negative_int,
    option,
    positive,
    positive_int,
    proper_fraction,
    read_options,
)


@dataclass
class Options:
    name: str = option(help="required")
    rate: float = option(0.5, "100% is 1", type=fraction)
    sizes: list[int] = option([1, 2], "some sizes", type=positive_int, nargs="+")
    fast: bool = option(False, "a switch")
    note: str | None = option(None, "a note")


def parse(*argv):
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser, Options, "test")
    return read_options(Options, parser.parse_args(argv)), parser


def test_a_group_is_the_same_from_python_and_the_command_line():
    assert parse("--name", "x")[0] == Options("x") == Options("x", 0.5, [1, 2], False, None)
    given = ["--name", "x", "--rate", "0.25", "--sizes", "3", "4", "5", "--fast", "--note", "n"]
    assert parse(*given)[0] == Options("x", 0.25, [3, 4, 5], True, "n")
    assert parse("--name", "x", "--fast", "--no-fast")[0].fast is False
    assert Options("x").sizes is not Options("x").sizes


def test_a_required_option_is_missed():
    with pytest.raises(ValueError, match="--name is missing"):
        parse("--rate", "0.1")


def test_help_tells_the_defaults():
    text = " ".join(parse("--name", "x")[1].format_help().split())
    assert "100% is 1 (default: 0.5)" in text and "some sizes (default: 1 2)" in text and "a note" in text
    assert "None" not in text


@pytest.mark.parametrize(
    ("rule", "right", "wrong", "name"),
    [
        (positive_int, ["1", "30"], ["0", "-1", "1.5", "x", "nan"], "a whole number of at least 1"),
        (non_negative_int, ["0", "7"], ["-1", "0.5", ""], "a whole number of at least 0"),
        (positive, ["1e-8", "3", "inf"], ["0", "-1", "x", "nan"], "a number greater than 0"),
        (non_negative, ["0", "2.5"], ["-1e-9", "nan"], "a number of at least 0"),
        (fraction, ["0", "0.5", "1"], ["-0.1", "1.1", "nan", "half"], "a fraction between 0 and 1"),
        (proper_fraction, ["0.5"], ["0", "1"], "a fraction greater than 0 and less than 1"),
    ],
)
def test_rules(rule, right, wrong, name):
    for text in right:
        assert rule(text) == float(text)
    for text in wrong:
        with pytest.raises(argparse.ArgumentTypeError, match=f"^{text} is not {name}$"):
            rule(text)


def test_a_value_against_its_rule_is_named_with_its_option():
    with pytest.raises(argparse.ArgumentError, match="argument --rate: 2 is not a fraction between 0 and 1"):
        parse("--name", "x", "--rate", "2")


def test_sizes_of_images():
    assert image_size("224") == 224 and image_size("352x480") == [352, 480]
    for wrong in ("abc", "0", "8x0", "1x2x3", "800x"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"^{wrong} is not a number of pixels, at least 1, nor"):
            image_size(wrong)
