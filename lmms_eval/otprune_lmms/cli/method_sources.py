"""What the built-in methods say of themselves, read from their source: nothing is imported.

Importing them takes the two seconds of torch. The registry's dict of methods is the one list of
them, here read as text.
"""

import ast
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_REGISTRY = "otprune.registry"
_DICT = "_BUILT_IN"

KINDS = {"selectors": "selector", "mergers": "merger", "layer_pruners": "layer pruner"}
"""Kinds of methods by the subpackage that they are in."""

# An arXiv id, or who and when, as in "Source: Gonzalez 1985, ...".
_SOURCE = re.compile(
    r"^Source: (?:[^\n]{,60}?(arXiv \d{4}\.\d{4,5}(?:v\d+)?)|([^\n]{,60}?\d{4}\b))", re.M
)


def paper_of(text: str) -> str:
    """Return the paper that a method's docstring names, as "arXiv ID" or who and when.

    Args:
        text: the docstring, its indentation removed.

    Returns:
        "" where it names none.
    """
    found = _SOURCE.search(text)
    return (found[1] or found[2]) if found else ""


@dataclass(frozen=True, slots=True)
class MethodSource:
    """A built-in method.

    Attributes:
        name: its name in the registry.
        kind: one of `KINDS`.
        text: the docstring of its class.
        path: of its class, as "otprune.selectors.otprune.OTPrune".
    """

    name: str
    kind: str
    text: str
    path: str


def built_in_methods() -> list[MethodSource]:
    """Return the methods of the installed otprune package, in the registry's order.

    Raises:
        ModuleNotFoundError: the package is not installed.
        ValueError: its source is not as it is read here, or is not there.
    """
    tree = _tree(_REGISTRY)
    modules = {
        alias.asname or alias.name: node.module or ""
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    found = []
    for name, cls in _entries(tree):
        module = modules.get(cls, "")
        text = next(
            (
                ast.get_docstring(node)
                for node in _tree(module).body
                if isinstance(node, ast.ClassDef) and node.name == cls
            ),
            None,
        )
        kind = KINDS.get(module.split(".")[-2])
        if text is None or kind is None:
            raise ValueError(f"{module} must have a class {cls} with a docstring")
        found.append(MethodSource(name, kind, text, f"{module}.{cls}"))
    return found


def _entries(tree: ast.Module) -> list[tuple[str, str]]:
    """Return the names of methods and of their classes, as the registry's dict has them."""
    for node in tree.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.value, ast.Dict):
            continue
        if isinstance(node.target, ast.Name) and node.target.id == _DICT:
            pairs = zip(node.value.keys, node.value.values, strict=True)
            return [
                (str(key.value), value.id)
                for key, value in pairs
                if isinstance(key, ast.Constant) and isinstance(value, ast.Name)
            ]
    raise ValueError(f"{_REGISTRY} must have a dict {_DICT}")


def _tree(module: str) -> ast.Module:
    top, *parts = module.split(".")
    spec = find_spec(top)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {top!r}", name=top)
    path = Path(spec.origin).parent.joinpath(*parts).with_suffix(".py")
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
