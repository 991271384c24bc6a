"""For families that use transformers' `generate`: stop texts, padding, finite logits, counts."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria

from otprune.pruning import Trace
from otprune_lmms.models.protocol import Generation, Likelihood, ModelInput

KeptCounts = tuple[tuple[int, ...], tuple[int, ...]]
"""Numbers of visual tokens of a prompt's images: after the last pruning, and before any."""


_ENDINGS = 1 << 14
"""Decoded ends of answers that are remembered: a few MiB."""


class Endings:
    """Decodes the last ids of answers; the same ids, which many answers end in, only once.

    Args:
        tokenizer: decodes them.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._known: dict[tuple[int, ...], str] = {}

    def texts(self, ids: Tensor) -> list[str]:
        """Return the texts of rows of ids, [b t], without special tokens."""
        rows = [tuple(row) for row in ids.tolist()]
        new = [row for row in dict.fromkeys(rows) if row not in self._known]
        if new:
            if len(self._known) + len(new) > _ENDINGS:
                self._known.clear()
                new = list(dict.fromkeys(rows))
            decoded = self.tokenizer.batch_decode(list(map(list, new)), skip_special_tokens=True)
            self._known.update(zip(new, decoded, strict=True))
        return [self._known[row] for row in rows]


class StopAt(StoppingCriteria):
    """Ends a row once it contains one of some texts.

    Only the last tokens are decoded: a text that has just become complete is at the end.

    Args:
        texts: the texts.
        endings: decodes the ids.
        begin: number of ids in front that are the prompt, in which no text counts.
    """

    def __init__(self, texts: Sequence[str], endings: Endings, begin: int = 0) -> None:
        self.texts, self.begin = texts, begin
        self.endings = endings
        # A token is at least a byte; 4 more for tokens that overlap the text's ends.
        self.last = max(len(text.encode()) for text in texts) + 4

    # The base class declares its arguments as LongTensor and FloatTensor, which Tensor is not.
    def __call__(  # type: ignore[override]
        self, output_ids: Tensor, scores: Tensor, **kwargs: object
    ) -> Tensor:
        """Return for each row whether it has ended, [b]."""
        first = max(self.begin, output_ids.shape[1] - self.last)
        ends = self.endings.texts(output_ids[:, first:])
        done = [any(text in end for text in self.texts) for end in ends]
        return torch.tensor(done, device=output_ids.device)


class FiniteLogits(LogitsProcessor):
    """Notes in which steps of a call of `generate` the model's logits were finite numbers.

    The logits are those that the model returns (`watching`); what generation settings suppress is
    set to -inf only later. Nothing is synchronised until `rows` is called. As a logits processor it
    replaces rows that are not finite by zeros, since drawing from them would end a GPU's context.
    """

    def __init__(self) -> None:
        self._steps: list[Tensor] = []

    @contextmanager
    def watching(self, model: Any) -> Iterator[None]:
        """Look at the last logits [b v] of each forward call of ``model`` in this context."""

        def see(module: Any, arguments: Any, output: Any) -> None:
            self._steps.append(output.logits[:, -1].isfinite().all(dim=-1))

        hook = model.register_forward_hook(see)
        try:
            yield
        finally:
            hook.remove()

    # The base class declares its arguments as LongTensor and FloatTensor, which Tensor is not.
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        """Return scores [b v] with zeros in rows whose logits were not finite."""
        finite = self._steps[-1].to(scores.device)
        return torch.where(finite[:, None], scores, torch.zeros_like(scores))

    def rows(self, tokens: Sequence[int]) -> list[bool]:
        """Return for each answer whether the logits of all its steps were finite.

        Args:
            tokens: number of tokens of each answer. The step behind its last token counts too: a
                token that follows from logits which are not finite may be taken for padding.
        """
        steps = torch.stack(self._steps).cpu()
        beams = steps.shape[1] // len(tokens)
        return [
            bool(steps[: many + 1, row * beams : (row + 1) * beams].all())
            for row, many in enumerate(tokens)
        ]


def cut(text: str, until: Sequence[str]) -> str:
    """Return a text up to the first place where one of ``until`` begins."""
    places = [place for place in (text.find(one) for one in until) if place >= 0]
    return text[: min(places)] if places else text


def is_unfinished(row: Tensor, text: str, generation: Generation, ends: Collection[int]) -> bool:
    """Return whether an answer ended because it had the most tokens allowed.

    It did not where its last token ends an answer, or makes a stop text complete.

    Args:
        row: its ids without the padding behind them, [t].
        text: the same as text, up to no stop text yet.
        generation: its settings.
        ends: ids that end an answer.
    """
    if len(row) < generation.max_new_tokens or int(row[-1]) in ends:
        return False
    return cut(text, generation.until) == text


def end_ids(model: Any) -> frozenset[int]:
    """Return the ids that end an answer by a model's generation settings."""
    given = model.generation_config.eos_token_id
    return frozenset(given if isinstance(given, list) else [given]) - {None}


def padding_id(tokenizer: Any) -> int:
    """Return the id that rows are padded with."""
    padding = tokenizer.pad_token_id
    return tokenizer.eos_token_id if padding is None else padding


def padded(rows: Sequence[Tensor], padding: int) -> tuple[Tensor, Tensor]:
    """Return ids [b t] and mask [b t] of rows, padded on the left."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), padding, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, longest - len(row) :] = row
        mask[number, longest - len(row) :] = True
    return ids, mask


def written_tokens(row: Tensor, padding: int) -> int:
    """Return the number of tokens of an answer [t] before its padding."""
    other = (row != padding).nonzero()
    return int(other[-1]) + 1 if len(other) else 0


def kept_counts(inputs: Sequence[ModelInput], trace: Trace) -> list[KeptCounts]:
    """Return the counts of each prompt of a call, from the call's trace."""
    left = [len(image) for one in inputs for image in one.visual]
    for layer in sorted(trace.kept):
        # Under compat="reference" there is one entry, for the first image.
        for number, kept in enumerate(trace.kept[layer]):
            left[number] = len(kept)
    found, first = [], 0
    for one in inputs:
        last = first + len(one.visual)
        found.append((tuple(left[first:last]), tuple(len(image) for image in one.visual)))
        first = last
    return found


def extend_trace(trace: Trace, call: Trace) -> None:
    """Append a call's trace to that of earlier calls."""
    before = len(trace.visual)
    trace.visual += call.visual
    trace.truncated += call.truncated
    for layer, kept in call.kept.items():
        own = trace.kept.setdefault(layer, [])
        # Earlier images that were not pruned at this layer kept all tokens.
        own += [torch.arange(n) for n in trace.visual[len(own) : before]]
        own += kept
    trace.lengths[:] = [
        [*own, *more]
        for own, more in zip(trace.lengths or [[] for _ in call.lengths], call.lengths, strict=True)
    ]


def each_likelihood(
    inputs: Sequence[ModelInput],
    trace: Trace,
    positions: int,
    one_likelihood: Callable[[ModelInput, Trace], Likelihood],
) -> list[Likelihood]:
    """Return the likelihood of each prompt's continuation, one call for each prompt.

    Args:
        inputs: the prompts.
        trace: extended by the trace of each call.
        positions: the most that the model takes.
        one_likelihood: makes one call, whose trace it fills.

    Raises:
        ValueError: a continuation without tokens, or at the end of a prompt that is too long.
    """
    found = []
    each = Trace(watch=trace.watch)
    for one in inputs:
        if len(one.ids) > positions:
            raise ValueError(
                f"the prompt has more tokens than the {positions} positions that the model takes, "
                "and the continuation at its end is cut"
            )
        if one.answer < 1:
            raise ValueError("a continuation must have at least one token, got none")
        found.append(one_likelihood(one, each))
        extend_trace(trace, each)
    return found


def likelihood_of(predicted: Tensor, one: ModelInput) -> Likelihood:
    """Return the likelihood of a prompt's continuation.

    Args:
        predicted: logits that predict each of its ids, [n v].
        one: the prompt.
    """
    predicted = predicted.float()
    wanted = one.ids[-one.answer :].to(predicted.device)
    loss = torch.nn.functional.cross_entropy(predicted, wanted)
    greedy = bool((predicted.argmax(dim=1) == wanted).all())
    return Likelihood(float(loss), greedy, one.answer, bool(predicted.isfinite().all()))


@torch.no_grad()
def shared_likelihoods(
    model: Any, call: Mapping[str, Any], inputs: Sequence[ModelInput]
) -> list[Likelihood]:
    """Return the likelihoods of continuations whose prompts go on from shared prefixes.

    Args:
        model: the model.
        call: arguments that read the rest of each prompt, padded on the left.
        inputs: the prompts.
    """
    longest = max(one.answer for one in inputs)
    logits = model(**call, logits_to_keep=longest + 1).logits
    return [
        likelihood_of(row[-one.answer - 1 : -1], one)
        for row, one in zip(logits, inputs, strict=True)
    ]


@contextmanager
def after_each_forward(model: Any, called: Callable[[], None]) -> Iterator[None]:
    """Call a function after each forward call of a model in this context."""
    hook = model.register_forward_hook(lambda *_: called())
    try:
        yield
    finally:
        hook.remove()
