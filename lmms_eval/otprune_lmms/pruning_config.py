"""One model setting of a sweep: what is pruned, how much of it, and where."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from otprune import PRUNERS, LayerPruner, Method
from otprune.pruning import Pruning, make_pruning

Value = str | int | float | bool | None
Settings = tuple[tuple[str, Value], ...]

FORMAT = 1
"""Version of what `Cell.fingerprint` hashes."""

_LONGEST_LABEL = 80


@dataclass(frozen=True, slots=True)
class Cell:
    """A pruning setting; equal cells give equal answers. `Cell()` prunes nothing.

    Values that say what holds anyway (a method's default, the usual positions) are dropped, so two
    ways of writing one setting are one cell.

    Attributes:
        method: name of a method of `otprune.PRUNERS`; None for the unpruned model.
        keep_ratio: share of each image's visual tokens to keep, in (0, 1]; or
        k: how many to keep.
        layer: 0 prunes before the language model, L >= 1 at the input of its layer L; of a layer
            pruner always 0, since its schedule says where.
        positions: rotary positions of what is left: "compact", "original", or None for the usual
            (compact at layer 0, original inside; a layer pruner's own).
        keep_newlines: ``image_newline`` tokens are kept beside the budget.
        compat: "reference" for the released forks' mistakes.
        settings: the method's own settings and ``preset``, sorted by name; any mapping is taken.
        match: what the budget is about: "kept", "average", "flops", see `make_pruning`; None for
            the usual (kept; of a layer pruner average). A layer pruner without a budget follows its
            schedule as it is.

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

    def __post_init__(self) -> None:
        """Check the settings and bring them into one form."""
        given = _settings(self.settings)
        if self.method is None:
            _refuse_without_method(self, given)
            object.__setattr__(self, "settings", ())
            return
        if not isinstance(self.method, str) or self.method not in PRUNERS:
            known = ", ".join(sorted(PRUNERS))
            raise ValueError(f"method must be one of {known}; got {self.method!r}")
        object.__setattr__(self, "settings", tuple(sorted(given.items())))
        pruning = self._pruning()
        for name, value in _amounts(pruning).items():
            object.__setattr__(self, name, value)
        if self.positions == _positions(replace(pruning, positions=None)):
            object.__setattr__(self, "positions", None)
        if self.match == ("kept" if pruning.pruner is None else "average"):
            object.__setattr__(self, "match", None)
        object.__setattr__(self, "settings", self._without_defaults(given))

    @classmethod
    def make(
        cls,
        method: str | None = None,
        keep_ratio: float | None = None,
        k: int | None = None,
        layer: int = 0,
        **rest: Any,
    ) -> "Cell":
        """Return the cell of these settings; ``rest`` may mix fields and the method's settings.

        Raises:
            ValueError: see the class.
        """
        names = {field.name for field in dataclasses.fields(cls)} - {"settings"}
        fields = {name: rest.pop(name) for name in names & rest.keys()}
        own = {**_settings(rest.pop("settings", ())), **rest}
        return cls(method, keep_ratio, k, layer, settings=tuple(own.items()), **fields)

    @property
    def label(self) -> str:
        """A short name that is safe in file names and differs between different cells."""
        if self.method is None:
            return "unpruned"
        parts = [self.method]
        parts += [_shown(self.keep_ratio)] if self.keep_ratio is not None else []
        parts += [f"k{self.k}"] if self.k is not None else []
        parts += [self.match] if self.match else []
        parts += [f"layer{self.layer}"] if self.layer else []
        parts += [self._said(name, value) for name, value in self.settings]
        parts += [self.positions] if self.positions else []
        parts += ["newlines"] if self.keep_newlines else []
        parts += [self.compat] if self.compat else []
        plain = "-".join(parts)
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", plain)
        if safe != plain or len(safe) > _LONGEST_LABEL:
            return f"{safe[:_LONGEST_LABEL]}-{self.fingerprint[:8]}"
        return safe

    def _said(self, name: str, value: Value) -> str:
        """Return what a label says of a setting; a layer pruner's preset goes by its name."""
        own = name == "preset" and issubclass(PRUNERS[self.method or ""], LayerPruner)
        return f"{value}" if own else f"{name}{_shown(value)}"

    def settings_dict(self) -> dict[str, Any]:
        """Return what differs from the defaults as plain JSON; `make` takes it back."""
        if self.method is None:
            return {"method": None}
        found = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "settings" and getattr(self, field.name) != field.default
        }
        return found | dict(self.settings)

    @property
    def about(self) -> Literal["kept", "average", "flops"] | None:
        """What the budget is about; None without one."""
        if self.keep_ratio is None and self.k is None:
            return None
        target = self._pruning().target
        return "kept" if target is None else target.match

    @property
    def seed(self) -> int | None:
        """The seed of a method that draws; None of any other."""
        return None if self.method is None else getattr(_method(self._pruning()), "seed", None)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over everything that decides what is kept, defaults included."""
        known: dict[str, Any] = {"format": FORMAT, "method": self.method}
        if self.method is not None:
            pruning = self._pruning()
            known |= _amounts(pruning) | {
                "positions": _positions(pruning),
                "keep_newlines": pruning.keep_newlines,
                "compat": pruning.compat,
                # Also of mergers and layer pruners; the method's name tells them apart.
                "selector": _fields(_method(pruning)),
            }
            if pruning.target is not None:
                known["match"] = pruning.target.match
        text = json.dumps(known, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def pruning(self) -> Pruning | None:
        """Return what `generate` takes as ``pruning``."""
        return None if self.method is None else self._pruning()

    def _pruning(self) -> Pruning:
        return make_pruning(
            self.method or "",
            keep_ratio=self.keep_ratio,
            k=self.k,
            layer=self.layer,
            positions=self.positions,
            keep_newlines=self.keep_newlines,
            compat=self.compat,
            match=self.match,
            **dict(self.settings),  # type: ignore[arg-type]
        )

    def _without_defaults(self, given: Mapping[str, Value]) -> Settings:
        """Return the settings without those that change nothing."""
        whole = _fields(_method(self._pruning()))
        left = dict(given)
        for name in sorted(given):
            fewer = {key: value for key, value in left.items() if key != name}
            try:
                less = make_pruning(
                    self.method or "",
                    keep_ratio=self.keep_ratio,
                    k=self.k,
                    compat=self.compat,
                    **fewer,  # type: ignore[arg-type]
                )
            except ValueError:
                # The others do not go with its default.
                continue
            if _fields(_method(less)) == whole:
                left = fewer
        return tuple(sorted(left.items()))


def takes_text(method: str) -> frozenset[str]:
    """Return the settings of a method whose values are text, ``preset`` among them."""
    fields = dataclasses.fields(PRUNERS[method]) if method in PRUNERS else ()  # type: ignore[arg-type]
    return frozenset({"preset"} | {one.name for one in fields if isinstance(one.default, str)})


def with_texts(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings from a command line, which knows no quotes: numbers for text are text."""
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


def _refuse_without_method(cell: Cell, settings: Mapping[str, Value]) -> None:
    given = [
        field.name
        for field in dataclasses.fields(cell)
        if field.name not in ("method", "settings") and getattr(cell, field.name) != field.default
    ]
    given += settings
    if given:
        raise ValueError(
            f"{given[0]} needs a method: without one nothing is pruned; "
            f"known: {', '.join(sorted(PRUNERS))}"
        )


def _method(pruning: Pruning) -> Method:
    """Return the one method of a cell's pruning."""
    return pruning.stages[0].method if pruning.pruner is None else pruning.pruner


def _amounts(pruning: Pruning) -> dict[str, Any]:
    """Return how much a cell's pruning keeps, and at which layer it does so."""
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
    """Return how a cell's pruning places what is left."""
    if pruning.pruner is None:
        return pruning.positions_at(pruning.stages[0].layer)
    return pruning.positions or pruning.pruner.positions


def _fields(method: Any) -> dict[str, Any]:
    return {
        field.name: _number(getattr(method, field.name)) for field in dataclasses.fields(method)
    }


def _number(value: Any) -> Any:
    # 1 and 1.0 are equal, so they must not be told apart.
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53
    return float(value) if whole else value


def _shown(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else f"{value}"
