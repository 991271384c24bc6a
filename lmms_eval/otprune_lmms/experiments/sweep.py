"""The pruning settings of an experiment, and what all its entries have in common."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from otprune_lmms.cells import Cell


class Settings(BaseModel):
    """Frozen, strict, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def once(name: str) -> Any:
    """Return a rule for a tuple: no value twice."""

    def check(values: tuple[Any, ...]) -> tuple[Any, ...]:
        twice = sorted({str(value) for value in values if values.count(value) > 1})
        if twice:
            raise ValueError(f"{name} must be distinct, got {', '.join(twice)} more than once")
        return values

    return AfterValidator(check)


def as_tuple(value: Any) -> Any:
    """Return a YAML list as a tuple."""
    return tuple(value) if isinstance(value, list) else value


Ratio = Annotated[float, Field(gt=0, le=1)]
Layer = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0)]
Plain = str | int | float | bool | None
Counts = Annotated[
    tuple[Annotated[int, Field(ge=1)], ...],
    BeforeValidator(as_tuple),
    Field(min_length=1),
    once("keep_counts"),
]
Budget = Mapping[str, Any]
"""``keep_ratio`` or ``k`` of a cell."""


def budgets_of(keep_ratios: Sequence[float] | None, keep_counts: Sequence[int] | None) -> list[Any]:
    """Return how much is kept, as cells take it: shares first."""
    shares = [{"keep_ratio": ratio} for ratio in keep_ratios or ()]
    return shares + [{"k": count} for count in keep_counts or ()]


class MethodChoice(Settings):
    """A pruning method of the experiment.

    Attributes:
        method: a name of `otprune.PRUNERS`.
        settings: its own settings, ``preset``, and ``positions``, ``keep_newlines``, ``compat``.
        seeds: of a random method; the table shows their mean.
        keep_ratios: shares kept, instead of the experiment's.
        keep_counts: visual tokens kept, instead of the experiment's.
        layers: where it prunes, instead of the experiment's.
    """

    method: str
    settings: dict[str, Plain] = {}
    seeds: (
        Annotated[tuple[Seed, ...], BeforeValidator(as_tuple), Field(min_length=1), once("seeds")]
        | None
    ) = None
    keep_ratios: (
        Annotated[
            tuple[Ratio, ...], BeforeValidator(as_tuple), Field(min_length=1), once("keep_ratios")
        ]
        | None
    ) = None
    keep_counts: Counts | None = None
    layers: (
        Annotated[tuple[Layer, ...], BeforeValidator(as_tuple), Field(min_length=1), once("layers")]
        | None
    ) = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if "seed" in self.settings:
            raise ValueError("seed belongs in seeds, not in settings")
        self.cells(({"keep_ratio": 0.5},), (0,))
        return self

    def cells(self, budgets: Sequence[Budget], layers: Sequence[int]) -> list[Cell]:
        """Return the method's cells, its own budgets and layers before those given."""
        seeds = [{}] if self.seeds is None else [{"seed": seed} for seed in self.seeds]
        return [
            Cell.make(self.method, layer=layer, **{**self.settings, **budget, **seed})
            for layer in self.layers or layers
            for budget in budgets_of(self.keep_ratios, self.keep_counts) or budgets
            for seed in seeds
        ]


def _method(value: Any) -> Any:
    return {"method": value} if isinstance(value, str) else value


class Sweep(Settings):
    """The pruning settings of the experiment: methods x budgets x layers.

    Attributes:
        methods: names, or entries with settings of their own.
        keep_ratios: shares of the visual tokens kept, in (0, 1]; 0.098 where no budget is given.
        keep_counts: visual tokens kept of each image; of several tiles together.
        layers: 0 prunes before the language model, L >= 1 at the input of its layer L.
        unpruned: whether the unpruned model takes part; relative scores need it.
    """

    methods: Annotated[
        tuple[Annotated[MethodChoice, BeforeValidator(_method)], ...], BeforeValidator(as_tuple)
    ] = ()
    keep_ratios: (
        Annotated[
            tuple[Ratio, ...], BeforeValidator(as_tuple), Field(min_length=1), once("keep_ratios")
        ]
        | None
    ) = None
    keep_counts: Counts | None = None
    layers: Annotated[
        tuple[Layer, ...], BeforeValidator(as_tuple), Field(min_length=1), once("layers")
    ] = (0,)
    unpruned: bool = True

    def cells(self) -> tuple[Cell, ...]:
        """Return all cells, unpruned first."""
        found = [Cell.make()] if self.unpruned else []
        budgets = budgets_of(self.keep_ratios, self.keep_counts) or [{"keep_ratio": 0.098}]
        for method in self.methods:
            found += method.cells(budgets, self.layers)
        return tuple(found)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        labels = [cell.label for cell in self.cells()]
        if not labels:
            raise ValueError("cells must hold at least one method, or unpruned: true")
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"cells must be distinct, got {', '.join(twice)} more than once")
        return self
