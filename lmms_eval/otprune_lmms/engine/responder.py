"""Calls the model with prepared requests and visual tokens."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from otprune.pruning import Pruning, Trace
from otprune.pruning.image_tokens import ImageTokens
from otprune_lmms.engine.phases import PhaseTimer
from otprune_lmms.engine.prepare import PreparedRequest, image_number
from otprune_lmms.engine.requests import Answer, RequestError
from otprune_lmms.engine.visual_store import ImageKey, keys_of
from otprune_lmms.models.generation import kept_counts
from otprune_lmms.models.protocol import ModelInput, Prompt, VisionLanguageModel

Respond = Callable[[Sequence[PreparedRequest]], list[Answer]]


class Responder:
    """Answers prepared requests with a model.

    Args:
        model: the model.
        timer: takes the times of each batch by phase; None for its total time alone.
    """

    def __init__(self, model: VisionLanguageModel, timer: PhaseTimer | None = None) -> None:
        self.model, self.timer = model, timer
        # Cached: a prompt is tokenised once for all configs.
        self._ids: Callable[[Prompt], Tensor] = lru_cache(maxsize=1024)(model.token_ids)

    def bind(self, pruning: Pruning | None, visual: Mapping[ImageKey, ImageTokens]) -> Respond:
        """Return a function that answers requests of one batch under one pruning.

        Args:
            pruning: what is pruned; None for nothing.
            visual: visual tokens of all the batch's images.
        """

        def respond(requests: Sequence[PreparedRequest]) -> list[Answer]:
            begin = time.perf_counter()
            inputs = [self.model_input(one, visual) for one in requests]
            if self.timer is None:
                answers = self._respond(requests, inputs, pruning, Trace())
            else:
                answers = self._timed(self.timer, requests, inputs, pruning)
            share = (time.perf_counter() - begin) / len(requests)
            return [replace(answer, seconds=share) for answer in answers]

        return respond

    def model_input(
        self, one: PreparedRequest, visual: Mapping[ImageKey, ImageTokens]
    ) -> ModelInput:
        """Return a request as the language model takes it."""
        ids = self._ids(one.prompt)
        answer = 0
        if one.request.kind == "loglikelihood":
            request = one.request
            whole = self.model.render(
                request.context, len(one.images), request.generation, request.continuation
            )
            begin, ids = len(ids), self._ids(whole)
            answer = len(ids) - begin
        return ModelInput(
            ids=ids,
            visual=tuple(visual[key] for key in keys_of(one)),
            image_ids=tuple(image_number(image) for image in one.images),
            seed=int(one.digest[:15], 16),
            answer=answer,
        )

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
            try:
                likelihoods = self.model.loglikelihood(inputs, pruning, trace)
            except ValueError as error:
                names = ", ".join(one.request.name for one in requests)
                raise RequestError(f"{names}: {error}") from error
            return [
                Answer(None, one.loss, one.greedy, *counts, one.tokens)
                for one, counts in zip(likelihoods, kept_counts(inputs, trace), strict=True)
            ]
        if not first.generation.samples:
            written = self.model.generate(inputs, pruning, first.generation, trace)
        else:
            gpus = [one for one in self.model.devices if one.type == "cuda"]
            with torch.random.fork_rng(gpus):
                torch.manual_seed(inputs[0].seed)
                written = self.model.generate(inputs, pruning, first.generation, trace)
        return [
            Answer(text=one.text, kept=kept, candidates=candidates, new_tokens=one.tokens)
            for one, (kept, candidates) in zip(written, kept_counts(inputs, trace), strict=True)
        ]
