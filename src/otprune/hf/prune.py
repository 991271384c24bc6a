"""Prune the visual tokens of any vision-language model of transformers while a block runs.

    with otprune.hf.pruned(model, "otprune", keep_ratio=0.1) as trace:
        model.generate(**inputs)

Inside the block `forward` and `generate` of this one model object are wrapped, and its decoder if
something is pruned inside it; afterwards the model is as it was. The model's code is not touched.
"""

import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from otprune.hf.families import Family, Unit, UnsupportedModelError, family_of
from otprune.hf.inputs import ImageIds, ImageOptions, PrunedInputs, check_pruning, prepare
from otprune.hf.inside import Call, PrunedDecoder, calling, current_call
from otprune.hf.visual import modalities
from otprune.hf.wrapping import bound, replaced
from otprune.method import Method
from otprune.pruning import Match, Positions, Pruning, Trace, make_pruning

# Choosing tokens is no code to compile, in a model whose own forward is compiled.
_prepare: Any = torch.compiler.disable(prepare)

_LENGTHS = ("max_length", "min_length")
"""Settings of `generate` that count the prompt."""


_LOCK = threading.Lock()
_OPEN: "weakref.WeakKeyDictionary[Any, list[_PrunedModel]]" = weakref.WeakKeyDictionary()
"""For each model its open blocks, outermost first; the last one is installed."""


@contextmanager
def pruned(
    model: Any,
    method: str | Method | Pruning,
    *,
    keep_ratio: float | None = None,
    k: int | None = None,
    layer: int = 0,
    positions: Positions | None = None,
    keep_newlines: bool = False,
    match: Match | None = None,
    preset: str | None = None,
    unit: Unit | None = None,
    tokenizer: Any = None,
    image_ids: ImageIds | None = None,
    **settings: Any,
) -> Iterator[Trace]:
    """Prune the images of every `forward` and `generate` of a model inside the block.

    What `generate` returns begins with the caller's own prompt, so ``out[:, input_ids.shape[1]:]``
    is the answer as before; ``max_length`` counts that prompt, too. Logits of a direct call are
    those of the shortened sequence. Calls without images, and steps that go on from a cache, are
    left as they are. Blocks may be nested: the inner one holds. Threads that are started in a block
    prune as well, so `TextIteratorStreamer` works; a second thread cannot enter a block of the same
    model meanwhile.

    Args:
        model: a ``...ForConditionalGeneration`` of transformers, loaded as usual.
        method: a method's name, a method, or a whole `Pruning`.
        keep_ratio: share of the tokens that are kept; or
        k: how many are.
        layer: 0 prunes before the language model, L >= 1 at the input of its layer L.
        positions: rotary positions of kept tokens, see `Pruning`. Families with positions of
            several axes always keep the original ones.
        keep_newlines: keep all newline tokens of LLaVA-NeXT and LLaVA-OneVision beside the budget.
        match: what a budget counts, see `make_pruning`.
        preset: of the method.
        unit: what one budget is for: "image", "tile", or "sample" for all images of a prompt.
            Default: the image; the tile in Idefics3 and SmolVLM, whose prompts do not say which
            tiles are one image.
        tokenizer: the model's tokenizer or processor, for methods that read the question as text.
        image_ids: a number for each unit of a call, by which seeded methods tell images apart; or
            a function that takes how many there are and returns them, asked at each call.
        **settings: of the method.

    Yields:
        A trace of the last call.

    Raises:
        UnsupportedModelError: the model cannot be pruned so; the message says why.
        ValueError: an unknown method or setting, an impossible value, settings beside a `Pruning`.
        RuntimeError: another thread has a block of the same model open.
    """
    given = {
        "keep_ratio": keep_ratio, "k": k, "layer": layer or None, "positions": positions,
        "keep_newlines": keep_newlines or None, "match": match, "preset": preset, **settings,
    }  # fmt: skip
    if isinstance(method, Pruning):
        beside = sorted(name for name, value in given.items() if value is not None)
        if beside:
            raise ValueError(f"a Pruning has its own settings, got also {', '.join(beside)}")
        pruning = method
    else:
        pruning = make_pruning(
            method,
            keep_ratio=keep_ratio,
            k=k,
            layer=layer,
            positions=positions,
            keep_newlines=keep_newlines,
            match=match,
            preset=preset,
            **settings,
        )
    family = family_of(model)
    check_pruning(family, pruning, unit)
    run = _PrunedModel(family, pruning, ImageOptions(unit, tokenizer, image_ids), Trace())
    with _open(run):
        yield run.trace


@contextmanager
def _open(run: "_PrunedModel") -> Iterator[None]:
    """Install a block's wrappers in the place of those of the block around it.

    Raises:
        RuntimeError: another thread has a block of the same model open.
    """
    with _LOCK:
        blocks = _OPEN.setdefault(run.model, [])
        if blocks and blocks[-1].thread != run.thread:
            raise RuntimeError(
                "another thread has otprune.hf.pruned of this model open; share one block between "
                "threads, or give each its own copy of the model"
            )
        if blocks:
            blocks[-1].remove()
        blocks.append(run)
        run.install()
    try:
        yield
    finally:
        with _LOCK:
            run.remove()
            blocks.remove(run)
            if blocks:
                blocks[-1].remove()
                blocks[-1].install()


class _PrunedModel:
    """A model with its pruning.

    Args:
        family: the model.
        pruning: what to prune.
        options: how images are told apart.
        trace: filled by each call.
    """

    def __init__(
        self, family: Family, pruning: Pruning, options: ImageOptions, trace: Trace
    ) -> None:
        self.family, self.pruning, self.options, self.trace = family, pruning, options, trace
        self.model = family.model
        self.decoder = PrunedDecoder(family) if pruning.inside else None
        self.thread = threading.get_ident()
        self._installed = ExitStack()

    def install(self) -> None:
        """Wrap the model's functions, and the decoder's if something is pruned inside it."""
        with ExitStack() as stack:
            stack.enter_context(replaced(self.model, "generate", self._generate))
            stack.enter_context(replaced(self.model, "forward", self._forward))
            if self.decoder is not None:
                stack.enter_context(self.decoder.installed())
            self._installed = stack.pop_all()

    def remove(self) -> None:
        """Take the wrappers off; nothing happens where there are none."""
        self._installed.close()

    def _generate(self, generate: Any, *args: Any, **kwargs: Any) -> Any:
        call = bound(generate, args, kwargs)
        if current_call() is not None:
            return generate(*args, **kwargs)
        if not modalities(call):
            with calling(Call(None)):
                return generate(*args, **kwargs)
        first = call.pop("inputs", None)
        if first is not None:
            call["input_ids"] = first
        found = self._prepared(call)
        new = found.inputs
        repeats = _repeats(self.model, call)
        if found.ragged_beams and repeats > 1:
            raise UnsupportedModelError(
                f"{self.family.name} mixes up images where a prompt has several beams or answers, "
                f"got {repeats}: {self.family.beams_need}, or ask for one answer"
            )
        prompt: Tensor = call["input_ids"]
        _shorten(self.model, new, prompt.shape[1] - new["input_ids"].shape[1])
        with calling(Call(found.plan)):
            result = generate(**new)
        return _with_prompt(result, prompt, new["input_ids"].shape[1])

    def _forward(self, forward: Any, *args: Any, **kwargs: Any) -> Any:
        if current_call() is not None:
            return forward(*args, **kwargs)
        call = bound(forward, args, kwargs)
        if not modalities(call):
            with calling(Call(None)):
                return forward(*args, **kwargs)
        found = self._prepared(call)
        state = Call(found.plan)
        if found.plan is None or found.inputs.get("labels") is None:
            with calling(state):
                return forward(**found.inputs)
        return self._with_loss(forward, found.inputs, state)

    def _with_loss(self, forward: Any, call: dict[str, Any], state: Call) -> Any:
        """Run a call that is pruned inside; only afterwards is it known which labels remain."""
        labels, as_object = call.pop("labels"), call.pop("return_dict", None)
        with calling(state):
            output = forward(**call, return_dict=True)
        if state.run is None:
            raise RuntimeError("the decoder was not run by the model's forward")
        output["loss"] = self.model.loss_function(
            logits=output.logits,
            labels=state.run.labels(labels, -100),
            vocab_size=self.model.config.get_text_config().vocab_size,
        )
        # The loss comes first, as in a call that computes it itself.
        output = type(output)(**{"loss": output["loss"], **output})
        return output.to_tuple() if as_object is False else output

    def _prepared(self, call: Mapping[str, Any]) -> PrunedInputs:
        return _prepare(self.family, call, self.pruning, self.options, self.trace)


def _setting(model: Any, call: Mapping[str, Any], name: str) -> Any:
    """Return a setting of `generate`, from where it takes it."""
    if call.get(name) is not None:
        return call[name]
    config = call.get("generation_config") or model.generation_config
    return getattr(config, name, None)


def _repeats(model: Any, call: Mapping[str, Any]) -> int:
    """Return how many sequences are made of each prompt at most."""
    counts = [_setting(model, call, name) for name in ("num_beams", "num_return_sequences")]
    return max(int(count or 1) for count in counts)


def _shorten(model: Any, call: dict[str, Any], by: int) -> None:
    """Take the dropped positions off the settings that count the prompt."""
    for name in _LENGTHS:
        length = _setting(model, call, name)
        new = _setting(model, call, name.replace("length", "new_tokens"))
        if length and new is None:
            call[name] = max(int(length) - by, 0)


def _with_prompt(result: Any, prompt: Tensor, length: int) -> Any:
    """Put the caller's prompt in the place of the pruned one in what `generate` returns."""
    sequences = result if isinstance(result, Tensor) else result.sequences
    repeats = len(sequences) // len(prompt)
    whole = prompt.to(sequences.device).repeat_interleave(repeats, 0)
    sequences = torch.cat([whole, sequences[:, length:]], dim=1)
    if isinstance(result, Tensor):
        return sequences
    result.sequences = sequences
    return result
