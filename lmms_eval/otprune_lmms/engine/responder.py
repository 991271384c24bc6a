"""From questions and visual tokens to answers."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import torch

from otprune.pruning import Pruning
from otprune.pruning.image_tokens import ImageTokens
from otprune_lmms.engine.generation import Row, Selecting, write
from otprune_lmms.engine.identity import image_number
from otprune_lmms.engine.loglikelihood import likelihoods
from otprune_lmms.engine.phases import Watch
from otprune_lmms.engine.prompts import prompt_of, token_ids
from otprune_lmms.engine.requests import Answer, RequestError
from otprune_lmms.engine.survey import Question
from otprune_lmms.engine.visual import ImageKey

Respond = Callable[[Sequence[Question]], list[Answer]]


class Responder:
    """The language model's side of the engine.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        template: name of the conversation template.
        use_cache: keep keys and values while decoding.
        watch: takes the times of each batch by phase; None for nothing but its seconds.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        template: str,
        use_cache: bool = True,
        watch: Watch | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.template, self.use_cache, self.watch = template, use_cache, watch
        # A prompt comes once for every config.
        self._ids = lru_cache(maxsize=1024)(partial(token_ids, tokenizer=tokenizer))

    def bind(self, pruning: Pruning | None, visual: Mapping[ImageKey, ImageTokens]) -> Respond:
        """Return the function that answers questions of one batch under one pruning."""

        def respond(questions: Sequence[Question]) -> list[Answer]:
            begin = time.perf_counter()
            rows = [self.row(question, visual) for question in questions]
            if self.watch is None:
                answers = self._respond(questions, rows, pruning)
            else:
                answers = self._watched(self.watch, questions, rows, pruning)
            share = (time.perf_counter() - begin) / len(questions)
            return [replace(answer, seconds=share) for answer in answers]

        return respond

    def _watched(
        self,
        watch: Watch,
        questions: Sequence[Question],
        rows: Sequence[Row],
        pruning: Pruning | None,
    ) -> list[Answer]:
        writes = questions[0].request.kind == "generate"
        with watch.answer(self.model, writes) as run:
            answers = self._respond(questions, rows, pruning, run.selecting)
            run.dropped = any(one.kept != one.candidates for one in answers)
        images = [[(one, q.generation.aspect) for one in q.images] for q in questions]
        shares = watch.shares(images)
        return [replace(a, phases=share) for a, share in zip(answers, shares, strict=True)]

    def _respond(
        self,
        questions: Sequence[Question],
        rows: Sequence[Row],
        pruning: Pruning | None,
        selecting: Selecting | None = None,
    ) -> list[Answer]:
        first = questions[0]
        if first.request.kind == "loglikelihood":
            try:
                found = likelihoods(self.model, rows, pruning, selecting)
            except ValueError as error:
                names = ", ".join(question.request.name for question in questions)
                raise RequestError(f"{names}: {error}") from error
            return [
                Answer(None, one.loss, one.greedy, one.kept, one.candidates, one.tokens)
                for one in found
            ]
        if not first.generation.samples:
            return self._write(rows, pruning, first, selecting)
        device = self.model.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(rows[0].seed)
            return self._write(rows, pruning, first, selecting)

    def _write(
        self,
        rows: Sequence[Row],
        pruning: Pruning | None,
        question: Question,
        selecting: Selecting | None,
    ) -> list[Answer]:
        written = write(
            self.model,
            self.tokenizer,
            rows,
            pruning,
            question.generation,
            use_cache=self.use_cache,
            selecting=selecting,
        )
        return [
            Answer(text=one.text, kept=one.kept, candidates=one.candidates, new_tokens=one.tokens)
            for one in written
        ]

    def row(self, question: Question, visual: Mapping[ImageKey, ImageTokens]) -> Row:
        """Return a question as the model takes it."""
        ids = self._ids(question.prompt)
        answer = 0
        if question.request.kind == "loglikelihood":
            whole = prompt_of(
                question.request,
                len(question.images),
                self.template,
                question.request.continuation,
            )
            begin, ids = len(ids), self._ids(whole)
            answer = len(ids) - begin
        return Row(
            ids=ids,
            visual=tuple(visual[image, question.generation.aspect] for image in question.images),
            image_ids=tuple(image_number(image) for image in question.images),
            seed=int(question.digest[:15], 16),
            answer=answer,
        )
