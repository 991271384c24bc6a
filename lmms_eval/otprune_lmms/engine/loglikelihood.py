"""How likely a continuation is under one config."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from otprune.pruning import Pruning, Trace
from otprune_lmms.engine.generation import Row, Selecting, counted


@dataclass(frozen=True, slots=True)
class Likelihood:
    """The continuation of one row under a model.

    Attributes:
        loss: mean negative log-likelihood of its tokens, nats.
        greedy: whether each of its tokens is the likeliest one.
        tokens: how many it has, the template's end of turn included.
        kept: tokens of each image that were left.
        candidates: tokens of each image before any pruning.
    """

    loss: float
    greedy: bool
    tokens: int
    kept: tuple[int, ...]
    candidates: tuple[int, ...]


def likelihoods(
    model: Any,
    rows: Sequence[Row],
    pruning: Pruning | None,
    selecting: Selecting | None = None,
) -> list[Likelihood]:
    """Return the likelihood of each row's last ``answer`` tokens, one call for each row.

    Counted from the end of the sequence, where neither images nor pruning move anything. Methods
    that look at the question do not see the answer.

    Raises:
        ValueError: a row whose continuation is empty or was cut off by the model's longest prompt.
    """
    return [_likelihood(model, row, pruning, selecting) for row in rows]


def _likelihood(
    model: Any, row: Row, pruning: Pruning | None, selecting: Selecting | None
) -> Likelihood:
    if row.answer < 1:
        raise ValueError("a continuation must have at least one token, got none")
    trace = Trace(watch=selecting)
    logits = model(
        input_ids=row.ids[None].to(model.device),
        visual=list(row.visual),
        image_ids=list(row.image_ids),
        answer_lengths=[row.answer],
        pruning=pruning,
        trace=trace,
        use_cache=False,
        logits_to_keep=row.answer + 1,
    ).logits[0]
    if any(trace.truncated):
        raise ValueError(
            f"the prompt is {trace.truncated[0]} positions longer than the model takes, and the "
            "continuation at its end is cut"
        )
    wanted = row.ids[-row.answer :].to(logits.device)
    predicted = logits[:-1].float()
    loss = torch.nn.functional.cross_entropy(predicted, wanted)
    greedy = bool((predicted.argmax(dim=1) == wanted).all())
    ((kept, candidates),) = counted([row], trace)
    return Likelihood(float(loss), greedy, row.answer, kept, candidates)
