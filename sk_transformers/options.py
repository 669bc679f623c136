"""Options as fields of dataclasses: type, default, rule and help of each stand in one place.

A dataclass is a group of options. Python code makes one by its constructor, a command line by `add_options` and
`read_options`; the name of a field is the name of its option.
"""

import argparse
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, field, fields
from typing import Any, ClassVar, Protocol, TypeVar


class Dataclass(Protocol):
    """What every dataclass is."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


Group = TypeVar("Group", bound=Dataclass)


def option(default: Any = MISSING, help: str = "", **settings: Any) -> Any:
    """Return a field of a dataclass that is an option of the command line, too.

    Args:
        default: its value where none is given; an option without one is required.
        help: its line of `--help`, to which the default is added.
        settings: more of what `add_argument` takes, such as `type`, `choices` and `nargs`.
    """
    if isinstance(default, bool):  # --name and --no-name, so that the command line can undo a recipe
        settings["action"] = argparse.BooleanOptionalAction
    metadata = {"help": help.replace("%", "%%"), **settings}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def add_options(
    parser: argparse.ArgumentParser,
    group: type[Dataclass],
    title: str,
    defaults: Mapping[str, Any] | None = None,
    hidden: Collection[str] = (),
) -> None:
    """Add the options of a group to a parser, under a title of their own in `--help`.

    Args:
        parser: of a command.
        group: a dataclass of options.
        title: of the group.
        defaults: values of options where none is given, in place of the group's.
        hidden: names of options that `--help` leaves out.
    """
    section = parser.add_argument_group(title)
    for member in fields(group):
        default = (defaults or {}).get(member.name, _default(member))
        help = argparse.SUPPRESS if member.name in hidden else _help(member.metadata["help"], default)
        section.add_argument(f"--{member.name}", default=default, **{**member.metadata, "help": help})


def _help(text: str, default: Any) -> str:
    """Return an option's line of `--help`, with the default where there is one and no flag to say it."""
    if default in (None, "", []) or isinstance(default, bool):
        return text
    return f"{text} (default: {' '.join(map(str, default)) if isinstance(default, list) else default})".strip()


def read_options(group: type[Group], args: argparse.Namespace) -> Group:
    """Return the group with the values that a parser read; ValueError if one that is required is missing."""
    values = {member.name: getattr(args, member.name) for member in fields(group)}
    for member in fields(group):
        if values[member.name] is None and _default(member, required := object()) is required:
            raise ValueError(f"--{member.name} is missing.")
    return group(**values)


def _default(member: Field, required: Any = None) -> Any:
    if member.default_factory is not MISSING:
        return member.default_factory()
    return required if member.default is MISSING else member.default


# Rules, each the `type` of an option


def number(kind: type[int] | type[float], name: str, fits: Callable[[float], bool]) -> Callable[[str], Any]:
    """Return a function that reads a number for which `fits` is true, and else says that the text is not `name`."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not fits(value):
            raise argparse.ArgumentTypeError(f"{text} is not {name}")
        return value

    return read


def image_size(text: str) -> int | list[int]:
    """Return the pixels of images: `"224"` as one number, `"352x480"` as height and width."""
    try:
        sides = [int(side) for side in text.split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of pixels, at least 1, nor HEIGHTxWIDTH")
    return sides[0] if len(sides) == 1 else sides


positive_int = number(int, "a whole number of at least 1", lambda value: value >= 1)
non_negative_int = number(int, "a whole number of at least 0", lambda value: value >= 0)
positive = number(float, "a number greater than 0", lambda value: value > 0)
non_negative = number(float, "a number of at least 0", lambda value: value >= 0)
fraction = number(float, "a fraction between 0 and 1", lambda value: 0 <= value <= 1)
proper_fraction = number(float, "a fraction greater than 0 and less than 1", lambda value: 0 < value < 1)
