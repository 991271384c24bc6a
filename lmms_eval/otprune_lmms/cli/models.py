"""``otprune models``: which methods run in which models of transformers."""

import json
from importlib.metadata import entry_points
from typing import Annotated

import typer

from otprune_lmms.cli.capabilities import NO, ORIGINAL, Capabilities, read_capabilities
from otprune_lmms.cli.common import fail
from otprune_lmms.cli.options import Json
from otprune_lmms.cli.terminal import Listing, say
from otprune_lmms.suggestions import did_you_mean

METHODS_OF_OTHERS = "otprune.methods"
"""Entry point group by which other packages offer methods, as in `otprune.registry`."""

Method = Annotated[
    str | None, typer.Option("--method", metavar="NAME", help="one method, with reasons")
]
Family = Annotated[
    str | None,
    typer.Option(
        "--family",
        metavar="NAME",
        help="one family, by its config.model_type such as qwen2_5_vl, with reasons",
    ),
]


def models(method: Method = None, family: Family = None, as_json: Json = False) -> None:
    """Say which methods run in which vision-language models of transformers.

    It was found by running every method in a tiny random model of every family, not on this
    machine: methods of other packages are not among them, and nothing is loaded here.

    Example: otprune models --family qwen3_vl
    """
    found = read_capabilities()
    methods, families = list(found.methods), list(found.families)
    if method is not None:
        methods = [_named("--method", method, methods)]
    if family is not None:
        families = [_named("--family", family, families)]
    if as_json:
        plain = found.plain(methods, families)
        typer.echo(json.dumps(plain, indent=1, ensure_ascii=False))
        return
    if method is None and family is None:
        _show_all(found)
    else:
        _show_reasons(found, methods, families)
    if method is None or any(found.answer(methods[0], one)[0] == ORIGINAL for one in families):
        say(f'{ORIGINAL}: with positions="original", which is not the method\'s default.')


def _named(option: str, given: str, known: list[str]) -> str:
    name = given.lower()
    if name in known:
        return name
    others = {one.name for one in entry_points(group=METHODS_OF_OTHERS)}
    if option == "--method" and name in others:
        fail(f"--method {name} is of another package, whose methods were not run", 2)
    meant = did_you_mean(given, known)
    return fail(f"{option} must be one of {', '.join(sorted(known))}; got {given!r}{meant}", 2)


def _show_reasons(found: Capabilities, methods: list[str], families: list[str]) -> None:
    rows, reasons = [], {}
    for family in families:
        for method in methods:
            answer, why = found.answer(method, family)
            note = f" ({reasons.setdefault(why, len(reasons) + 1)})" if why else ""
            rows.append((family, method, found.kind(method), answer + note))
    say(f"Found by running, with transformers {found.transformers}:")
    heads = ("family", "method", "kind", "runs")
    Listing(heads, rows, names=len(heads)).show()
    say("")
    for why, number in reasons.items():
        say(f"({number}) {why}")


def _show_all(found: Capabilities) -> None:
    """Print one column for all methods that run in the same families."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for method in found.methods:
        answers = tuple(found.answer(method, family)[0] for family in found.families)
        groups.setdefault(answers, []).append(method)
    names = [chr(ord("A") + number) for number in range(len(groups))]
    say(f"Found by running, with transformers {found.transformers}:\n")
    for name, methods in zip(names, groups.values(), strict=True):
        say(f"{name}: {', '.join(methods)}")
    rows = [
        (family, *(answers[number] for answers in groups))
        for number, family in enumerate(found.families)
    ]
    Listing(("family", *names), rows).show()
    say(f"\n{NO}: --family NAME or --method NAME says why.")
