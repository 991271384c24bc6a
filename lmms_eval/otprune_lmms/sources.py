"""Hashes of source code, by which answers and scores of other code are told apart.

A hash covers the text of modules and of what they import, as far as it is in given packages. Where
a module lies, its time stamps and its line ends do not count; comments do.
"""

import ast
import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache, lru_cache
from importlib.util import find_spec, resolve_name
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

METHODS = "otprune"
"""The package that every method builds on."""


@cache
def class_hash(cls: type) -> str:
    """Return SHA-256, as hex, over the source of a class and of the modules that it uses.

    These are the modules of the class and its bases with all that they import from their own
    top-level package, from the folder of a script, or from `METHODS`. A class without a file (of a
    notebook) enters by its functions' bytecode, with the functions that these name. Computed once
    for each class: about 10 ms.
    """
    bases = [one for one in cls.__mro__ if one is not object]
    packages = {_top(cls.__module__), METHODS}
    own = [one for one in bases if _top(one.__module__) in packages]
    total = hashlib.sha256(source_hash([one.__module__ for one in own], packages).encode())
    for one in own:
        if _file(one.__module__) is None:
            total.update(repr(list(_compiled(one, set()))).encode())
    return total.hexdigest()


def source_hash(
    modules: Iterable[str], packages: Collection[str], without: tuple[str, ...] = ()
) -> str:
    """Return SHA-256, as hex, over the source of modules and of all that they import.

    Args:
        modules: names of modules.
        packages: top-level packages whose modules are followed; what a module without a package
            imports from its own folder is followed too.
        without: packages whose modules are left out.
    """
    found: dict[str, str] = {}
    rest = list(modules)
    while rest:
        name = rest.pop()
        file = _file(name)
        if name in found or file is None or _within(name, without):
            continue
        content = _content(file)
        found[name] = hashlib.sha256(content).hexdigest()
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        # A module that runs as a script (python -m) is called __main__, and is in a package still.
        package = package or getattr(sys.modules.get(name), "__package__", None) or ""
        beside = _folder_beside(name, file)
        for one in map(_resolved, _imports(content, package)):
            if _top(one) in packages or (beside is not None and _lies_in(one, beside)):
                rest.append(one)
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()


def modules_of(functions: Iterable[Callable[..., Any]]) -> list[str]:
    """Return the names of the modules that functions are from, each once."""
    plain = [getattr(one, "func", one) for one in functions]
    return sorted({one.__module__ for one in plain})


def function_hash(functions: Iterable[Callable[..., Any]]) -> str:
    """Return SHA-256, as hex, over the files of functions and what they import from beside them.

    For functions that were loaded from a file by its path, as those of a task's folder.
    """
    found: dict[Path, tuple[str, str]] = {}
    codes = [getattr(inspect.unwrap(getattr(f, "func", f)), "__code__", None) for f in functions]
    rest = [Path(code.co_filename) for code in codes if code is not None]
    while rest:
        file = rest.pop()
        if file in found or not file.is_file():
            continue
        content = _content(file)
        found[file] = file.name, hashlib.sha256(content).hexdigest()
        names = {part for one in _imports(content, "here") for part in one if part}
        rest += [file.with_name(f"{name.rpartition('.')[2]}.py") for name in names]
    return hashlib.sha256(repr(sorted(found.values())).encode()).hexdigest()


def _content(file: Path) -> bytes:
    return file.read_bytes().replace(b"\r\n", b"\n")


def _top(module: str) -> str:
    return module.partition(".")[0]


def _within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == one or module.startswith(f"{one}.") for one in packages)


def _file(module: str) -> Path | None:
    """Return a module's source file; None without one."""
    loaded = sys.modules.get(module)
    name = getattr(loaded, "__file__", None)
    if loaded is None:
        try:
            spec = find_spec(module)
        except (ImportError, ValueError, AttributeError):
            return None
        name = None if spec is None else spec.origin
    path = None if name is None else Path(name)
    return path if path is not None and path.suffix == ".py" and path.is_file() else None


def _folder_beside(module: str, file: Path) -> Path | None:
    """Return the folder whose modules belong to a script; None for a module of a package."""
    if "." in module or file.name == "__init__.py" or file.parent in _libraries():
        return None
    return file.parent


@cache
def _libraries() -> frozenset[Path]:
    """Return the folders in which modules of different packages lie side by side."""
    return frozenset(Path(sysconfig.get_path(one)) for one in ("purelib", "platlib", "stdlib"))


def _lies_in(module: str, folder: Path) -> bool:
    file = _file(_top(module))
    return file is not None and folder in (file.parent, file.parent.parent)


_Import = tuple[str, str]
"""Absolute name of a module, and a name that is imported from it; "" for the module itself."""


@lru_cache(maxsize=4096)
def _imports(content: bytes, package: str) -> tuple[_Import, ...]:
    """Return what a module's source imports; ``package`` is where its relative imports start."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return ()
    found: list[_Import] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(one.name, "") for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            try:
                name = resolve_name(relative, package)
            except ImportError:
                continue
            found += [(name, "" if one.name == "*" else one.name) for one in node.names]
    return tuple(found)


def _resolved(one: _Import) -> str:
    """Return the module that an imported name is from, not a package that only passes it on."""
    module, name = one
    if not name:
        return module
    value = getattr(sys.modules.get(module), name, None)
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, type | FunctionType) and _top(value.__module__) == _top(module):
        return value.__module__
    inner = f"{module}.{name}"
    return inner if value is None and _file(inner) is not None else module


def _compiled(value: Any, seen: set[int]) -> Iterator[Any]:
    """Yield what decides how a class or function behaves, with the functions that it names."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, type):
        for name, member in sorted(vars(value).items()):
            inner = getattr(member, "__func__", getattr(member, "fget", member))
            if isinstance(inner, FunctionType):
                yield name
                yield from _compiled(inner, seen)
            elif isinstance(inner, str | int | float | tuple | frozenset) and name != "__doc__":
                yield name, _constant(inner)
        return
    function = inspect.unwrap(value)
    yield [_constant(one) for one in function.__defaults__ or ()]
    yield from _code(function.__code__)
    for name in function.__code__.co_names:
        other = function.__globals__.get(name)
        if isinstance(other, type | FunctionType) and other.__module__ == function.__module__:
            yield from _compiled(other, seen)


def _code(code: CodeType) -> Iterator[Any]:
    yield code.co_code.hex()
    yield code.co_names
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _code(one)
        else:
            yield _constant(one)


def _constant(value: Any) -> str:
    """Return a constant as text; a set's order differs from process to process."""
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)
