"""What to prune, where, and how much."""

import operator
from dataclasses import dataclass
from numbers import Real
from typing import Literal

from otprune import Selector, make_pruner, resolve_budget

Positions = Literal["compact", "original"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One selection among the visual tokens of each image.

    Attributes:
        selector: the method.
        keep_ratio: share of the image's tokens to keep, counted before any pruning; or
        k: how many tokens of each image to keep.
        layer: 0 prunes before the language model, L >= 1 at the input of its layer L.
    """

    selector: Selector
    keep_ratio: float | None = None
    k: int | None = None
    layer: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        if not isinstance(self.selector, Selector):
            raise ValueError(f"selector must be an otprune Selector, got {self.selector!r}")
        if isinstance(self.keep_ratio, Real) and not isinstance(self.keep_ratio, bool):
            object.__setattr__(self, "keep_ratio", float(self.keep_ratio))
        if self.k is None or self.keep_ratio is not None:
            resolve_budget(1, keep_ratio=self.keep_ratio, k=self.k)
        else:
            object.__setattr__(self, "k", _count("k", self.k, least=1))
        object.__setattr__(self, "layer", _count("layer", self.layer, least=0))

    def budget(self, n: int, alive: int) -> int:
        """Return how many of ``alive`` tokens stay, of ``n`` that the image had at first."""
        if self.k is not None:
            return min(self.k, alive)
        return min(resolve_budget(n, keep_ratio=self.keep_ratio), alive)


def _count(name: str, value: object, least: int) -> int:
    """Return an integer of any kind as Python's."""
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = least - 1
    if isinstance(value, bool) or count < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
    return count


@dataclass(frozen=True, slots=True)
class Pruning:
    """One or more stages, and how kept tokens are placed.

    Attributes:
        stages: at most one for each layer, in order.
        positions: rotary positions of what is left: "compact" renumbers it 0, 1, 2, ..., "original"
            leaves every token the position that it had unpruned (a prompt that ends with an image
            goes on from its last kept token). Default: compact before the language model (as
            released), original inside it.
        keep_newlines: `image_newline` tokens of LLaVA-1.6 are kept beside the budget, which then
            counts patches only. Default: they are candidates like any other (as released).
        compat: "reference" re-enacts what the released forks do to prompts other than one image in
            a vicuna_v1 prompt; see `llava.pruning.reference`.
    """

    stages: tuple[Stage, ...]
    positions: Positions | None = None
    keep_newlines: bool = False
    compat: Literal["reference"] | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        if not isinstance(self.stages, tuple) or not self.stages:
            raise ValueError(f"stages must be a tuple of one or more Stage, got {self.stages!r}")
        layers = [stage.layer for stage in self.stages]
        if layers != sorted(set(layers)):
            raise ValueError(f"stages must have ascending, distinct layers, got {layers}")
        if self.positions not in (None, "compact", "original"):
            raise ValueError(f"positions must be compact or original, got {self.positions!r}")
        if not isinstance(self.keep_newlines, bool):
            raise ValueError(f"keep_newlines must be true or false, got {self.keep_newlines!r}")
        if self.compat not in (None, "reference"):
            raise ValueError(f"compat must be reference or nothing, got {self.compat!r}")
        if self.compat == "reference" and (
            len(self.stages) > 1 or self.positions == "original" or self.keep_newlines
        ):
            raise ValueError(
                "compat='reference' knows one stage, compact positions and no keep_newlines"
            )

    @property
    def before(self) -> Stage | None:
        """The stage before the language model."""
        return self.stages[0] if self.stages[0].layer == 0 else None

    @property
    def inside(self) -> tuple[Stage, ...]:
        """The stages inside the language model."""
        return tuple(stage for stage in self.stages if stage.layer > 0)

    @property
    def needs(self) -> frozenset[str]:
        """Names of the signals without which some selector cannot work."""
        return frozenset().union(*(stage.selector.needs for stage in self.stages))

    def positions_at(self, layer: int) -> Positions:
        """Return how tokens are placed after pruning at a layer."""
        return self.positions or ("compact" if layer == 0 else "original")


def prune(
    method: str | Selector,
    *,
    keep_ratio: float | None = None,
    k: int | None = None,
    layer: int = 0,
    positions: Positions | None = None,
    keep_newlines: bool = False,
    compat: Literal["reference"] | None = None,
    preset: str | None = None,
    **settings: object,
) -> Pruning:
    """Return a pruning of one stage.

    ``prune("otprune", keep_ratio=0.098)`` is the paper's setting. ``preset`` and further settings
    are the method's own; under ``compat="reference"`` OTPrune's preset is "released" if none is
    given, so that the fork's answers come out token for token.

    Raises:
        ValueError: an unknown method or setting, an impossible value; the message names it.
    """
    if isinstance(method, Selector):
        if preset is not None or settings:
            raise ValueError(f"preset and settings belong to a method's name, got {method!r}")
        selector = method
    else:
        if compat == "reference" and method == "otprune" and preset is None:
            preset = "released"
        selector = make_pruner(method, preset=preset, **settings)
    stage = Stage(selector, keep_ratio=keep_ratio, k=k, layer=layer)
    return Pruning((stage,), positions, keep_newlines, compat)
