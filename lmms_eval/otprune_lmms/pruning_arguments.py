"""The pruning settings among ``--model_args``, checked; every model of ours takes the same ones."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from otprune import PRUNERS
from otprune_lmms.environment import SettingsError, method_named
from otprune_lmms.pruning_config import FIELDS, PruningConfig, with_texts
from otprune_lmms.suggestions import did_you_mean

ALIASES = {"subset_ratio": "keep_ratio", "layer_index": "layer"}
"""Other names of settings."""


def without_aliases(
    given: Mapping[str, Any], aliases: Mapping[str, str] = ALIASES
) -> dict[str, Any]:
    """Return arguments with aliases replaced: ``subset_ratio`` becomes ``keep_ratio``.

    Raises:
        SettingsError: one argument under two names with two values.
    """
    found: dict[str, Any] = {}
    for name, value in given.items():
        first = aliases.get(name, name)
        if found.get(first) is not None and found[first] != value:
            raise SettingsError(f"{first} is given twice: {found[first]!r} and {value!r}")
        found[first] = value
    return found


def pruning_of(given: Mapping[str, Any], others: Iterable[str]) -> PruningConfig:
    """Return the pruning config of arguments.

    Args:
        given: those that no one else takes, by their first names.
        others: names of the model's other arguments, for the message.

    Raises:
        SettingsError: an unknown argument, an impossible value; one sentence.
    """
    method = given.get("method")
    name = "none" if method is None else method_named(method, "method")
    known = settings_of(name)
    for unknown in (n for n in given if n not in FIELDS and n not in known):
        names = sorted({*others, *FIELDS})
        raise SettingsError(
            f"unknown argument {unknown!r} in model_args; known: {', '.join(names)}"
            + (f"; settings of {name}: {', '.join(known)}" if known else "")
            + did_you_mean(unknown, [*names, *known])
        )
    try:
        return PruningConfig.make(
            **{**with_texts(name, given), "method": None if name == "none" else name}
        )
    except (ValueError, TypeError) as error:
        raise SettingsError(str(error)) from error


def settings_of(method: str) -> list[str]:
    """Return the names of a method's own settings, ``preset`` among them; "none" has none."""
    if method == "none":
        return []
    fields = dataclasses.fields(PRUNERS[method])
    return ["preset", *(field.name for field in fields)]
