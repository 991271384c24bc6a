"""The interface of a merger: visual tokens in, fewer new tokens out, each a mixture of old ones."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import ClassVar, Literal, SupportsIndex

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from otprune.budget import resolve_budget
from otprune.checks import check_tokens
from otprune.method import Method
from otprune.precision import without_outer_settings
from otprune.signals import NO_SIGNALS, Signals
from otprune.types import VisualTokens


@dataclass(frozen=True, slots=True)
class Mixture:
    """New tokens, in the order in which they enter the language model.

    They are given either by ``weights`` or as ``tokens``.

    Attributes:
        places: number of the old token whose place each new token takes; -1 where it takes no
            single token's place (a CLS token, a mean of all other tokens).
        weights: share of each old token in each new one, [k m]. The m columns are the old tokens;
            if the merger mixes ``features`` and its ``needs`` name ``cls_features``, the tiles' CLS
            tokens follow.
        tokens: new tokens that are not mixtures of the old ones, [k d].
    """

    places: Int64[Tensor, " k"]
    weights: Float[Tensor, "k m"] | None = None
    tokens: Float[Tensor, "k d"] | None = None


class Merger(Method, ABC):
    """A rule that makes k tokens of the n visual tokens of an image.

    A merger returns the weights of the mixtures; the model computes these, since some methods mix
    before the projector. Every call is deterministic, records no gradient and does not change the
    tokens. Arithmetic is float32 unless a method documents otherwise, whatever is set around the
    call; ties go to the lower index.

    Class attributes:
        space: what is mixed: "tokens", the input of the language model, or "features", the input of
            the projector.
    """

    __slots__ = ()
    _kind: ClassVar[str] = "merger"
    _use: ClassVar[str] = (
        "call merge(tokens, k), which returns new tokens as mixtures of the old ones"
    )
    space: ClassVar[Literal["tokens", "features"]] = "tokens"

    def mixes(self, gives: AbstractSet[str]) -> Literal["tokens", "features"]:
        """Return what is mixed, of a model that gives some signals.

        Tokens where the method does without ``features``, as some do where there is no CLS token.
        """
        return self.space if "features" in self.wanted(gives) else "tokens"

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
            k: how many new ones; a few methods document it as an upper bound; or
            keep_ratio: k / n, see `resolve_budget`.
            signals: side information.

        Raises:
            ValueError: tokens not a finite floating matrix, k outside 1..n, a signal missing, a
                count that the method cannot produce.
        """
        check_tokens(tokens)
        signals.check_size(len(tokens), "tokens")
        missing = sorted(self.wanted(signals.names) - signals.names)
        if missing:
            wanted = ", ".join(f"signals.{need}" for need in missing)
            raise ValueError(f"{type(self).__name__} needs {wanted}")
        count = resolve_budget(len(tokens), keep_ratio=keep_ratio, k=k)
        with torch.inference_mode(), without_outer_settings():
            # Sums of values that lie otherwise in memory round otherwise.
            mixture = self._merge_image(tokens.contiguous(), count, signals.contiguous())
        # Copied outside of inference mode, so that autograd may save the tensors.
        return Mixture(
            mixture.places.clone(),
            None if mixture.weights is None else mixture.weights.clone(),
            None if mixture.tokens is None else mixture.tokens.clone(),
        )

    def count(self, k: int, grid: tuple[int, int]) -> int | None:
        """Return how many new tokens an image gets of which only the shape is known.

        Args:
            k: as for `merge`.
            grid: rows and columns of the image, which is one raster.

        Returns:
            None where the tokens decide.
        """
        return None

    @abstractmethod
    def _merge_image(self, tokens: VisualTokens, k: int, signals: Signals) -> Mixture:
        """Return the new tokens of one checked image."""


def mixed(mixture: Mixture, vectors: Float[Tensor, "m d"]) -> Float[Tensor, "k d"]:
    """Return the mixtures of vectors; computed in float32, in the dtype of the vectors."""
    if mixture.weights is None:
        raise ValueError("weights must be given to mix vectors, got tokens")
    weights = mixture.weights.to(vectors.device, torch.float32)
    with without_outer_settings():
        return (weights.contiguous() @ vectors.float().contiguous()).to(vectors.dtype)


def as_weights(kept: Sequence[int] | Tensor, m: int) -> Float[Tensor, "k m"]:
    """Return the weights of mixtures that are single old tokens; ``m`` columns."""
    index = torch.as_tensor(kept, dtype=torch.long)
    return torch.nn.functional.one_hot(index, m).float()
