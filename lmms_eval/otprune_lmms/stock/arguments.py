"""The arguments of a pruned wrapper: the stock wrapper's, and the pruning settings."""

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from otprune_lmms.environment import SettingsError
from otprune_lmms.pruning_arguments import pruning_of, settings_of, without_aliases
from otprune_lmms.pruning_config import FIELDS, PruningConfig

Unit = Literal["image", "tile", "sample"]
_UNITS = ("image", "tile", "sample")


@dataclass(frozen=True, slots=True)
class StockArguments:
    """Arguments of a pruned wrapper, checked as far as that needs no model.

    Attributes:
        stock: those of the stock wrapper, as they were given.
        config: the pruning config.
        unit: what one budget is for, see `otprune.hf.pruned`; None for the family's default.
    """

    stock: Mapping[str, Any]
    config: PruningConfig
    unit: Unit | None = None


def parse(given: Mapping[str, Any], wrapper: str, parameters: Collection[str]) -> StockArguments:
    """Return the arguments of ``--model_args``.

    Args:
        given: by name; pruning settings also by the names that ``llava`` takes.
        wrapper: lmms-eval's id of the stock wrapper, for messages.
        parameters: what the stock wrapper takes.

    Raises:
        SettingsError: an unknown argument, an impossible value; one sentence.
    """
    named = without_aliases(given)
    stock = {name: value for name, value in named.items() if name in parameters}
    left = {n: value for n, value in named.items() if n not in stock and value is not None}
    unit = left.pop("unit", None)
    if unit is not None and unit not in _UNITS:
        raise SettingsError(f"unit must be one of {', '.join(_UNITS)}; got {unit!r}")
    config = pruning_of(left, {*parameters, "unit"})
    if unit is not None and config.method is None:
        raise SettingsError("unit needs a method: without one nothing is pruned")
    ours = {*FIELDS, "unit", *settings_of(config.method or "none")}
    for name in sorted(ours & set(parameters)):
        raise SettingsError(
            f"{name} is an argument of lmms-eval's wrapper {wrapper} and a setting of "
            f"{config.method or 'pruning'}, so it can be neither"
        )
    return StockArguments(stock, config, unit)


def parameters_of(stock: type) -> tuple[str, ...]:
    """Return the names that a class takes, also where it hands arguments on to the next one."""
    found: dict[str, None] = {}
    for one in stock.__mro__:
        init = vars(one).get("__init__")
        if init is None:
            continue
        _, *parameters = inspect.signature(init).parameters.values()
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        found |= {each.name: None for each in parameters if each.kind in named}
        if all(each.kind is not inspect.Parameter.VAR_KEYWORD for each in parameters):
            break
    return tuple(found)
