"""Calls the model with prepared requests and visual tokens."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from otprune.pruning import Pruning, Trace
from otprune.pruning.image_tokens import ImageTokens
from otprune_lmms.engine.phases import PhaseTimer
from otprune_lmms.engine.prepare import PreparedRequest, image_number
from otprune_lmms.engine.requests import Answer, RequestError
from otprune_lmms.engine.visual_store import ImageKey, keys_of
from otprune_lmms.models.generation import kept_counts
from otprune_lmms.models.protocol import (
    Likelihood,
    ModelInput,
    Prompt,
    VisionLanguageModel,
    Written,
)
from otprune_lmms.models.shared_prefix import shared_beginning


class _NotFiniteError(ValueError):
    """The model's logits about one request are NaN or infinite, so its answer means nothing."""

    def __init__(self, one: PreparedRequest) -> None:
        super().__init__(
            "the model's logits must be finite numbers, got NaN or infinity: its weights are "
            "damaged, or its activations overflow in this dtype (float16 does before bfloat16 and "
            "float32)"
        )
        self.one = one


_PROMPTS = 1024
"""Tokenised prompts held."""

Respond = Callable[[Sequence[PreparedRequest]], list[Answer]]


class Responder:
    """Answers prepared requests with a model.

    Args:
        model: the model.
        timer: takes the times of each batch by phase; None for its total time alone.
        share_prefix: let prompts that begin alike share the beginning; not under a timer, which
            shares the time of a call equally among its prompts.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        timer: PhaseTimer | None = None,
        *,
        share_prefix: bool = False,
    ) -> None:
        self.model, self.timer = model, timer
        self.share_prefix = share_prefix and timer is None
        self._ids: dict[tuple[Prompt, tuple[ImageKey, ...]], Tensor] = {}

    def bind(
        self, pruning: Pruning | None, visual: Mapping[ImageKey, ImageTokens], setting: str
    ) -> Respond:
        """Return a function that answers requests of one batch under one pruning.

        The function raises `RequestError`, with document and setting, where logits are not finite
        numbers or the model cannot answer.

        Args:
            pruning: what is pruned; None for nothing.
            visual: visual tokens of all the batch's images.
            setting: label of the pruning config, for messages.
        """

        def respond(requests: Sequence[PreparedRequest]) -> list[Answer]:
            begin = time.perf_counter()
            try:
                inputs = [self.model_input(one, visual) for one in requests]
                if self.timer is None:
                    answers = self._respond(requests, inputs, pruning, Trace())
                else:
                    answers = self._timed(self.timer, requests, inputs, pruning)
            except ValueError as error:
                culprits = [error.one] if isinstance(error, _NotFiniteError) else requests
                names = ", ".join(one.request.name for one in culprits)
                raise RequestError(f"{names}, under {setting}: {error}") from error
            share = (time.perf_counter() - begin) / len(requests)
            return [replace(answer, seconds=share) for answer in answers]

        return respond

    def model_input(
        self, one: PreparedRequest, visual: Mapping[ImageKey, ImageTokens]
    ) -> ModelInput:
        """Return a request as the language model takes it."""
        ids = self._token_ids(one.prompt, one, visual)
        answer = 0
        if one.request.kind == "loglikelihood":
            request = one.request
            whole = self.model.render(
                request.context, len(one.images), request.generation, request.continuation
            )
            asked, ids = ids, self._token_ids(whole, one, visual)
            # The continuation begins at the first id that differs: its first letters and the last
            # of the prompt may be one token.
            answer = len(ids) - shared_beginning(asked, ids)
        return ModelInput(
            ids=ids,
            visual=tuple(visual[key] for key in keys_of(one)),
            image_ids=tuple(image_number(image) for image in one.images),
            seed=int(one.digest[:15], 16),
            answer=answer,
        )

    def _token_ids(
        self, prompt: Prompt, one: PreparedRequest, visual: Mapping[ImageKey, ImageTokens]
    ) -> Tensor:
        """Return a prompt's ids; a prompt is tokenised once for all configs."""
        keys = tuple(keys_of(one))
        if (prompt, keys) not in self._ids:
            if len(self._ids) >= _PROMPTS:
                del self._ids[next(iter(self._ids))]
            self._ids[prompt, keys] = self.model.token_ids(prompt, [visual[key] for key in keys])
        return self._ids[prompt, keys]

    def _timed(
        self,
        timer: PhaseTimer,
        requests: Sequence[PreparedRequest],
        inputs: Sequence[ModelInput],
        pruning: Pruning | None,
    ) -> list[Answer]:
        writes = requests[0].request.kind == "generate"
        with timer.answer(self.model, writes) as timing:
            answers = self._respond(requests, inputs, pruning, Trace(watch=timing.selecting))
            timing.dropped = any(one.kept != one.candidates for one in answers)
        shares = timer.shares([keys_of(one) for one in requests])
        return [replace(a, phases=share) for a, share in zip(answers, shares, strict=True)]

    def _respond(
        self,
        requests: Sequence[PreparedRequest],
        inputs: Sequence[ModelInput],
        pruning: Pruning | None,
        trace: Trace,
    ) -> list[Answer]:
        first = requests[0]
        if first.request.kind == "loglikelihood":
            likelihoods = self.model.loglikelihood(
                inputs, pruning, trace, share_prefix=self.share_prefix
            )
            _check_finite(requests, likelihoods)
            return [
                Answer(None, one.loss, one.greedy, *counts, one.tokens)
                for one, counts in zip(likelihoods, kept_counts(inputs, trace), strict=True)
            ]
        if not first.generation.samples:
            written = self.model.generate(
                inputs, pruning, first.generation, trace, share_prefix=self.share_prefix
            )
        else:
            gpus = [one for one in self.model.devices if one.type == "cuda"]
            with torch.random.fork_rng(gpus):
                torch.manual_seed(inputs[0].seed)
                written = self.model.generate(inputs, pruning, first.generation, trace)
        _check_finite(requests, written)
        lost = trace.truncated or [0] * len(inputs)
        counts = zip(written, kept_counts(inputs, trace), lost, strict=True)
        return [
            Answer(
                one.text,
                kept=kept,
                candidates=every,
                new_tokens=one.tokens,
                truncated=cut,
                unfinished=one.unfinished,
            )
            for one, (kept, every), cut in counts
        ]


def _check_finite(
    requests: Sequence[PreparedRequest], outputs: Sequence[Written | Likelihood]
) -> None:
    """Raise `_NotFiniteError` at the first output whose logits were not finite numbers."""
    for request, output in zip(requests, outputs, strict=True):
        loss = output.loss if isinstance(output, Likelihood) else 0.0
        if not (output.finite and math.isfinite(loss)):
            raise _NotFiniteError(request)
