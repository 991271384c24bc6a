"""A cache of rankings: an image's tokens are ranked once for all budgets and all requests."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import SupportsIndex

from torch import Tensor

from otprune import Selector, Signals
from otprune.cost import DecoderShape
from otprune.pruning import Pruning
from otprune.pruning.choose import on_cpu
from otprune.signals import TEXT_SIGNALS

_BYTES = 1 << 26
"""Bytes of pick orders held: 36 000 orders of 230 tokens."""

TokenVariant = tuple[str | None, bool]
"""What decides an image's candidates apart from its content: the image view, and whether newline
tokens are kept in addition to the budget."""

_Key = tuple[int, int, TokenVariant, Selector, int | None]
"""Image, number of tokens, variant, method, and the budget of a method that is not nested."""


class Rankings:
    """Pick orders of images, by content and method.

    A nested method (`Selector.nested`) ranks an image once, for the largest expected budget;
    smaller budgets are prefixes. Any other method ranks it once for each budget. This is done only
    for selectors before the language model that do not depend on the prompt's text.

    Args:
        shape: the model's decoder, which decides the tokens of a budget over all layers.
        limit: bytes of pick orders held; the least recently used are dropped first.
        active: if False, `bind` returns prunings unchanged.

    Attributes:
        ranked: number of rankings made, over all images and methods.
    """

    def __init__(self, shape: DecoderShape, limit: int = _BYTES, active: bool = True) -> None:
        self.shape, self.limit, self.active = shape, limit, active
        self.ranked = 0
        self._orders: OrderedDict[_Key, Tensor] = OrderedDict()
        self._size = 0
        self._expected: dict[Selector, list[Pruning]] = {}

    def expect(self, prunings: Iterable[Pruning | None]) -> None:
        """Set the prunings that follow; a nested method ranks an image for their largest budget."""
        self._expected = {}
        for pruning in prunings:
            selector = None if pruning is None else _ranker(pruning)
            if pruning is not None and selector is not None:
                self._expected.setdefault(selector, []).append(pruning)

    def bind(self, pruning: Pruning | None, view: str | None) -> Pruning | None:
        """Return a pruning that keeps the same tokens and looks up pick orders here."""
        selector = None if pruning is None or not self.active else _ranker(pruning)
        if pruning is None or selector is None:
            return pruning
        cached = _CachedSelector(selector, self, (view, pruning.keep_newlines))
        first = replace(pruning.stages[0], method=cached)
        return replace(pruning, stages=(first, *pruning.stages[1:]))

    def largest(self, selector: Selector, n: int, least: int) -> int:
        """Return the largest expected budget below ``n`` tokens, at least ``least``."""
        plans = [one.plan(n, self.shape) for one in self._expected.get(selector, [])]
        budgets = [plan.get(0, n) for plan in plans]
        return max([least, *(budget for budget in budgets if budget < n)])

    def find(self, key: _Key, k: int) -> Tensor | None:
        """Return the first picks of an image, at least k of them; None if they are not known."""
        order = self._orders.get(key)
        if order is None or len(order) < k:
            return None
        self._orders.move_to_end(key)
        return order

    def keep(self, key: _Key, order: Tensor) -> None:
        """Store a pick order, which is on the CPU."""
        before = self._orders.pop(key, None)
        self._size += order.nbytes - (0 if before is None else before.nbytes)
        self._orders[key] = order
        self.ranked += 1
        while self._size > self.limit and len(self._orders) > 1:
            self._size -= self._orders.popitem(last=False)[1].nbytes


def _ranker(pruning: Pruning) -> Selector | None:
    """Return the selector before the language model whose picks the image alone decides."""
    if pruning.compat is not None or not pruning.stages or pruning.stages[0].layer:
        return None
    method = pruning.stages[0].method
    if not isinstance(method, Selector) or not method.needs.isdisjoint(TEXT_SIGNALS):
        return None
    # Otherwise the picks are no prefix of an order that the budget alone cuts off.
    return method if method.fixed_count else None


@dataclass(frozen=True, slots=True)
class _CachedSelector(Selector):
    """A method that looks up pick orders of images with an ``image_id``.

    Attributes:
        method: what ranks.
        rankings: where orders are held.
        variant: see `TokenVariant`.
    """

    method: Selector
    rankings: Rankings
    variant: TokenVariant

    # Other methods have a class variable; here it is that of the wrapped method.
    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """Signals that the wrapped method needs."""
        return self.method.needs

    @property
    def nested(self) -> bool:
        """Whether the wrapped method is nested."""
        return self.method.nested

    def select_batch(
        self,
        tokens: Sequence[Tensor],
        k: SupportsIndex | Sequence[SupportsIndex] | None = None,
        *,
        keep_ratio: float | None = None,
        signals: Sequence[Signals] | None = None,
    ) -> list[Tensor]:
        """See `Selector.select_batch`; kept positions that are looked up are on the CPU."""
        named = signals is not None and all(one.image_id is not None for one in signals)
        if not isinstance(k, Sequence) or signals is None or not named:
            return self.method.select_batch(tokens, k, keep_ratio=keep_ratio, signals=signals)
        budgets = [int(count) for count in k]
        whole = [i for i, image in enumerate(tokens) if budgets[i] >= len(image)]
        kept = dict(zip(whole, self._without_ranking(whole, tokens, budgets, signals), strict=True))
        left = [i for i in range(len(tokens)) if i not in kept]
        keys = {i: self._key(tokens[i], budgets[i], signals[i]) for i in left}
        self._rank_missing(keys, tokens, budgets, signals)
        for i, key in keys.items():
            order = self.rankings.find(key, budgets[i])
            if order is None:
                # Dropped already: the images of one call exceed the limit.
                (order,) = self.method.rank_batch([tokens[i]], [budgets[i]], [signals[i]])
            kept[i] = self.method._arrange(order[: budgets[i]].cpu())
        return [kept[i] for i in range(len(tokens))]

    def _without_ranking(
        self,
        rows: Sequence[int],
        tokens: Sequence[Tensor],
        budgets: Sequence[int],
        signals: Sequence[Signals],
    ) -> list[Tensor]:
        """Call the method itself for images that keep all tokens, or whose budget it refuses."""
        if not rows:
            return []
        return self.method.select_batch(
            [tokens[i] for i in rows],
            k=[budgets[i] for i in rows],
            signals=[signals[i] for i in rows],
        )

    def _key(self, tokens: Tensor, k: int, signals: Signals) -> _Key:
        name = -1 if signals.image_id is None else signals.image_id
        return name, len(tokens), self.variant, self.method, None if self.nested else k

    def _rank_missing(
        self,
        keys: dict[int, _Key],
        tokens: Sequence[Tensor],
        budgets: Sequence[int],
        signals: Sequence[Signals],
    ) -> None:
        """Rank the images without a stored pick order, each once, all in one call."""
        rows: dict[_Key, int] = {}
        for i, key in keys.items():
            if self.rankings.find(key, budgets[i]) is None:
                rows.setdefault(key, i)
        if not rows:
            return
        wanted = [budgets[i] for i in rows.values()]
        if self.nested:
            wanted = [
                self.rankings.largest(self.method, len(tokens[i]), budgets[i])
                for i in rows.values()
            ]
        orders = self.method.rank_batch(
            [tokens[i] for i in rows.values()], wanted, [signals[i] for i in rows.values()]
        )
        for key, order in zip(rows, on_cpu(orders), strict=True):
            self.rankings.keep(key, order.clone())

    def _rank_image(self, tokens: Tensor, k: int, signals: Signals) -> Tensor:
        return self.method._rank_image(tokens, k, signals)
