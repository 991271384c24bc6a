"""The contract of a layer pruner: visual tokens are dropped inside the language model."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from otprune.method import Method
from otprune.schedule import Point, parse_schedule, solve
from otprune.selector import Selector
from otprune.signals import NO_SIGNALS, Signals


class Probe(Protocol):
    """What can be asked of the layers around a point, for one prompt without its padding.

    ``layer`` is the layer about to run, or the one before it if the pruner ``looks_back``.
    """

    def attention(self, layer: int, rows: Int64[Tensor, " r"]) -> Float[Tensor, "h r t"]:
        """Attention of some positions to all, causal, as probabilities in float32.

        Computed anew for these rows alone, whatever attention the model uses: O(r t).
        """
        ...

    def keys(self, layer: int) -> Float[Tensor, "g t c"]:
        """Keys of a layer with their rotary angles, of each key-value head."""
        ...

    def rotary(self, layer: int) -> tuple[Float[Tensor, "t c"], Float[Tensor, "t c"]]:
        """Cosines and sines of the positions' rotary angles in a layer."""
        ...

    def final_norm(self, hidden: Float[Tensor, "t d"]) -> Float[Tensor, "t d"]:
        """The norm that the language model ends with."""
        ...


@dataclass(frozen=True)
class LayerView:
    """One image of one prompt at the input of a layer; positions count the prompt's own.

    Attributes:
        layer: number of the layer about to run.
        hidden: its input, [t d].
        visual: positions of the image's tokens that are still there, ascending.
        numbers: which of the image's n tokens these are; merged tokens have numbers from n on.
        n: tokens of the image before any pruning.
        question: positions of the text after the prompt's last image, a given answer left out.
        positions: rotary position of each, [t].
        probe: what can be asked of the layers.
        accumulated: sum of what `LayerPruner.observe` gave for each position, [t]; 0 at merged
            tokens; None if it observes no layer before this one.
        started: what `LayerPruner.start` gave.
        signals: about the tokens ``numbers``; none about tokens if the image has merged ones.
    """

    layer: int
    hidden: Float[Tensor, "t d"]
    visual: Int64[Tensor, " v"]
    numbers: Int64[Tensor, " v"]
    n: int
    question: Int64[Tensor, " q"]
    positions: Int64[Tensor, " t"]
    probe: Probe
    accumulated: Float[Tensor, " t"] | None = None
    started: Any = None
    signals: Signals = NO_SIGNALS


@dataclass(frozen=True, slots=True)
class Modules:
    """What went into the two halves of a layer and came out, before the residual sum; [b t d].

    Attributes:
        layer: number of the layer.
        attention_in: its input, normalised.
        attention_out: what is added to the residual stream.
        feed_forward_in: likewise of the feed-forward network.
        feed_forward_out: likewise.
        valid: which positions are neither padding nor a given answer, [b t].
    """

    layer: int
    attention_in: Float[Tensor, "b t d"]
    attention_out: Float[Tensor, "b t d"]
    feed_forward_in: Float[Tensor, "b t d"]
    feed_forward_out: Float[Tensor, "b t d"]
    valid: Bool[Tensor, "b t"]


@dataclass(frozen=True, slots=True)
class Kept:
    """What stays of an image.

    Attributes:
        index: which of ``view.visual``, any order; they stay in the order of the sequence.
        merged: new tokens, appended after the kept ones; [c d].
        scores: what was ranked, for who asks; [v].
    """

    index: Int64[Tensor, " k"]
    merged: Float[Tensor, "c d"] | None = None
    scores: Float[Tensor, " v"] | None = None


class LayerPruner(Method, ABC):
    """A rule that drops visual tokens at the input of some layers, as a schedule says.

    A field ``schedule`` (see `parse_schedule`) says at which layers, and how many tokens are left;
    layer L of it is always the layer that the fewer tokens enter first. Every image of a prompt is
    treated by itself. Batches, padding, caches, positions and budgets are the model's business.

    Class attributes:
        looks_back: whether `Probe` must know the layer before.
        starts: whether `start` is to be called.
        positions: rotary positions of what is left: "original" or "compact" (0, 1, 2, ...).
    """

    __slots__ = ()
    looks_back: ClassVar[bool] = False
    starts: ClassVar[bool] = False
    positions: ClassVar[Literal["original", "compact"]] = "original"
    schedule: str

    @property
    def points(self) -> tuple[Point, ...]:
        """The schedule; a point at layer 0 is `first`'s."""
        return parse_schedule(self.schedule)

    @property
    def first(self) -> Selector | None:
        """What prunes before the language model, if the schedule has a layer 0."""
        return None

    @property
    def observes(self) -> frozenset[int]:
        """Layers whose halves `observe` is to see; those from the last point on are never run."""
        return frozenset()

    def observe(self, modules: Modules) -> Float[Tensor, "b t"]:
        """Return a number for each position, which is added up over the layers observed."""
        raise NotImplementedError

    def start(self, view: LayerView) -> Any:
        """Return what is to be known later about the unpruned input of layer 0."""
        raise NotImplementedError

    def appended(self, dropped: int) -> int:
        """Return how many merged tokens stand in for so many dropped ones."""
        return 0

    def plan(
        self, n: int, layers: int, target: float | None, cost: Callable[[int], float]
    ) -> dict[int, int]:
        """Return how many tokens of an image of ``n`` are left at which layers.

        Args:
            n: tokens of the image.
            layers: of the language model.
            target: total of ``cost`` over all layers; None for the schedule as it is.
            cost: of a layer that so many tokens enter.

        Raises:
            ValueError: a target that the schedule's layers cannot reach.
        """
        if target is None:
            return {point.layer: point.count(n) for point in self.points}
        return solve(self.points, n, layers, target, cost, self.appended)

    def prune(self, view: LayerView, k: int) -> Kept:
        """Return the ``k`` tokens of an image that stay, 0 <= k < v.

        Raises:
            ArithmeticError: the method did not give k distinct tokens.
        """
        with torch.inference_mode():
            kept = self._prune(view, k)
        index = kept.index.clone()
        if len(index.unique()) != k or (k and int(index.max()) >= len(view.visual)):
            raise ArithmeticError(f"{type(self).__name__} did not keep {k} distinct tokens")
        merged = None if kept.merged is None else kept.merged.clone()
        return Kept(index, merged, None if kept.scores is None else kept.scores.clone())

    @abstractmethod
    def _prune(self, view: LayerView, k: int) -> Kept:
        """Tokens that stay of one image."""


def top(scores: Float[Tensor, " v"], k: int) -> Kept:
    """Return the ``k`` highest scores; ties go to the lower index."""
    order = scores.float().argsort(descending=True, stable=True)
    return Kept(order[:k], scores=scores)


def question_rows(view: LayerView) -> Int64[Tensor, " q"]:
    """Return the positions that ask: the question's, or the image's last if nothing follows it."""
    return view.question if len(view.question) else view.visual[-1:]
