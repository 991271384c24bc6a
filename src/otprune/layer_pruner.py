"""The interface of a layer pruner, which drops visual tokens inside the language model."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from otprune.method import Method
from otprune.precision import without_outer_settings
from otprune.schedule import Point, parse_schedule, solve
from otprune.selector import Selector
from otprune.signals import NO_SIGNALS, Signals


class Probe(Protocol):
    """Attention, keys and angles of the layers around a point, for one prompt without padding.

    ``layer`` is the layer about to run, or the one before it if the pruner ``looks_back``.
    """

    def attention(self, layer: int, rows: Int64[Tensor, " r"]) -> Float[Tensor, "h r t"]:
        """Attention of some positions to all, causal, as probabilities in float32.

        Computed for these rows alone, under any attention implementation of the model: O(r t).
        """
        ...

    def keys(self, layer: int) -> Float[Tensor, "g t c"]:
        """Keys of a layer with their rotary angles applied, for each key-value head."""
        ...

    def rotary(self, layer: int) -> tuple[Float[Tensor, "t c"], Float[Tensor, "t c"]]:
        """Cosines and sines of the positions' rotary angles in a layer."""
        ...

    def final_norm(self, hidden: Float[Tensor, "t d"]) -> Float[Tensor, "t d"]:
        """The norm after the language model's last layer."""
        ...


@dataclass(frozen=True)
class LayerView:
    """One image of one prompt at the input of a layer.

    Positions are indices into the prompt's remaining sequence, padding left out.

    Attributes:
        layer: number of the layer about to run.
        hidden: its input, [t d].
        visual: positions of the image's remaining tokens, ascending.
        numbers: which of the image's n tokens these are; merged tokens have numbers from n on.
        n: tokens of the image before any pruning.
        question: positions of the text after the prompt's last image, a given answer left out.
        positions: rotary position of each position, [t]; [3 t] or [4 t] under multimodal rotary
            embedding.
        probe: attention, keys and angles of the layers around.
        accumulated: sum over the observed layers of `LayerPruner.observe`, [t]; 0 at merged tokens.
            None if no layer before this one was observed.
        started: result of `LayerPruner.start`.
        signals: about the tokens ``numbers``; none about tokens if the image has merged ones.
    """

    layer: int
    hidden: Float[Tensor, "t d"]
    visual: Int64[Tensor, " v"]
    numbers: Int64[Tensor, " v"]
    n: int
    question: Int64[Tensor, " q"]
    positions: Int64[Tensor, "*m t"]
    probe: Probe
    accumulated: Float[Tensor, " t"] | None = None
    started: Any = None
    signals: Signals = NO_SIGNALS


@dataclass(frozen=True, slots=True)
class Modules:
    """Inputs and outputs of a layer's attention and feed-forward modules, [b t d] each.

    Attributes:
        layer: number of the layer.
        attention_in: input of the attention module, normalised.
        attention_out: its output, before it is added to the residual stream.
        feed_forward_in: input of the feed-forward module, normalised.
        feed_forward_out: its output, before it is added to the residual stream.
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
    """The tokens of an image that a layer pruner keeps.

    Attributes:
        index: which of ``view.visual`` are kept, in any order; the sequence keeps its order.
        merged: new tokens, which follow the kept ones; [c d].
        scores: the scores that the tokens were ranked by, for a trace; [v].
    """

    index: Int64[Tensor, " k"]
    merged: Float[Tensor, "c d"] | None = None
    scores: Float[Tensor, " v"] | None = None


class LayerPruner(Method, ABC):
    """A rule that drops visual tokens at the input of some layers, by a schedule.

    A field ``schedule`` (see `parse_schedule`) gives the layers and how many tokens are kept there;
    its layer L is always the first layer that the smaller number of tokens enters. Each image of a
    prompt is pruned separately. The model takes care of batches, padding, caches, positions and
    budgets.

    Class attributes:
        looks_back: whether `prune` uses the `Probe` of the layer before.
        starts: whether `start` is called.
        positions: rotary positions of the remaining tokens: "original" or "compact" (0, 1, ...).
    """

    __slots__ = ()
    _kind: ClassVar[str] = "layer pruner"
    _use: ClassVar[str] = (
        "it works inside the language model: give otprune.pruning.make_pruning(method) to a model "
        "as its pruning, or call prune(view, k) with an otprune.LayerView"
    )
    looks_back: ClassVar[bool] = False
    starts: ClassVar[bool] = False
    positions: ClassVar[Literal["original", "compact"]] = "original"
    schedule: str

    @property
    def points(self) -> tuple[Point, ...]:
        """The schedule; a point at layer 0 is carried out by `first`."""
        return parse_schedule(self.schedule)

    @property
    def first(self) -> Selector | None:
        """The selector before the language model, if the schedule has a layer 0."""
        return None

    @property
    def observes(self) -> frozenset[int]:
        """Layers that `observe` is called for, unless they come after the schedule's last point."""
        return frozenset()

    def observe(self, modules: Modules) -> Float[Tensor, "b t"]:
        """Return a number for each position; they are summed over the observed layers."""
        raise NotImplementedError

    def start(self, view: LayerView) -> Any:
        """Return what `prune` will need of the unpruned input of layer 0, for one image."""
        raise NotImplementedError

    def appended(self, dropped: int) -> int:
        """Return how many merged tokens replace so many dropped ones."""
        return 0

    def plan(
        self, n: int, layers: int, target: float | None, cost: Callable[[int], float]
    ) -> dict[int, int]:
        """Return by layer how many of an image's ``n`` tokens are kept from that layer on.

        Args:
            n: tokens of the image.
            layers: number of layers of the language model.
            target: total of ``cost`` over all layers to which the schedule is scaled; None to take
                it as it is.
            cost: cost of a layer, as a function of the tokens that enter it.

        Raises:
            ValueError: a target that the schedule's layers cannot reach.
        """
        if target is None:
            return {point.layer: point.count(n) for point in self.points}
        return solve(self.points, n, layers, target, cost, self.appended)

    def prune(self, view: LayerView, k: int) -> Kept:
        """Return the ``k`` tokens of an image that are kept, 0 <= k < v.

        Raises:
            ArithmeticError: the method did not return k distinct tokens.
        """
        with torch.inference_mode(), without_outer_settings():
            # Sums of values that lie otherwise in memory round otherwise.
            hidden, signals = view.hidden.contiguous(), view.signals.contiguous()
            kept = self._prune(replace(view, hidden=hidden, signals=signals), k)
        index = kept.index.clone()
        if len(index.unique()) != k or (k and int(index.max()) >= len(view.visual)):
            raise ArithmeticError(f"{type(self).__name__} did not keep {k} distinct tokens")
        merged = None if kept.merged is None else kept.merged.clone()
        return Kept(index, merged, None if kept.scores is None else kept.scores.clone())

    @abstractmethod
    def _prune(self, view: LayerView, k: int) -> Kept:
        """Return the tokens of one image that are kept."""


def top(scores: Float[Tensor, " v"], k: int) -> Kept:
    """Return the ``k`` highest scores; ties go to the lower index."""
    order = scores.float().argsort(descending=True, stable=True)
    return Kept(order[:k], scores=scores)


def question_rows(view: LayerView) -> Int64[Tensor, " q"]:
    """Return the positions of the question; the image's last position if no text follows it."""
    return view.question if len(view.question) else view.visual[-1:]
