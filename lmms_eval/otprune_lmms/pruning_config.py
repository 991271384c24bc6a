"""Pruning configs: which method prunes how much, and where; the settings that a sweep varies."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from otprune import PRUNERS, LayerPruner, Method
from otprune.adaptive import AdaptiveSelector
from otprune.pruning import Pruning, make_pruning
from otprune_lmms.sources import class_hash
from otprune_lmms.suggestions import did_you_mean

Value = str | int | float | bool | None
Settings = tuple[tuple[str, Value], ...]

FORMAT = 1
"""Version of what `PruningConfig.fingerprint` hashes."""

_LONGEST_LABEL = 80

_NOT_IN_NAMES = ("method", "keep_ratio", "k", "match", "seed")
"""What `PruningConfig.name` leaves out: method (named apart), budget and seed."""


@dataclass(frozen=True)
class PruningConfig:
    """A pruning config; equal configs give equal answers. `PruningConfig()` prunes nothing.

    YAML, ``--model_args``, the environment and the journal all use these fields, and results
    folders have a column for each (`columns`). Values that equal the default (a method's settings,
    the usual positions) are dropped, so that two ways of writing one config are equal.

    Attributes:
        method: name of a method of `otprune.PRUNERS`; None for the unpruned model.
        keep_ratio: share of each image's visual tokens to keep, in (0, 1]; or
        k: number of visual tokens to keep of each image.
        layer: 0 prunes before the language model, L >= 1 at the input of its layer L. Always 0 for
            a layer pruner, whose schedule has the layers.
        positions: rotary positions of the kept tokens: "compact", "original", or None for the usual
            ones (compact at layer 0, original inside; a layer pruner's own).
        keep_newlines: ``image_newline`` tokens are kept in addition to the budget.
        compat: "reference" reproduces the mistakes of the released forks.
        settings: the method's own settings and ``preset``, sorted by name; any mapping is accepted.
        match: what the budget counts: "kept", "average" or "flops", see `make_pruning`; None for
            the usual ("kept"; "average" for a layer pruner). A layer pruner without a budget uses
            its schedule unchanged.
        pruning: the `Pruning` that models take, made once; None for the unpruned model.

    Raises:
        ValueError: an unknown method or setting, an impossible value; the message names it.
    """

    method: str | None = None
    keep_ratio: float | None = None
    k: int | None = None
    layer: int = 0
    positions: Literal["compact", "original"] | None = None
    keep_newlines: bool = False
    compat: Literal["reference"] | None = None
    settings: Settings = ()
    match: Literal["kept", "average", "flops"] | None = None
    pruning: Pruning | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the values and bring them into one form."""
        given = _settings(self.settings)
        if self.method is None:
            _refuse_without_method(self, given)
            self._set(settings=(), pruning=None)
            return
        if not isinstance(self.method, str) or self.method not in PRUNERS:
            known = ", ".join(sorted(PRUNERS))
            meant = did_you_mean(self.method, PRUNERS)
            raise ValueError(f"method must be one of {known}; got {self.method!r}{meant}")
        pruning = self._made(given, positions=self.positions, match=self.match)
        self._set(pruning=pruning, **_amounts(pruning))
        if self.positions == _positions(replace(pruning, positions=None)):
            self._set(positions=None)
        if self.match == ("kept" if pruning.pruner is None else "average"):
            self._set(match=None)
        self._set(settings=self._without_defaults(given, pruning))
        _check_size("k", self.k)
        _check_size("layer", self.layer)
        _check_size("seed", getattr(_method(pruning), "seed", None))
        own = dict(self.settings)
        self._set(pruning=self._made(own, positions=self.positions, match=self.match))

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def make(
        cls,
        method: str | None = None,
        keep_ratio: float | None = None,
        k: int | None = None,
        layer: int = 0,
        **rest: Any,
    ) -> "PruningConfig":
        """Return the config of these values; ``rest`` may mix fields and the method's settings.

        Raises:
            ValueError: see the class.
        """
        fields = {name: rest.pop(name) for name in FIELDS if name in rest}
        own = {**_settings(rest.pop("settings", ())), **rest}
        return cls(method, keep_ratio, k, layer, settings=tuple(own.items()), **fields)

    @property
    def label(self) -> str:
        """A short name, safe in file names, that differs between different configs.

        It is for readers and is never parsed.
        """
        if self.method is None:
            return "unpruned"
        parts = [self.method]
        parts += [_shown(self.keep_ratio)] if self.keep_ratio is not None else []
        parts += [f"k{self.k}"] if self.k is not None else []
        parts += [self.match] if self.match else []
        parts += [f"layer{self.layer}"] if self.layer else []
        parts += [self._in_label(name, value) for name, value in self.settings]
        parts += [self.positions] if self.positions else []
        parts += ["newlines"] if self.keep_newlines else []
        parts += [self.compat] if self.compat else []
        plain = "-".join(parts)
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", plain)
        if safe != plain or len(safe) > _LONGEST_LABEL:
            return f"{safe[:_LONGEST_LABEL]}-{self.fingerprint[:8]}"
        return safe

    @property
    def row(self) -> str:
        """The label without the seed: seeds of one config share a row of a table."""
        return self._without_seed().label

    @property
    def name(self) -> str:
        """The row without its budget, which is in the block's title: ``otprune, gamma 0.05``."""
        config = self._without_seed()
        if config.method is None:
            return config.label
        if config.label.endswith(f"-{config.fingerprint[:8]}"):
            own = {n: v for n, v in config.as_dict().items() if n not in _NOT_IN_NAMES}
            return ", ".join([config.method, *(f"{n} {v}" for n, v in own.items())])
        parts = [config.method]
        parts += [f"layer {config.layer}"] if config.layer else []
        parts += [config._in_label(n, v, " ") for n, v in config.settings]
        parts += [config.positions] if config.positions else []
        parts += ["newlines"] if config.keep_newlines else []
        parts += [config.compat] if config.compat else []
        return ", ".join(parts)

    def _in_label(self, name: str, value: Value, between: str = "") -> str:
        """Return a setting as a label shows it; a layer pruner's preset by its value alone."""
        own = name == "preset" and issubclass(PRUNERS[self.method or ""], LayerPruner)
        return f"{value}" if own else f"{name}{between}{_shown(value)}"

    def _without_seed(self) -> "PruningConfig":
        if self.seed is None:
            return self
        return PruningConfig.make(**{n: v for n, v in self.as_dict().items() if n != "seed"})

    def as_dict(self) -> dict[str, Any]:
        """Return what differs from the defaults, ready for JSON; `make` is the inverse."""
        if self.method is None:
            return {"method": None}
        found = {
            one.name: getattr(self, one.name)
            for one in dataclasses.fields(self)
            if one.name in FIELDS and getattr(self, one.name) != one.default
        }
        return found | dict(self.settings)

    def columns(self) -> dict[str, Any]:
        """Return the config's columns in the files of a results folder; see `results.columns`."""
        own = {} if self.pruning is None else _own_settings(_method(self.pruning))
        return {
            "setting": self.label,
            "row": self.row,
            "name": self.name,
            "method": self.method,
            "keep_ratio": self.keep_ratio,
            "k": self.k,
            "layer": self.layer,
            "match": self.budget_kind,
            "positions": None if self.pruning is None else _positions(self.pruning),
            "keep_newlines": self.keep_newlines,
            "compat": self.compat,
            "settings": json.dumps(own, sort_keys=True),
            "changed_settings": json.dumps(self.changed_settings),
            "seed": self.seed,
        }

    @property
    def changed_settings(self) -> dict[str, Value]:
        """What differs from the defaults, without method, budget, layer and seed.

        Configs of one method with equal changed settings differ only in how much they keep, at
        which layer, and in the seed.
        """
        found: dict[str, Value] = {n: _plain(v) for n, v in self.settings if n != "seed"}
        found |= {"positions": self.positions} if self.positions else {}
        found |= {"keep_newlines": True} if self.keep_newlines else {}
        return found | ({"compat": self.compat} if self.compat else {})

    @property
    def budget_kind(self) -> Literal["kept", "average", "flops"] | None:
        """What the budget counts, see ``match``; None without a budget."""
        if self.pruning is None or (self.keep_ratio is None and self.k is None):
            return None
        return "kept" if self.pruning.target is None else self.pruning.target.match

    @property
    def by_tile(self) -> bool:
        """Whether the budget is divided evenly among the tiles of an image."""
        return self.pruning is not None and _method(self.pruning).by_tile

    @property
    def seed(self) -> int | None:
        """The seed of a random method; None for any other."""
        return None if self.pruning is None else getattr(_method(self.pruning), "seed", None)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over everything that decides what is kept, defaults included."""
        known: dict[str, Any] = {"format": FORMAT, "method": self.method}
        if self.pruning is not None:
            known |= _amounts(self.pruning) | {
                "positions": _positions(self.pruning),
                "keep_newlines": self.pruning.keep_newlines,
                "compat": self.pruning.compat,
                # The key is the same for mergers and layer pruners; ``method`` distinguishes them.
                "selector": _deciding_fields(_method(self.pruning)),
            }
            if self.pruning.target is not None:
                known["match"] = self.pruning.target.match
        text = json.dumps(known, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def answer_key(self) -> str:
        """SHA-256 over `fingerprint` and the method's source: the config's key in the journal.

        So answers of a method whose code has changed since are not found.
        """
        if self.pruning is None:
            return self.fingerprint
        text = f"{self.fingerprint} {class_hash(type(_method(self.pruning)))}"
        return hashlib.sha256(text.encode()).hexdigest()

    def _made(self, settings: Mapping[str, Any], **values: Any) -> Pruning:
        return make_pruning(
            self.method or "",
            keep_ratio=self.keep_ratio,
            k=self.k,
            layer=values.pop("layer", self.layer),
            keep_newlines=values.pop("keep_newlines", self.keep_newlines),
            compat=self.compat,
            **values,
            **settings,
        )

    def _without_defaults(self, given: Mapping[str, Value], pruning: Pruning) -> Settings:
        """Return the settings without those that change nothing."""
        whole = _fields(_method(pruning))
        left = dict(given)
        for name in sorted(given):
            fewer = {key: value for key, value in left.items() if key != name}
            try:
                less = self._made(fewer, layer=0, keep_newlines=False)
            except ValueError:
                # The other settings are impossible with its default.
                continue
            if _fields(_method(less)) == whole:
                left = fewer
        return tuple(sorted(left.items()))


FIELDS = tuple(
    one.name for one in dataclasses.fields(PruningConfig) if one.init and one.name != "settings"
)
"""Names of a config's fields other than the method's own settings."""


def takes_text(method: str) -> frozenset[str]:
    """Return the settings of a method whose values are text, ``preset`` among them."""
    fields = dataclasses.fields(PRUNERS[method]) if method in PRUNERS else ()
    return frozenset({"preset"} | {one.name for one in fields if isinstance(one.default, str)})


def with_texts(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a command line, with numbers as text where a method takes text."""
    texts = takes_text(method)
    return {
        name: str(value) if name in texts and isinstance(value, int | float) else value
        for name, value in given.items()
    }


def _settings(given: Mapping[str, Value] | Iterable[tuple[str, Value]]) -> dict[str, Value]:
    found = dict(given)
    for name, value in found.items():
        if not isinstance(name, str):
            raise ValueError(f"settings must have names, got {name!r}")
        if value is not None and not isinstance(value, str | int | float | bool):
            raise ValueError(f"{name} must be a plain value, got {value!r}")
    return found


def _refuse_without_method(config: PruningConfig, settings: Mapping[str, Value]) -> None:
    given = [
        one.name
        for one in dataclasses.fields(config)
        if one.name in FIELDS and one.name != "method" and getattr(config, one.name) != one.default
    ]
    given += settings
    if given:
        raise ValueError(
            f"{given[0]} needs a method: without one nothing is pruned; "
            f"known: {', '.join(sorted(PRUNERS))}"
        )


def _check_size(name: str, value: Any) -> None:
    """Raise ``ValueError`` for an integer that files of results cannot hold."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{name} must be below 2**63, got {str(value)[:40]}")


def _method(pruning: Pruning) -> Method:
    """Return the one method of a config's pruning."""
    return pruning.stages[0].method if pruning.pruner is None else pruning.pruner


def _amounts(pruning: Pruning) -> dict[str, Any]:
    """Return how much a config's pruning keeps, and at which layer."""
    if pruning.pruner is None:
        stage = pruning.stages[0]
        return {"keep_ratio": stage.keep_ratio, "k": stage.k, "layer": stage.layer}
    target = pruning.target
    ratio = None if target is None else target.keep_ratio
    return {
        "keep_ratio": None if ratio is None else float(ratio),
        "k": None if target is None else target.k,
        "layer": 0,
    }


def _positions(pruning: Pruning) -> str:
    """Return the rotary positions of a config's kept tokens."""
    if pruning.pruner is None:
        return pruning.positions_at(pruning.stages[0].layer)
    return pruning.positions or pruning.pruner.positions


def _fields(method: Any) -> dict[str, Any]:
    return {
        field.name: _number(getattr(method, field.name)) for field in dataclasses.fields(method)
    }


def _deciding_fields(method: Method) -> dict[str, Any]:
    """Return a method's settings, but those of adaptive counts only where it has such counts.

    So a config has the fingerprint that it had before its method could have them.
    """
    found = _fields(method)
    if isinstance(method, AdaptiveSelector) and method.fixed_count:
        return {name: found[name] for name in found if name not in ("adaptive", "threshold")}
    return found


def _own_settings(method: Any) -> dict[str, Any]:
    """Return all of a method's settings but its seed, defaults included."""
    return {
        field.name: _plain(getattr(method, field.name))
        for field in dataclasses.fields(method)
        if field.name != "seed"
    }


def _plain(value: Any) -> Any:
    """Return a whole number as an int: 1 and 1.0 are one setting."""
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return int(value) if whole else value


def _number(value: Any) -> Any:
    # 1 and 1.0 are one setting and must have one fingerprint.
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53
    return float(value) if whole else value


def _shown(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else f"{value}"
