"""The contract of a merger: visual tokens in, fewer new tokens out, each a mixture of old ones."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, SupportsIndex

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from otprune.budget import resolve_budget
from otprune.checks import check_tokens
from otprune.method import Method
from otprune.signals import NO_SIGNALS, Signals
from otprune.types import VisualTokens


@dataclass(frozen=True, slots=True)
class Mixture:
    """New tokens, in the order in which they enter the language model.

    Either weights, or tokens as they are.

    Attributes:
        places: number of the old token in whose place each new one stands, -1 if it stands for no
            single place (a CLS token, what is left over).
        weights: share of each old token, then of each tile's CLS token if the merger mixes
            ``features`` and its ``needs`` name ``cls_features``; [k m].
        tokens: new tokens that are no mixture of the old ones, [k d].
    """

    places: Int64[Tensor, " k"]
    weights: Float[Tensor, "k m"] | None = None
    tokens: Float[Tensor, "k d"] | None = None


class Merger(Method, ABC):
    """A rule that makes k tokens of the n visual tokens of an image.

    It says with which weights old tokens are mixed; the model mixes, since some methods do so
    before the projector. Every call is deterministic, needs no gradient and leaves the tokens as
    they are. Arithmetic is float32 unless a method says otherwise; ties go to the lower index.

    Class attributes:
        space: what is mixed: "tokens" as the language model takes them, or "features" as the
            projector does.
    """

    __slots__ = ()
    space: ClassVar[Literal["tokens", "features"]] = "tokens"

    def merge(
        self,
        tokens: Tensor,
        k: SupportsIndex | None = None,
        *,
        keep_ratio: float | None = None,
        signals: Signals = NO_SIGNALS,
    ) -> Mixture:
        """Return the new tokens of one image.

        Args:
            tokens: visual tokens [n d].
            k: how many new ones; a method that decides itself treats it as an upper bound and says
                so; or
            keep_ratio: k / n, see `resolve_budget`.
            signals: side information.

        Raises:
            ValueError: tokens not a finite floating matrix, k outside 1..n, a signal missing, a
                count that the method cannot make.
        """
        check_tokens(tokens)
        signals.check_size(len(tokens), "tokens")
        missing = sorted(need for need in self.needs if getattr(signals, need) is None)
        if missing:
            wanted = ", ".join(f"signals.{need}" for need in missing)
            raise ValueError(f"{type(self).__name__} needs {wanted}")
        count = resolve_budget(len(tokens), keep_ratio=keep_ratio, k=k)
        with torch.inference_mode():
            mixture = self._merge_image(tokens, count, signals)
        # Copies made out here are ordinary tensors, which autograd may save.
        copies = [
            None if part is None else part.clone()
            for part in (mixture.places, mixture.weights, mixture.tokens)
        ]
        return Mixture(*copies)  # type: ignore[arg-type]

    @abstractmethod
    def _merge_image(self, tokens: VisualTokens, k: int, signals: Signals) -> Mixture:
        """New tokens of one checked image."""


def mixed(mixture: Mixture, vectors: Float[Tensor, "m d"]) -> Float[Tensor, "k d"]:
    """Return weights times vectors: float32 inside, the vectors' dtype out."""
    if mixture.weights is None:
        raise ValueError("weights must be given to mix vectors, got tokens")
    weights = mixture.weights.to(vectors.device, torch.float32)
    return (weights @ vectors.float()).to(vectors.dtype)


def as_weights(kept: Sequence[int] | Tensor, m: int) -> Float[Tensor, "k m"]:
    """Return weights that take tokens as they are."""
    index = torch.as_tensor(kept, dtype=torch.long)
    return torch.nn.functional.one_hot(index, m).float()
