"""What to prune, where, and how much."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

from otprune.budget import check_budget, check_layer, resolve_budget
from otprune.cost import DecoderShape
from otprune.layer_pruner import LayerPruner
from otprune.merger import Merger
from otprune.method import Method
from otprune.pruning.target import Match, Target
from otprune.registry import LAYER_PRUNERS, make_pruner
from otprune.schedule import Point, solve, tokens_by_layer
from otprune.selector import Selector
from otprune.signals import TEXT_SIGNALS

Positions = Literal["compact", "original"]

PAPER_RATIO = 0.098
"""Share of visual tokens that a method keeps that is given by name alone: OTPrune's paper."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One selection among the visual tokens of each image.

    Attributes:
        method: a `Selector`, or, before the language model, a `Merger`.
        keep_ratio: share of the image's tokens to keep, counted before any pruning; or
        k: how many tokens of each image to keep. A method with ``adaptive=True`` keeps either
            amount on average only.
        layer: 0 prunes before the language model, L >= 1 at the input of its layer L.
    """

    method: Selector | Merger
    keep_ratio: float | None = None
    k: int | None = None
    layer: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        if not isinstance(self.method, Selector | Merger):
            raise ValueError(f"method must be an otprune Selector or Merger, got {self.method!r}")
        keep_ratio, k = check_budget(self.keep_ratio, self.k)
        object.__setattr__(self, "keep_ratio", keep_ratio)
        object.__setattr__(self, "k", k)
        object.__setattr__(self, "layer", check_layer(self.layer))
        if isinstance(self.method, Selector) and not self.method.fixed_count and self.layer:
            raise ValueError(
                f"layer must be 0 for {type(self.method).__name__} with adaptive=True, whose "
                f"threshold is for tokens before the language model, got {self.layer}"
            )
        if isinstance(self.method, Merger) and self.layer:
            raise ValueError(
                f"layer must be 0 for {type(self.method).__name__}, which merges tokens before the "
                f"language model, got {self.layer}"
            )

    def budget(self, n: int, remaining: int) -> int:
        """Return how many of the ``remaining`` tokens of an image are kept.

        Args:
            n: tokens of the image before any pruning, of which ``keep_ratio`` is a share.
            remaining: its tokens at this stage; never more than these are kept.
        """
        if self.k is not None:
            return min(self.k, remaining)
        return min(resolve_budget(n, keep_ratio=self.keep_ratio), remaining)


@dataclass(frozen=True, slots=True)
class Pruning:
    """What to prune where, and how kept tokens are placed.

    Attributes:
        stages: at most one for each layer, in order; may be empty if there is a ``pruner``.
        positions: rotary positions of the remaining tokens. "compact" renumbers them 0, 1, 2, ...;
            "original" leaves every token the position that it has in the unpruned prompt (where a
            prompt ends with an image, the answer goes on from the image's last kept token).
            Default: a layer pruner's own choice; without one, compact before the language model
            (as in the released code) and original inside it.
        keep_newlines: keep all `image_newline` tokens of LLaVA-1.6 in addition to the budget, which
            then counts patches only. Default: they compete with the patches (as in the released
            code).
        compat: "reference" reproduces what the released forks do to prompts other than one image in
            a vicuna_v1 prompt; the `llava` package does so in `llava.model.released`.
        pruner: drops tokens inside the language model by a schedule of its own; the schedule's
            shares count the tokens that a stage before the language model has kept.
        target: how many tokens, or multiply-adds, all layers together may process. The amounts of
            stage or schedule then only say how that is distributed over the layers. None: the
            amounts hold as they are.
    """

    stages: tuple[Stage, ...]
    positions: Positions | None = None
    keep_newlines: bool = False
    compat: Literal["reference"] | None = None
    pruner: LayerPruner | None = None
    target: Target | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        if not isinstance(self.stages, tuple) or not (self.stages or self.pruner):
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
        self._check_kinds(layers)

    def _check_kinds(self, layers: list[int]) -> None:
        """Check what goes with mergers, layer pruners and targets."""
        selectors = all(isinstance(stage.method, Selector) for stage in self.stages)
        if self.pruner is not None and not isinstance(self.pruner, LayerPruner):
            raise ValueError(f"pruner must be an otprune LayerPruner, got {self.pruner!r}")
        if self.compat == "reference" and (self.pruner or self.target or not selectors):
            raise ValueError("compat='reference' knows selectors only, and no target")
        if self.pruner is not None and any(layers):
            raise ValueError(f"stages beside a pruner must be at layer 0, got {layers}")
        if self.pruner is not None and self.keep_newlines:
            raise ValueError(
                "keep_newlines goes with selectors and mergers, not with layer pruners"
            )
        if self.pruner is not None and self.stages and self.pruner.first is not None:
            raise ValueError(f"{type(self.pruner).__name__} has a stage at layer 0 of its own")
        if isinstance(self.before, Merger):
            for method in (*(stage.method for stage in self.stages[1:]), self.pruner):
                lost = sorted(method.needs - TEXT_SIGNALS) if method else []
                if lost:
                    raise ValueError(
                        f"{type(method).__name__} needs {', '.join(lost)}, which merged tokens do "
                        f"not have; {type(self.before).__name__} merges before it"
                    )
        if any(isinstance(one, Selector) and not one.fixed_count for one in self.methods):
            for name in ("target", "compat"):
                if getattr(self, name) is not None:
                    raise ValueError(f"adaptive=True does not go with {name}, which fixes counts")
        if self.target is not None and len(self.stages) + (self.pruner is not None) != 1:
            raise ValueError("a target needs one stage, or a layer pruner alone")

    @property
    def before(self) -> Selector | Merger | None:
        """What prunes before the language model."""
        if self.stages and self.stages[0].layer == 0:
            return self.stages[0].method
        return None if self.pruner is None else self.pruner.first

    @property
    def inside(self) -> bool:
        """Whether anything is pruned inside the language model."""
        return self.pruner is not None or any(stage.layer for stage in self.stages)

    @property
    def decided_by_images(self) -> bool:
        """Whether all is pruned before the language model, by what does not read the prompt's text.

        Then equal images of two prompts keep equal tokens.
        """
        return self.compat is None and not self.inside and self.needs.isdisjoint(TEXT_SIGNALS)

    @property
    def needs(self) -> frozenset[str]:
        """Names of the signals without which some method cannot work."""
        return frozenset().union(*(method.needs for method in self.methods))

    @property
    def methods(self) -> list[Method]:
        """All methods, a layer pruner's stage before the language model included."""
        methods: list[Method] = [stage.method for stage in self.stages]
        if self.pruner is not None:
            methods += [one for one in (self.pruner, self.pruner.first) if one is not None]
        return methods

    def wanted(self, gives: AbstractSet[str]) -> frozenset[str]:
        """Return the names of the signals to work with, of a model that gives some.

        See `Method.wanted`.
        """
        return frozenset().union(*(method.wanted(gives) for method in self.methods))

    def method_at(self, layer: int) -> Selector | LayerPruner | None:
        """Return what may prune at the input of a layer inside the language model."""
        if self.pruner is not None:
            return self.pruner
        found = [s.method for s in self.stages if s.layer == layer]
        return found[0] if found and isinstance(found[0], Selector) else None

    def positions_at(self, layer: int) -> Positions:
        """Return how tokens are placed after pruning at a layer."""
        if self.positions is not None:
            return self.positions
        if self.pruner is not None and (layer or self.pruner.first is not None):
            return self.pruner.positions
        return "compact" if layer == 0 else "original"

    def plan(self, n: int, shape: DecoderShape) -> dict[int, int]:
        """Return by layer how many of an image's ``n`` tokens are kept from that layer on.

        Tokens that a method merges and appends inside the language model are not counted.

        Raises:
            ValueError: a target that the layers cannot reach.
        """
        layers, target = shape.layers, self.target
        total = None if target is None else target.total(n, shape)
        cost = float if target is None else target.cost(shape)
        if self.pruner is not None:
            first = [stage.budget(n, n) for stage in self.stages]
            plan = self.pruner.plan(first[0] if first else n, layers, total, cost)
            return {0: first[0], **plan} if first else plan
        if total is None:
            return {stage.layer: stage.budget(n, n) for stage in self.stages}
        return solve([Point(self.stages[0].layer, 0.5)], n, layers, total, cost)

    def check(self, n: int, shape: DecoderShape) -> None:
        """Check that a decoder has the layers that are named, and that a target can be reached.

        Args:
            n: visual tokens of a typical image; a target's reach depends on it.
            shape: sizes of the decoder.

        Raises:
            ValueError: a layer that the decoder lacks, or as `plan`.
        """
        named = {stage.layer for stage in self.stages}
        if self.pruner is not None:
            named |= {point.layer for point in self.pruner.points} | self.pruner.observes
        if max(named) >= shape.layers:
            raise ValueError(
                f"layer must be in 0..{shape.layers - 1} for a model of {shape.layers} layers, "
                f"got {max(named)}"
            )
        self.plan(n, shape)

    def tokens_by_layer(self, n: int, shape: DecoderShape) -> list[int]:
        """Return how many visual tokens of an image of ``n`` enter each layer.

        Raises:
            ValueError: as `plan`.
        """
        appended = None if self.pruner is None else self.pruner.appended
        return tokens_by_layer(self.plan(n, shape), n, shape.layers, appended)


def make_pruning(
    method: str | Method,
    *,
    keep_ratio: float | None = None,
    k: int | None = None,
    layer: int = 0,
    positions: Positions | None = None,
    keep_newlines: bool = False,
    compat: Literal["reference"] | None = None,
    match: Match | None = None,
    preset: str | None = None,
    **settings: object,
) -> Pruning:
    """Return the pruning that applies one method.

    ``make_pruning("otprune", keep_ratio=0.098)`` is the paper's setting. ``preset`` and
    ``settings`` are the method's own, see `make_pruner`; with ``compat="reference"`` and no preset,
    OTPrune gets its preset "released", so that the fork's answers come out token for token.

    Selectors and mergers need a budget, ``keep_ratio`` or ``k``; by default it counts kept tokens
    (``match="kept"``). A layer pruner has a schedule. With a budget the schedule is scaled: either
    so that the budget is the number of tokens that enter a layer, averaged over all layers
    (``match="average"``, the default), or so that ``keep_ratio`` is the visual tokens' share of
    multiply-adds (``match="flops"``). Both also work for a selector at a layer.

    Raises:
        ValueError: an unknown method or setting, an impossible value; the message names it.
    """
    made = _made(method, compat, preset, settings)
    rest = (positions, keep_newlines, compat)
    if match not in (None, "kept", "average", "flops"):
        raise ValueError(f"match must be kept, average or flops, got {match!r}")
    if isinstance(made, LayerPruner):
        if check_layer(layer):
            raise ValueError(
                f"layer must be 0 for {type(made).__name__}, whose schedule names its layers; "
                f"got {layer}"
            )
        if match == "kept":
            raise ValueError(
                f"match must be average or flops for {type(made).__name__}; tokens left at a layer "
                "are its schedule's"
            )
        none = keep_ratio is None and k is None
        if none and match is not None:
            raise ValueError(f"match={match!r} needs keep_ratio or k")
        target = None if none else Target(match or "average", keep_ratio, k)
        return Pruning((), *rest, pruner=made, target=target)
    stage = Stage(made, keep_ratio=keep_ratio, k=k, layer=layer)
    target = None if match in (None, "kept") else Target(match, keep_ratio, k)
    return Pruning((stage,), *rest, target=target)


def _made(
    method: str | Method, compat: str | None, preset: str | None, settings: dict[str, object]
) -> Selector | Merger | LayerPruner:
    """Return the method that `make_pruning` is given by name, or as it is."""
    if not isinstance(method, Method):
        if compat == "reference" and method == "otprune" and preset is None:
            preset = "released"
        return make_pruner(method, preset=preset, **settings)
    if preset is not None or settings:
        raise ValueError(f"preset and settings belong to a method's name, got {method!r}")
    if not isinstance(method, Selector | Merger | LayerPruner):
        raise ValueError(f"method must be a Selector, Merger or LayerPruner, got {method!r}")
    return method


def pruning_by_name(
    method: str, *, keep_ratio: float | None = None, k: int | None = None, layer: int = 0
) -> Pruning:
    """Return `make_pruning` of a method's name, whose budget may be left out.

    Then a layer pruner has its own schedule, and any other method keeps `PAPER_RATIO`.

    Raises:
        ValueError: see `make_pruning`.
    """
    if keep_ratio is None and k is None and method not in LAYER_PRUNERS:
        keep_ratio = PAPER_RATIO
    return make_pruning(method, keep_ratio=keep_ratio, k=k, layer=layer)
