"""Imports inside the package run one way: down its floors, and never in a circle.

The floors are a list, from the ground up. A package may import what is on its own floor or below, wherever the import
stands in a file: at the top, in a function, or for type checkers alone.
"""

import ast
from pathlib import Path

import pytest

import sk_transformers

ROOT = Path(sk_transformers.__file__).parent
FLOORS = [
    {"version", "models", "errors", "files", "options", "recipes"},
    {
        *("zoo", "complexity", "registration", "registration_hook", "image_processing", "provenance", "devices"),
        "triton_kernel",
    },
    {"pretrained"},
    {"hub", "conversion", "data"},
    {"evaluation"},
    {"training"},
    {"calibration"},
    {"benchmarks", "demo", "explanation"},
    {"cli"},
]
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}


def modules():
    """Return the source files of the package by their dotted names, without the package's own."""
    names = {}
    for file in sorted(ROOT.rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return names


MODULES = modules()


def imports(name, at_import_time=False):
    """Yield the line and the dotted name of what a module of the package imports from it.

    `at_import_time` leaves out what functions and type checkers import.
    """
    file = MODULES[name]
    package = name.split(".") if file.stem == "__init__" else name.split(".")[:-1]
    package = [part for part in package if part]
    for node in nodes(ast.parse(file.read_text(encoding="utf-8")), at_import_time):
        if isinstance(node, ast.Import):
            targets = [
                alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("sk_transformers.")
            ]
        elif isinstance(node, ast.ImportFrom) and node.level:
            assert node.level <= len(package) + 1, f"{file}:{node.lineno} imports from outside the package"
            targets = from_targets(node, [*package[: len(package) - node.level + 1]])
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sk_transformers":
            targets = from_targets(ast.ImportFrom(node.module.partition(".")[2], node.names, 0), [])
        else:
            continue
        for target in targets:
            yield node.lineno, target


def from_targets(node, start):
    base = ".".join([*start, *filter(None, (node.module or "").split("."))])
    inside = [f"{base}.{alias.name}".strip(".") for alias in node.names]
    return [full if full in MODULES else base for full in inside]


def nodes(tree, at_import_time):
    for child in ast.iter_child_nodes(tree):
        if at_import_time and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if at_import_time and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from nodes(child, at_import_time)


def room(name):
    return name.partition(".")[0]


def test_every_file_has_a_floor():
    assert {room(name) for name in MODULES} - {""} == set(FLOOR_OF)


@pytest.mark.parametrize("name", MODULES)
def test_no_import_runs_up(name):
    if name == "":  # the package's face shows what is inside
        return
    for line, target in imports(name):
        assert target, f"{MODULES[name]}:{line} imports the package's face, which is above it"
        up = FLOOR_OF[room(target)] > FLOOR_OF[room(name)]
        assert not up, f"{MODULES[name]}:{line}: {room(name)} imports {target}, which is above it"


def test_rooms_of_one_floor_import_in_one_direction():
    arrows = {room(name): set() for name in MODULES}
    for name in MODULES:
        arrows[room(name)] |= {room(target) for _, target in imports(name)} - {room(name)}
    assert circle(arrows) is None


@pytest.mark.slow
def test_no_modules_import_each_other_while_they_are_imported():
    arrows = {name: {target for _, target in imports(name, at_import_time=True)} - {name} for name in MODULES}
    assert circle(arrows) is None


def circle(arrows):
    """Return names of a circle in a graph of names, or None."""
    done = set()

    def visit(name, path):
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in done:
            for target in sorted(arrows.get(name, ())):
                if found := visit(target, [*path, name]):
                    return found
            done.add(name)
        return None

    return next((found for name in sorted(arrows) if (found := visit(name, []))), None)


def test_circles_are_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


def test_imports_are_read():
    assert "data.options" in {target for _, target in imports("cli.evaluate")}
    assert "evaluation.run" in {target for _, target in imports("cli.evaluate")}  # in a function
    assert "evaluation.run" not in {target for _, target in imports("cli.evaluate", at_import_time=True)}
    assert "zoo" in {target for _, target in imports("")}
