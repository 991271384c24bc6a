"""The pruning configs of an experiment file, and the base class of all its sections."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from otprune import PRUNERS, LayerPruner
from otprune.budget import check_k, check_keep_ratio, check_layer
from otprune_lmms.limits import MOST_TOKENS
from otprune_lmms.pruning_config import PruningConfig, takes_text
from otprune_lmms.results.names import LONGEST_LABEL, UNPRUNED_NAME, Names, method_name


class ConfigSection(BaseModel):
    """A section of an experiment file: frozen, without type coercion or unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def once(name: str) -> Any:
    """Return a pydantic validator: a tuple's values must be distinct."""

    def check(values: tuple[Any, ...]) -> tuple[Any, ...]:
        twice = sorted({str(value) for value in values if values.count(value) > 1})
        if twice:
            raise ValueError(f"{name} must be distinct, got {', '.join(twice)} more than once")
        return values

    return AfterValidator(check)


def as_tuple(value: Any) -> Any:
    """Return a YAML list as a tuple."""
    return tuple(value) if isinstance(value, list) else value


KeepRatio = Annotated[float, AfterValidator(check_keep_ratio)]
Layer = Annotated[int, AfterValidator(check_layer)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Plain = str | int | float | bool | None
Match = Literal["kept", "average", "flops"]
KeepCounts = Annotated[
    tuple[Annotated[int, AfterValidator(check_k), Field(le=MOST_TOKENS)], ...],
    BeforeValidator(as_tuple),
    Field(min_length=1),
    once("keep_counts"),
]
_PLACES = {"keep_ratio": "keep_ratios", "k": "keep_counts", "layer": "layers"}
"""Settings of a config that an experiment file lists under keys of their own."""

BudgetChoice = Mapping[str, Any]
"""``keep_ratio`` or ``k`` of a config."""


def budget_choices(
    keep_ratios: Sequence[float] | None, keep_counts: Sequence[int] | None
) -> list[Any]:
    """Return the fields of each budget, ratios first."""
    shares = [{"keep_ratio": ratio} for ratio in keep_ratios or ()]
    return shares + [{"k": count} for count in keep_counts or ()]


class MethodChoice(ConfigSection):
    """A pruning method of the experiment.

    Attributes:
        method: a name of `otprune.PRUNERS`.
        settings: its own settings, ``preset``, and ``positions``, ``keep_newlines``, ``compat``,
            ``match``.
        seeds: seeds of a random method; tables show their mean.
        keep_ratios: keep ratios instead of the experiment's.
        keep_counts: numbers of kept visual tokens instead of the experiment's.
        layers: layers instead of the experiment's.
        own_schedule: whether a layer pruner uses its schedule unchanged, without a budget.
        label: what tables and figures call it instead of the method's name; None for that. Answers
            do not depend on it.
    """

    method: str
    settings: dict[str, Plain] = {}
    seeds: (
        Annotated[tuple[Seed, ...], BeforeValidator(as_tuple), Field(min_length=1), once("seeds")]
        | None
    ) = None
    keep_ratios: (
        Annotated[
            tuple[KeepRatio, ...],
            BeforeValidator(as_tuple),
            Field(min_length=1),
            once("keep_ratios"),
        ]
        | None
    ) = None
    keep_counts: KeepCounts | None = None
    layers: (
        Annotated[tuple[Layer, ...], BeforeValidator(as_tuple), Field(min_length=1), once("layers")]
        | None
    ) = None

    own_schedule: bool = False
    label: Annotated[str, Field(min_length=1, max_length=LONGEST_LABEL)] | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if "seed" in self.settings:
            raise ValueError("seed belongs in seeds, not in settings")
        _check_texts(self.method, self.settings)
        if self.label is not None and not (self.label.isprintable() and self.label.split(" ")[0]):
            raise ValueError(f"label must be one line of letters, got {self.label!r}")
        if self.own_schedule:
            self._check_own_schedule()
        for name, place in _PLACES.items():
            if name in self.settings:
                raise ValueError(f"{name} belongs in {place}, not in settings")
        self.configs(({"keep_ratio": 0.5},), (0,))
        return self

    def _check_own_schedule(self) -> None:
        method = PRUNERS.get(self.method)
        if method is not None and not issubclass(method, LayerPruner):
            raise ValueError(
                f"own_schedule is for layer pruners, and {self.method} is none: it needs a budget"
            )
        given = {name: self.settings.get(name) for name in ("keep_ratio", "k", "match")}
        given |= self.model_dump(include={"keep_ratios", "keep_counts", "layers"})
        for name, value in given.items():
            if value is not None:
                raise ValueError(
                    f"own_schedule uses {self.method} unchanged, without {name}; for both list the "
                    "method twice"
                )

    def configs(
        self, budgets: Sequence[BudgetChoice], layers: Sequence[int], match: Match | None = None
    ) -> list[PruningConfig]:
        """Return the method's configs; its own budgets and layers replace the experiment's.

        Args:
            budgets: budgets of the experiment.
            layers: layers of the experiment.
            match: what the experiment's budgets count, see `PruningConfig`.
        """
        seeds = [{}] if self.seeds is None else [{"seed": seed} for seed in self.seeds]
        if self.own_schedule:
            return [PruningConfig.make(self.method, **{**self.settings, **seed}) for seed in seeds]
        common = {"match": match, **self.settings}
        return [
            PruningConfig.make(self.method, layer=layer, **{**common, **budget, **seed})
            for layer in self.layers or layers
            for budget in budget_choices(self.keep_ratios, self.keep_counts) or budgets
            for seed in seeds
        ]


def _check_texts(method: str, settings: Mapping[str, Plain]) -> None:
    """Raise ``ValueError`` for a number where a method takes text."""
    for name in sorted(takes_text(method) & settings.keys()):
        if isinstance(settings[name], int | float):
            raise ValueError(
                f"{name} of {method} must be text, in quotes (YAML takes 2:32 for a number); "
                f"got {settings[name]!r}"
            )


def _method(value: Any) -> Any:
    return {"method": value} if isinstance(value, str) else value


class PruningChoices(ConfigSection):
    """The pruning configs of the experiment: methods x budgets x layers.

    Attributes:
        methods: names, or entries with settings of their own.
        keep_ratios: shares of the visual tokens kept, in (0, 1]; 0.098 if no budget is given.
        keep_counts: numbers of visual tokens kept of each image, of all its tiles together.
        layers: 0 prunes before the language model, L >= 1 at the input of its layer L.
        match: what the budgets count, see `PruningConfig`; a method's settings take precedence.
        unpruned: whether the unpruned model is included; relative scores need it.
        controls: whether `results.names.CONTROLS` that the models run are added at every budget,
            before the language model; those listed among the methods stay as they are there.
    """

    methods: Annotated[
        tuple[Annotated[MethodChoice, BeforeValidator(_method)], ...], BeforeValidator(as_tuple)
    ] = ()
    keep_ratios: (
        Annotated[
            tuple[KeepRatio, ...],
            BeforeValidator(as_tuple),
            Field(min_length=1),
            once("keep_ratios"),
        ]
        | None
    ) = None
    keep_counts: KeepCounts | None = None
    layers: Annotated[
        tuple[Layer, ...], BeforeValidator(as_tuple), Field(min_length=1), once("layers")
    ] = (0,)
    match: Match | None = None
    unpruned: bool = True
    controls: bool = True

    def with_controls(self, controls: Mapping[str, Mapping[str, Any]]) -> Self:
        """Return the choices with these methods added, at the budgets of the listed ones.

        Args:
            controls: fields of a `MethodChoice` by method.
        """
        budgets = self._budgets_of_methods()
        listed = {one.method for one in self.methods}
        missing = [name for name in controls if name not in listed]
        if not self.controls or not budgets or not missing:
            return self
        places = {
            "keep_ratios": tuple(one["keep_ratio"] for one in budgets if "keep_ratio" in one),
            "keep_counts": tuple(one["k"] for one in budgets if "k" in one),
        }
        places = {name: values for name, values in places.items() if values}
        added = [
            MethodChoice.model_validate(
                {"method": name, "layers": (0,), **places, **controls[name]}
            )
            for name in missing
        ]
        kept = {name: getattr(self, name) for name in type(self).model_fields}
        return self.model_validate(kept | {"methods": (*self.methods, *added)})

    def _budgets(self) -> list[BudgetChoice]:
        return budget_choices(self.keep_ratios, self.keep_counts) or [{"keep_ratio": 0.098}]

    def _budgets_of_methods(self) -> list[BudgetChoice]:
        """Return all budgets that methods have, each once, in order of first appearance."""
        found: dict[tuple, BudgetChoice] = {}
        for method in self.methods:
            own = budget_choices(method.keep_ratios, method.keep_counts) or self._budgets()
            for budget in [] if method.own_schedule else own:
                found.setdefault(tuple(budget.items()), budget)
        return list(found.values())

    def configs(self) -> tuple[PruningConfig, ...]:
        """Return all configs, unpruned first."""
        return tuple(config for config, _ in self.labelled())

    def labelled(self) -> list[tuple[PruningConfig, str | None]]:
        """Return all configs, unpruned first, each with the label that the file gives it."""
        found: list[tuple[PruningConfig, str | None]] = []
        found += [(PruningConfig.make(), None)] if self.unpruned else []
        for method in self.methods:
            own = method.configs(self._budgets(), self.layers, self.match)
            found += [(config, method.label) for config in own]
        return found

    def columns(self) -> list[dict[str, Any]]:
        """Return the `results.columns` of all configs, with ``label`` where it is given."""
        return [
            config.columns() | ({} if label is None else {"label": label})
            for config, label in self.labelled()
        ]

    @property
    def names(self) -> Names:
        """What readers are shown as the names of the configs."""
        return Names(self.columns())

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        labels = [config.label for config in self.configs()]
        if not labels:
            raise ValueError("pruning must hold at least one method, or unpruned: true")
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"settings must be distinct, got {', '.join(twice)} more than once")
        _check_labels(self.methods)
        return self


def _check_labels(methods: Sequence[MethodChoice]) -> None:
    """Raise ``ValueError`` for a label that is also another label or a method's name."""
    taken = {UNPRUNED_NAME: "the unpruned model"}
    taken |= {method_name(one.method).casefold(): one.method for one in methods if not one.label}
    for one in methods:
        if one.label is None:
            continue
        if one.label.casefold() in taken:
            other = taken[one.label.casefold()]
            raise ValueError(f"labels must be distinct, got {one.label!r}, which names {other} too")
        taken[one.label.casefold()] = one.method
