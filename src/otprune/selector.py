"""The interface of a selector: visual tokens in, indices of the tokens worth keeping out.

A method is a frozen dataclass that implements ``_rank_image``, or ``_rank_images`` to handle a
batch at once. Input checks, budgets, batches and the order of the result are implemented here.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, SupportsIndex

import torch
from jaxtyping import Int64
from torch import Tensor

from otprune.budget import resolve_budget
from otprune.checks import check_batch_of_tokens
from otprune.method import Method
from otprune.precision import without_outer_settings
from otprune.signals import NO_SIGNALS, Signals
from otprune.types import KeptIndices, PickOrder, VisualTokens


class Selector(Method, ABC):
    """A rule that picks k of the n visual tokens of an image.

    Every call is deterministic, records no gradient, never returns an index twice, and does not
    change the tokens. Indices are int64 on the tokens' device. Unless a method documents otherwise,
    arithmetic is float32 for tokens of any dtype, whatever is set around the call
    (`without_outer_settings`), and ties go to the lower index.
    """

    __slots__ = ()
    _kind: ClassVar[str] = "selector"
    _use: ClassVar[str] = "call select(tokens, k), or rank(tokens, k) for the order of its picks"

    @property
    def nested(self) -> bool:
        """Whether the pick order for a smaller k is a prefix of that for a larger one."""
        return True

    @property
    def fixed_count(self) -> bool:
        """Whether `select` keeps k tokens of every image; `AdaptiveSelector` may not."""
        return True

    def rank(self, tokens: Tensor, k: SupportsIndex, signals: Signals | None = None) -> PickOrder:
        """Return the first ``k`` picks in the order in which the method picks them.

        If `nested`, every prefix is the result for that smaller budget, so that several budgets
        need one call, with the largest. Near-ties within rounding may differ between two budgets.

        Raises:
            ValueError: tokens not a finite floating matrix [n d], k outside 1..n, a signal missing.
        """
        return self.rank_batch([tokens], [k], [signals or NO_SIGNALS])[0]

    def rank_batch(
        self,
        tokens: Sequence[Tensor],
        k: Sequence[SupportsIndex],
        signals: Sequence[Signals] | None = None,
    ) -> list[Tensor]:
        """`rank` for several images [n_i d] of any sizes: one pick order [k_i] for each."""
        signals = self._check_images(tokens, signals)
        if not isinstance(k, Sequence) or len(k) != len(tokens):
            raise ValueError(f"k must have one entry per image ({len(tokens)}), got {k!r}")
        return self._rank_checked(list(tokens), _budgets(tokens, k, None), signals)

    def select(
        self,
        tokens: Tensor,
        k: SupportsIndex | None = None,
        *,
        keep_ratio: float | None = None,
        signals: Signals | Sequence[Signals] | None = None,
    ) -> Int64[Tensor, "*b k"]:
        """Return the positions of the kept tokens, ascending: [k] for [n d], [b k] for [b n d].

        Args:
            tokens: visual tokens of one image [n d], or of b images [b n d].
            k: how many to keep; or
            keep_ratio: the share to keep, see `resolve_budget`.
            signals: side information, one for each image.

        Raises:
            ValueError: as `resolve_budget` and `rank`; the message names the image.
        """
        if isinstance(tokens, Tensor) and tokens.ndim == 3:
            if isinstance(signals, Signals):
                raise ValueError(f"signals must be a list of {len(tokens)}, one for each image")
            if len(tokens) == 0:
                raise ValueError(f"tokens must hold at least one image, got {tuple(tokens.shape)}")
            if isinstance(k, Sequence):
                raise ValueError(f"k must be one count for a batch [b n d], got {k!r}")
            if not self.fixed_count:
                raise ValueError(
                    "counts differ between images: give them to select_batch as a list"
                )
            kept = self.select_batch(list(tokens), k=k, keep_ratio=keep_ratio, signals=signals)
            return torch.stack(kept)
        one = [signals] if isinstance(signals, Signals) else signals
        return self.select_batch([tokens], k=k, keep_ratio=keep_ratio, signals=one)[0]

    def select_batch(
        self,
        tokens: Sequence[Tensor],
        k: SupportsIndex | Sequence[SupportsIndex] | None = None,
        *,
        keep_ratio: float | None = None,
        signals: Sequence[Signals] | None = None,
    ) -> list[Tensor]:
        """`select` for images [n_i d] of any sizes; ``k`` is one count or one for each image."""
        signals = self._check_images(tokens, signals)
        counts = _budgets(tokens, k, keep_ratio)
        kept: list[Tensor] = [torch.empty(0)] * len(tokens)
        work = []
        for i, (image, count) in enumerate(zip(tokens, counts, strict=True)):
            if count == len(image):
                kept[i] = torch.arange(count, device=image.device)
            else:
                work.append(i)
        picks = self._picks(
            [tokens[i] for i in work], [counts[i] for i in work], [signals[i] for i in work]
        )
        for i, order in zip(work, picks, strict=True):
            kept[i] = self._arrange(order)
        return kept

    def _picks(self, tokens: list[Tensor], k: list[int], signals: list[Signals]) -> list[Tensor]:
        """Return the picks that `select` keeps of checked images, fewer than all of each."""
        return self._rank_checked(tokens, k, signals)

    def _rank_checked(
        self, tokens: list[Tensor], k: list[int], signals: list[Signals]
    ) -> list[Tensor]:
        return self._checked(self._rank_images, tokens, k, signals)

    def _checked(
        self,
        rank: Callable[[list[Tensor], list[int], list[Signals]], list[Tensor]],
        tokens: list[Tensor],
        k: list[int],
        signals: list[Signals],
    ) -> list[Tensor]:
        """Return the picks of a function as of `_rank_images`, called as it must be, checked."""
        if not tokens:
            return []
        with torch.inference_mode(), without_outer_settings():
            # Sums of values that lie otherwise in memory round otherwise.
            images = [image.contiguous() for image in tokens]
            picks = rank(images, k, [one.contiguous() for one in signals])
        if not _all_distinct(picks, k):
            raise ArithmeticError(f"{type(self).__name__} did not pick {sum(k)} distinct tokens")
        # Copied outside of inference mode, so that the indices can be used where autograd records.
        return [order.clone() for order in picks]

    def _check_images(
        self, tokens: Sequence[Tensor], signals: Sequence[Signals] | None
    ) -> list[Signals]:
        if signals is None:
            signals = [NO_SIGNALS] * len(tokens)
        if not isinstance(signals, Sequence):
            raise ValueError(f"signals must be Signals, one for each image; got {signals!r}")
        if len(signals) != len(tokens):
            raise ValueError(
                f"signals must have one entry per image ({len(tokens)}), got {len(signals)}"
            )
        names = (
            ["tokens"] if len(tokens) == 1 else [f"tokens of image {i}" for i in range(len(tokens))]
        )
        check_batch_of_tokens(tokens, names)
        for i, (image, signal) in enumerate(zip(tokens, signals, strict=True)):
            if not isinstance(signal, Signals):
                raise ValueError(f"signals of image {i} must be Signals, got {signal!r}")
            signal.check_size(len(image), names[i])
            missing = sorted(self.wanted(signal.names) - signal.names)
            if missing:
                wanted = ", ".join(f"signals.{need}" for need in missing)
                raise ValueError(f"{type(self).__name__} needs {wanted} for image {i}")
        return list(signals)

    def _rank_images(
        self, tokens: list[Tensor], k: list[int], signals: list[Signals]
    ) -> list[Tensor]:
        """Return the pick orders of checked images; override to handle a batch at once."""
        return [
            self._rank_image(image, count, signal)
            for image, count, signal in zip(tokens, k, signals, strict=True)
        ]

    @abstractmethod
    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        """Return the pick order of one checked image."""

    def _arrange(self, picks: PickOrder) -> KeptIndices:
        """Return picks in the order in which the kept tokens enter the language model."""
        return picks.sort().values


def _all_distinct(picks: Sequence[Tensor], k: Sequence[int]) -> bool:
    """Return whether each image has as many picks as wanted, all different.

    The host waits once for a batch on one device.
    """
    if any(len(order) != count for order, count in zip(picks, k, strict=True)):
        return False
    repeated: dict[torch.device, list[Tensor]] = {}
    for order in picks:
        found = (order.sort().values.diff() == 0).any()
        repeated.setdefault(order.device, []).append(found)
    return not any(bool(torch.stack(found).any()) for found in repeated.values())


def _budgets(
    tokens: Sequence[Tensor],
    k: SupportsIndex | Sequence[SupportsIndex] | None,
    keep_ratio: float | None,
) -> list[int]:
    if isinstance(k, Sequence):
        if len(k) != len(tokens):
            raise ValueError(f"k must be one count or one per image ({len(tokens)}), got {len(k)}")
        counts: Sequence[SupportsIndex | None] = k
    else:
        counts = [k] * len(tokens)
    budgets = []
    for i, (image, count) in enumerate(zip(tokens, counts, strict=True)):
        try:
            budgets.append(resolve_budget(len(image), keep_ratio=keep_ratio, k=count))
        except ValueError as error:
            if len(tokens) == 1:
                raise
            raise ValueError(f"image {i}: {error}") from None
    return budgets
