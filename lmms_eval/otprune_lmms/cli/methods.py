"""``otprune methods``: which methods there are, and what one of them does."""

import dataclasses
import inspect
import json
from typing import TYPE_CHECKING, Annotated

import typer

from otprune_lmms.cli.common import fail
from otprune_lmms.cli.terminal import Listing, say
from otprune_lmms.suggestions import did_you_mean

if TYPE_CHECKING:
    from otprune import Method

Describe = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="source, choices and settings of one method instead"),
]


def methods(describe: Describe = None) -> None:
    """List the pruning methods that can be named in experiments, on command lines and in Python.

    Selectors keep tokens, mergers replace them by fewer new ones, layer pruners drop tokens inside
    the language model. Methods of other packages are among them.
    """
    from otprune import PRUNERS

    if describe is None:
        rows = [(name, _kind(one), _purpose(one)) for name, one in PRUNERS.items()]
        Listing(("method", "kind", "what it does"), rows, names=3).show()
        return
    name = describe.lower()
    if name not in PRUNERS:
        known = ", ".join(sorted(PRUNERS))
        meant = did_you_mean(name, PRUNERS)
        fail(f"--describe must be one of {known}; got {describe!r}{meant}", 2)
    _describe(name, PRUNERS[name])


def _describe(name: str, method: "type[Method]") -> None:
    say(
        f"{name}: {_kind(method)}\n\n{inspect.getdoc(method) or ''}\n\nSettings and their defaults:"
    )
    for field in dataclasses.fields(method):
        required = field.default is dataclasses.MISSING
        say(f"  {field.name}: {'required' if required else _plain(field.default)}")
    for preset, settings in getattr(method, "presets", {}).items():
        values = ", ".join(f"{key} {_plain(value)}" for key, value in settings.items())
        say(f"  preset {preset}: {values}")


def _kind(method: "type[Method]") -> str:
    from otprune import LayerPruner, Merger

    if issubclass(method, LayerPruner):
        return "layer pruner"
    return "merger" if issubclass(method, Merger) else "selector"


def _purpose(method: "type[Method]") -> str:
    """Return the first line of a method's description, or of its module's."""
    documented = (inspect.getdoc(method) or "").strip()
    return documented.partition("\n")[0].rstrip(".")


def _plain(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
