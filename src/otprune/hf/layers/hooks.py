"""Hooks that carry out a pruning inside a decoder's forward call.

The loop around the decoder layers hands every layer the same mask and rotary angles. A pre-hook on
each layer replaces them: at a stage the kept positions of the hidden states are gathered, and from
there on the layers are given the mask and angles of the shorter sequence. The cache of each layer
then holds what that layer was given. While decoding, only the mask (and the new token's angle under
compact positions) must fit the length of a layer's own cache.

The hooks stay installed and do nothing unless `layer_run` has started a run in the same thread.
What the decoding of a prompt needs later is stored on its cache. So calls in several threads, with
and without pruning, do not interfere.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from otprune.hf.growing import GrowingLayer
from otprune.hf.layers.adapter import DecoderAdapter
from otprune.hf.layers.decode import DecodeRun, Segment
from otprune.hf.layers.observed import Module
from otprune.hf.layers.plan import LayerPlan
from otprune.hf.layers.prefill import PrefillRun

_RUN: ContextVar[PrefillRun | DecodeRun | None] = ContextVar("otprune_layer_run", default=None)
_STATE = "_otprune_segments"
_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer, GrowingLayer)


def install_hooks(adapter: DecoderAdapter) -> list[RemovableHandle]:
    """Put hooks on every decoder layer and its modules; return the handles that remove them.

    Without a run a hook costs one look at a context variable.
    """
    handles = []
    modules: tuple[tuple[Module, Any], ...] = (
        ("attention", adapter.attention),
        ("feed_forward", adapter.feed_forward),
    )
    for number, layer in enumerate(adapter.layers):
        enter = partial(_enter_layer, number)
        handles.append(layer.register_forward_pre_hook(enter, with_kwargs=True))
        for name, find in modules:
            leave = partial(_leave_module, number, name)
            handles.append(find(number).register_forward_hook(leave, with_kwargs=True))
    return handles


def _enter_layer(
    number: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    if torch.compiler.is_compiling():
        # Compiled code cannot look up a run; `layer_run` notices that its hooks did not run.
        return None
    run = _RUN.get()
    if run is None:
        return None
    hidden, replaced = run.enter(number, args[0] if args else kwargs["hidden_states"], kwargs)
    if args:
        return (hidden, *args[1:]), {**kwargs, **replaced}
    return args, {**kwargs, **replaced, "hidden_states": hidden}


def _leave_module(
    number: int,
    name: Module,
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: Any,
) -> None:
    run = None if torch.compiler.is_compiling() else _RUN.get()
    if isinstance(run, PrefillRun) and number in run.observed_layers:
        given = args[0] if args else kwargs["hidden_states"]
        run.leave_module(number, name, given, output[0] if isinstance(output, tuple) else output)


def is_own_hook(hook: Any) -> bool:
    """Return whether a module's hook is one of `install_hooks`."""
    return isinstance(hook, partial) and hook.func in (_enter_layer, _leave_module)


def current_run() -> PrefillRun | DecodeRun | None:
    """Return the run that `layer_run` has started in this thread, if any."""
    return _RUN.get()


def was_pruned(cache: Cache) -> bool:
    """Return whether a pruned prefill has filled a cache, so that decoding it needs a run."""
    return getattr(cache, _STATE, None) is not None


@contextmanager
def layer_run(
    adapter: DecoderAdapter, plan: LayerPlan | None, cache: Cache | None, new: int
) -> Iterator[PrefillRun | DecodeRun | None]:
    """Prune inside the forward call of the decoder that is made in this context.

    A call with a ``plan`` and nothing cached is a prefill of the plan's batch. A call with a cache
    that a pruned prefill has filled goes on decoding it. Any other call is left as it is.

    Args:
        adapter: the decoder, with `install_hooks` on its layers.
        plan: stages and batch of a prefill.
        cache: keys and values of the call.
        new: positions of the call.

    Raises:
        ValueError: a cache that cannot hold layers of unequal length, or that holds another prompt.
        RuntimeError: the hooks did not run, as in compiled code.
    """
    run: PrefillRun | DecodeRun | None = None
    state: tuple[object, list[Segment]] | None = None
    if cache is not None and cache.get_seq_length() > 0:
        # A cache that was emptied may still carry the state of an earlier prompt.
        state = getattr(cache, _STATE, None)
    if state is not None and cache is not None:
        key, segments = state
        if plan is not None and plan.key is not key:
            raise ValueError(
                "pruning inside the language model needs a cache of its own for each prompt; this "
                "one holds a pruned prompt already"
            )
        run = DecodeRun(adapter, segments, cache, new)
    elif plan is not None:
        _check_cache(cache)
        run = PrefillRun(adapter, plan, cache, new)
    token = _RUN.set(run)
    try:
        yield run
    finally:
        _RUN.reset(token)
    if run is not None:
        run.finish()
    if isinstance(run, PrefillRun) and cache is not None:
        setattr(cache, _STATE, (run.plan.key, run.segments))


def _check_cache(cache: Cache | None) -> None:
    if cache is None:
        return
    plain = type(cache) is DynamicCache and all(type(one) in _LAYERS for one in cache.layers)
    if not plain:
        raise ValueError(
            "pruning inside the language model needs a DynamicCache, which grows layer by layer; "
            f"got {type(cache).__name__}"
        )
    if cache.get_seq_length() > 0:
        raise ValueError(
            "pruning inside the language model needs the whole prompt in one call, the cache holds "
            f"{cache.get_seq_length()} positions already"
        )
