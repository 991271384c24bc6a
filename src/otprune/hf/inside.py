"""A model's decoder, wrapped so that what a call plans to prune inside it is pruned."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from transformers import DynamicCache

from otprune.hf.families import Family
from otprune.hf.layers import LayerPlan, PrefillRun, install_hooks, layer_run
from otprune.hf.versions import cache_argument
from otprune.hf.wrapping import bound, replaced


@dataclass(slots=True)
class Call:
    """A call of a pruned model that is under way in this thread.

    Attributes:
        plan: what is to be pruned inside the decoder.
        run: the decoder's last step, where that was pruned.
    """

    plan: LayerPlan | None
    run: PrefillRun | None = None


_CALL: ContextVar[Call | None] = ContextVar("otprune_hf_call", default=None)


def current_call() -> Call | None:
    """Return the call that is under way in this thread, if any."""
    return _CALL.get()


@contextmanager
def calling(call: Call) -> Iterator[None]:
    """In this block a call is under way."""
    token = _CALL.set(call)
    try:
        yield
    finally:
        _CALL.reset(token)


class PrunedDecoder:
    """The decoder of a model, which is pruned inside as the call under way says.

    Args:
        family: the model.

    Raises:
        UnsupportedModelError: a decoder that cannot be pruned inside.
    """

    def __init__(self, family: Family) -> None:
        self.adapter = family.adapter()
        self._decoder = family.decoder

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Wrap the decoder's `forward` and hook its layers in this block."""
        with ExitStack() as stack:
            for handle in install_hooks(self.adapter):
                stack.callback(handle.remove)
            stack.enter_context(replaced(self._decoder, "forward", self._decode))
            yield

    def _decode(self, forward: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the decoder, pruned inside at the first step of a call and afterwards decoding."""
        adapter, state = self.adapter, current_call()
        if state is None:
            return forward(*args, **kwargs)
        call = bound(forward, args, kwargs)
        entering = call.get("inputs_embeds")
        if entering is None:
            entering = call["input_ids"]
        name = cache_argument(call)
        cache = call.get(name)
        plan = state.plan if cache is None or cache.get_seq_length() == 0 else None
        use_cache = call.get("use_cache")
        if use_cache is None:
            use_cache = getattr(adapter.decoder.config, "use_cache", True)
        if plan is not None and cache is None and use_cache:
            # What decoding needs is stored on the cache, so it must exist beforehand.
            cache = call[name] = DynamicCache(config=adapter.decoder.config)
        with layer_run(adapter, plan, cache, entering.shape[1]) as run:
            state.run = run if isinstance(run, PrefillRun) else None
            return forward(**call)
