"""Drop visual tokens at the input of decoder layers, with keys and values of unequal length.

Every decoder layer is handed the same mask and rotary angles by the loop around it. A pre-hook on
each layer swaps them: at a stage the kept rows of the hidden states are gathered together with all
that travels with them, and from there on the layers see the shorter sequence. Each layer's cache
then holds just what that layer was given. While decoding only the mask (and, with compact
positions, the angle of the new token) has to fit a layer's own cache length.

The hooks are there all the time and do nothing unless a run is under way in their own thread; what
a prompt's decoding needs later lives on its cache. So calls in several threads, with and without
pruning, do not mix. Masks come from transformers' own factory, which knows what each attention
implementation wants.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from llava.pruning.decode import DecodeRun, Segment
from llava.pruning.prefill import HALVES, LayerPlan, PrefillRun

_RUN: ContextVar[PrefillRun | DecodeRun | None] = ContextVar("llava_layer_run", default=None)
_STATE = "_llava_segments"


def install_hooks(layers: nn.ModuleList) -> None:
    """Put hooks that are idle unless a run is under way on every decoder layer and its halves."""
    for number, layer in enumerate(layers):
        layer.register_forward_pre_hook(partial(_enter_layer, number), with_kwargs=True)
        for name in HALVES:
            half: Any = getattr(layer, name)
            half.register_forward_hook(partial(_leave_half, number, name), with_kwargs=True)


def _enter_layer(
    number: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    if torch.compiler.is_compiling():
        # A run could not be looked up in compiled code; `layer_run` notices if one was under way.
        return None
    run = _RUN.get()
    if run is None:
        return None
    hidden, changes = run.enter(number, args[0] if args else kwargs["hidden_states"], kwargs)
    if args:
        return (hidden, *args[1:]), {**kwargs, **changes}
    return args, {**kwargs, **changes, "hidden_states": hidden}


def _leave_half(
    number: int,
    name: str,
    half: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: Any,
) -> None:
    run = None if torch.compiler.is_compiling() else _RUN.get()
    if isinstance(run, PrefillRun) and number in run.observed:
        given = args[0] if args else kwargs["hidden_states"]
        run.leave_half(number, name, given, output[0] if isinstance(output, tuple) else output)


@contextmanager
def layer_run(
    text_model: Any, plan: LayerPlan | None, cache: Cache | None, new: int
) -> Iterator[PrefillRun | DecodeRun | None]:
    """Prune inside the forward call of ``text_model`` that is made in this context.

    A call with a ``plan`` and nothing cached is a prefill of the plan's batch; a call with a cache
    that a pruned prefill has left behind goes on decoding it; any other call is left alone.

    Args:
        text_model: the decoder, with the hooks of `install_hooks` on its layers.
        plan: stages and batch of a prefill.
        cache: keys and values of the call.
        new: positions of the call.

    Raises:
        ValueError: a cache that cannot hold layers of unequal length, or that holds something else.
    """
    run: PrefillRun | DecodeRun | None = None
    state: tuple[object, list[Segment]] | None = None
    if cache is not None and cache.get_seq_length() > 0:
        # An emptied cache may still carry what an earlier prompt left.
        state = getattr(cache, _STATE, None)
    if state is not None and cache is not None:
        key, segments = state
        if plan is not None and plan.key is not key:
            raise ValueError(
                "pruning inside the language model needs a cache of its own for each prompt; this "
                "one holds a pruned prompt already"
            )
        run = DecodeRun(text_model, segments, cache, new)
    elif plan is not None:
        _check_cache(cache)
        run = PrefillRun(text_model, plan, cache, new)
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
    plain = type(cache) is DynamicCache and all(type(one) is DynamicLayer for one in cache.layers)
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
