"""Whether the Python files of a repo keep to themselves, as its card says: no files, no network, no pickle.

It reads what the code names and runs nothing. It keeps an author from a promise that is not kept, and is no defence
against one who means harm.
"""

import ast

ALLOWED_IMPORTS = {
    "PIL", "__future__", "abc", "base64", "binascii", "collections", "contextlib", "copy", "dataclasses", "decoding",
    "difflib", "enum", "functools", "io", "itertools", "math", "numbers", "operator", "os.environ", "pillow_heif", "re",
    "string", "torch", "torchvision", "transformers", "typing", "warnings",
}  # fmt: skip  # decoding is a sibling of handler.py, pillow_heif its option, and detectors are made by torchvision
FORBIDDEN_NAMES = {
    "__import__", "compile", "eval", "exec", "io.open", "io.open_code", "open", "torch.hub", "torch.load", "torch.save",
    "transformers.utils.hub",
}  # fmt: skip


def find_violation(code: str) -> str | None:
    """Return the first thing in a Python file that reaches beyond torch and the file's siblings, or None.

    Returns:
        Such as `"line 3 imports pickle"` or `"line 7 uses open"`.

    Raises:
        SyntaxError: if it is not Python.
    """
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in imported_names(node):
                if not ALLOWED_IMPORTS.intersection((name, name.split(".")[0])) or is_forbidden(name):
                    return f"line {node.lineno} imports {name}"
        elif isinstance(node, ast.Name | ast.Attribute) and is_forbidden(ast.unparse(node)):
            return f"line {node.lineno} uses {ast.unparse(node)}"
    return None


def imported_names(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Return what an import names, in full; siblings, which are checked themselves, left out."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [] if node.level else [f"{node.module}.{alias.name}" for alias in node.names]


def is_forbidden(name: str) -> bool:
    """Return whether a dotted name is, or lies in, a forbidden one."""
    return any(name == other or name.startswith(f"{other}.") for other in FORBIDDEN_NAMES)
