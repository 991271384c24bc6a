"""``otprune methods``: which methods there are, and what one of them does.

Methods are described by their own classes, with which torch is imported. The list of them needs
only their docstrings, which are read from the source where no other package offers methods.
"""

import dataclasses
import inspect
import json
import logging
import sys
import typing
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otprune_lmms.cli.capabilities import NO, ORIGINAL, YES, read_capabilities
from otprune_lmms.cli.common import fail
from otprune_lmms.cli.method_sources import built_in_methods, paper_of
from otprune_lmms.cli.options import Json
from otprune_lmms.cli.terminal import Listing, say
from otprune_lmms.suggestions import did_you_mean

if TYPE_CHECKING:
    from otprune import Method

logger = logging.getLogger("otprune_lmms")

METHODS = "otprune.methods"
"""Entry point group of the methods of other packages."""

_NO_CLS = frozenset({"received_attention"})
"""What a vision encoder without a CLS token gives instead of that token's attention."""

_KINDS = ("selector", "merger", "layer pruner")

Describe = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="one method: its source, settings, presets, signals, and the models that it runs in",
    ),
]


def methods(describe: Describe = None, as_json: Json = False) -> None:
    """List the pruning methods that can be named in experiments, on command lines and in Python.

    Selectors keep tokens, mergers replace them by fewer new ones, layer pruners drop tokens inside
    the language model. Methods of other packages are among them.

    Example: otprune methods --describe otprune
    """
    if describe is None:
        listed = _listed()
        listed.sort(key=lambda one: _KINDS.index(one["kind"]))
        _put(listed) if as_json else _list(listed)
        return
    from otprune import PRUNERS

    name = describe.lower()
    if name not in PRUNERS:
        known = ", ".join(sorted(PRUNERS))
        meant = did_you_mean(name, PRUNERS)
        fail(f"--describe must be one of {known}; got {describe!r}{meant}", 2)
    described = _description(name, PRUNERS[name])
    _put(described) if as_json else _show(described)


def _put(content: object) -> None:
    typer.echo(json.dumps(content, indent=1, ensure_ascii=False, default=str))


def _list(listed: list[dict[str, Any]]) -> None:
    others = any(one["package"] != "otprune" for one in listed)
    heads = ("method", "kind", "source", *(("package",) if others else ()), "what it does")
    keys = ("name", "kind", "source", *(("package",) if others else ()), "purpose")
    rows = [[one[key] for key in keys] for one in listed]
    Listing(heads, rows, names=len(heads)).show()


def _show(described: Mapping[str, Any]) -> None:
    source = f", {described['source']}" if described["source"] else ""
    say(f"{described['name']}: {described['kind']}{source}\n\n{described['text']}\n\nSettings:")
    for one in described["settings"]:
        default = "required" if one["required"] else f"default {_plain(one['default'])}"
        say(f"  {one['name']}: {one['type']}, {default}")
    if not described["settings"]:
        say("  none")
    for preset, settings in described["presets"].items():
        values = ", ".join(f"{key} {_plain(value)}" for key, value in settings.items())
        say(f"  preset {preset}: {values}")
    needs, without = described["needs"], described["needs_without_cls"]
    if needs is None:
        say("\nSignals that it needs: they may depend on settings that have no default")
    else:
        say(f"\nSignals that it needs, with these defaults: {', '.join(needs) or 'none'}")
    if needs != without:
        say(f"  where the vision encoder has no CLS token: {', '.join(without) or 'none'}")
    _show_families(described["families"])


def _show_families(families: Mapping[str, Any] | None) -> None:
    if families is None:
        say("\nModels of transformers: not run, since the method is of another package")
        return
    say(f"\nModels of transformers (found by running, transformers {families['transformers']}):")
    if families[YES]:
        say(f"  runs in {', '.join(families[YES])}")
    if families[ORIGINAL]:
        say(f'  runs with positions="original" in {", ".join(families[ORIGINAL])}')
    for reason, refused in families[NO].items():
        say(f"  refused in {', '.join(refused)}: {reason}")


def _listed() -> list[dict[str, Any]]:
    """Return what the list says of each method."""
    if "otprune" not in sys.modules and not entry_points(group=METHODS):
        try:
            found = built_in_methods()
        except ValueError as error:
            logger.debug("%s", error)
        else:
            return [_said(one.name, one.kind, one.text, "otprune") for one in found]
    from otprune import PRUNERS

    return [_summary(name, one) for name, one in PRUNERS.items()]


def _summary(name: str, method: "type[Method]") -> dict[str, Any]:
    """Return what the list says of a method, from its class."""
    package = method.__module__.partition(".")[0]
    return _said(name, _kind(method), _text(method), package)


def _said(name: str, kind: str, text: str, package: str) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "source": paper_of(text),
        "package": package,
        "purpose": text.partition("\n")[0].rstrip("."),
    }


def _description(name: str, method: "type[Method]") -> dict[str, Any]:
    """Return all that is said of a method."""
    settings = [
        {
            "name": one.name,
            "type": _type(one.type),
            "required": _required(one),
            "default": _default(one),
        }
        for one in dataclasses.fields(method)
    ]
    needs = _needs(method)
    return _summary(name, method) | {
        "text": _text(method),
        "settings": settings,
        "presets": dict(method.presets),
        "needs": None if needs is None else sorted(needs[0]),
        "needs_without_cls": None if needs is None else sorted(needs[1]),
        "families": _families(name, method),
    }


def _needs(method: "type[Method]") -> tuple[frozenset[str], frozenset[str]] | None:
    """Return the signals needed at the defaults, and those needed where there is no CLS token.

    None where a setting has no default, since signals may depend on settings.
    """
    from otprune import LayerPruner

    if any(_required(one) for one in dataclasses.fields(method)):
        return None
    one = method()
    parts = [one, *([one.first] if isinstance(one, LayerPruner) and one.first else [])]
    needs = frozenset[str]().union(*(part.needs for part in parts))
    without = frozenset[str]().union(*(part.wanted(_NO_CLS) for part in parts))
    return needs, without


def _required(setting: "dataclasses.Field[Any]") -> bool:
    return setting.default is setting.default_factory is dataclasses.MISSING


def _default(setting: "dataclasses.Field[Any]") -> Any:
    if setting.default_factory is not dataclasses.MISSING:
        return setting.default_factory()
    return None if _required(setting) else setting.default


def _families(name: str, method: "type[Method]") -> dict[str, Any] | None:
    """Return in which families a method runs; None if it has not been run."""
    from otprune import BUILT_IN

    found = read_capabilities()
    if BUILT_IN.get(name) is not method or name not in found.methods:
        return None
    answers: dict[str, Any] = {YES: [], ORIGINAL: [], NO: {}}
    for family in found.families:
        answer, why = found.answer(name, family)
        if why:
            answers[NO].setdefault(why, []).append(family)
        else:
            answers[answer].append(family)
    return {"transformers": found.transformers} | answers


def _kind(method: "type[Method]") -> str:
    from otprune import LayerPruner, Merger

    if issubclass(method, LayerPruner):
        return "layer pruner"
    return "merger" if issubclass(method, Merger) else "selector"


def _text(method: "type[Method]") -> str:
    return (inspect.getdoc(method) or "").strip()


def _type(annotation: Any) -> str:
    """Return the type of a setting as one reads it: "code" or "paper" for a Literal of both."""
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(_plain(value) for value in typing.get_args(annotation))
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _plain(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
