"""The `forward` of a decoder, replaced where one token is appended to each row."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from otprune.hf.decoding.llama import LlamaStep, signed
from otprune.hf.decoding.qwen3_vl import Qwen3VLStep
from otprune.hf.growing import grow_in_place
from otprune.hf.layers.decode import DecodeRun
from otprune.hf.layers.hooks import current_run, is_own_hook, was_pruned
from otprune.hf.versions import CACHE, cache_argument
from otprune.hf.wrapping import replaced

logger = logging.getLogger(__name__)

_STEPS = (LlamaStep, Qwen3VLStep)
_TAKEN = ("input_ids", "inputs_embeds", "attention_mask", "position_ids", CACHE, "past_key_values")
_NEUTRAL = ("use_cache", "return_dict")
"""Arguments that change nothing in a call with a cache."""
_BESIDE = ("output_attentions", "output_hidden_states")


@dataclass(frozen=True, slots=True)
class _Call:
    """One new position of each row.

    Attributes:
        hidden: its embedding, [b d].
        mask: which positions are no padding, cached ones included, [b s]; None if all are.
        positions: rotary ones, [b 1] or [m b 1].
        cache: earlier positions; all of its layers are `GrowingLayer`.
        run: how layers differ that a pruning left with unequal caches; None where they are alike.
    """

    hidden: Tensor
    mask: Tensor | None
    positions: Tensor
    cache: DynamicCache
    run: DecodeRun | None


class LeanDecoder:
    """A decoder that appends one token to each row with less around the arithmetic.

    It holds for Llama and the text model of Qwen3-VL in float32 on the CPU under sdpa, without
    gradients, with a plain `DynamicCache`; pruned inside by `otprune.hf.layers` or not. Anything
    else is left to the decoder: other classes of modules (adapters, quantised ones), hooks,
    autocast, outputs that are asked for besides. So is every row count for which the first step,
    computed both ways, differs in any bit; that check costs one step for each row count.

    While it is installed, caches of calls write new positions in place (`GrowingLayer`).

    Args:
        decoder: the module whose `forward` runs the decoder layers.

    Attributes:
        steps: decoding steps that were taken here.
    """

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder
        self.steps = 0
        self._kind = next((one for one in _STEPS if one.knows(decoder)), None)
        self._equal: dict[int, bool] = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Replace the decoder's `forward` in this block, if it is one that is known.

        Pruning inside the decoder, where it wraps `forward` too, must be installed in this block.
        """
        if self._kind is None or not (self._kind.knows(self.decoder) and _is_plain(self.decoder)):
            yield
            return
        step = self._kind(self.decoder)

        def forward(ordinary: Any, *args: Any, **kwargs: Any) -> Any:
            return self._forward(step, ordinary, *args, **kwargs)

        with replaced(self.decoder, "forward", forward):
            yield

    def _forward(self, step: LlamaStep, ordinary: Any, *args: Any, **kwargs: Any) -> Any:
        call = None if args else self._call(step, kwargs)
        if call is None:
            return ordinary(*args, **kwargs)
        rows = len(call.hidden)
        if rows in self._equal:
            return self._taken(step, call) if self._equal[rows] else ordinary(**kwargs)
        name = cache_argument(kwargs)
        other = _copy(call.cache)
        expected = ordinary(**{**kwargs, name: other}).last_hidden_state
        if call.run is not None:
            call.run.restart()
        output = self._taken(step, call)
        self._equal[rows] = _same(expected, output.last_hidden_state, other, call.cache)
        if not self._equal[rows]:
            logger.warning(
                "decoding %d rows step by step differs in rounding from %s; left to transformers",
                rows,
                type(self.decoder).__name__,
            )
            # What the layers of transformers have cached goes on.
            call.cache.layers[:] = other.layers
            output.last_hidden_state = expected
        return output

    def _call(self, step: LlamaStep, kwargs: Mapping[str, Any]) -> _Call | None:
        """Return a call as a step, with a cache that grows in place; None if it is none."""
        cache = kwargs.get(cache_argument(kwargs))
        if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or cache is None:
            return None
        if torch.compiler.is_compiling() or not grow_in_place(cache):
            return None
        ids, hidden = kwargs.get("input_ids"), kwargs.get("inputs_embeds")
        mask, positions = kwargs.get("attention_mask"), kwargs.get("position_ids")
        entering = ids if hidden is None else hidden
        others = [value for name, value in kwargs.items() if name not in (*_TAKEN, *_NEUTRAL)]
        run = current_run()
        if (
            (ids is None) == (hidden is None)
            or entering is None
            or entering.shape[1] != 1
            or not (mask is None or mask.ndim == 2)
            or positions is None
            or positions.shape[-2:] != (len(entering), 1)
            or len(cache.layers) != len(step.layers)
            or cache.get_seq_length() == 0
            or kwargs.get("use_cache") is False
            or kwargs.get("return_dict") is False
            or any(value is not None and value is not False for value in others)
        ):
            return None
        if run is None and was_pruned(cache):
            return None
        if run is not None and not isinstance(run, DecodeRun):
            return None
        if hidden is None:
            hidden = nn.functional.embedding(entering, step.embedding)
        if hidden.dtype != torch.float32 or hidden.device.type != "cpu":
            return None
        return _Call(hidden[:, 0], mask, positions, cache, run)

    def _taken(self, step: LlamaStep, call: _Call) -> BaseModelOutputWithPast:
        """Return what the decoder returns; keys and values are appended to the cache."""
        hidden, cache, run = call.hidden, call.cache, call.run
        with_time = hidden[:, None]
        by_name: dict[str, Any] = {CACHE: cache}
        mask = create_causal_mask(
            config=self.decoder.config,
            inputs_embeds=with_time,
            attention_mask=call.mask,
            position_ids=None,
            **by_name,
        )
        layer_positions, positions = step.positions(call.positions)
        plain = step.angles(with_time, positions)
        given = {
            "attention_mask": mask,
            "position_ids": layer_positions,
            "position_embeddings": plain,
        }
        angles, added = signed(plain), _added(mask)
        for number, layer in enumerate(cache.layers):
            if run is not None:
                _, changed = run.enter(number, with_time, given)
                if changed and changed.get("attention_mask") is not mask:
                    mask = changed["attention_mask"]
                    added = _added(mask)
                if changed and changed.get("position_embeddings", plain) is not plain:
                    plain = changed["position_embeddings"]
                    angles = signed(plain)
            # `grow_in_place` has made it one.
            hidden = step.layer(number, hidden, angles, added, layer)  # type: ignore[arg-type]
        self.steps += 1
        return BaseModelOutputWithPast(last_hidden_state=step.norm(hidden)[:, None], **by_name)


def _added(mask: Tensor | None) -> Tensor | None:
    """Return what a boolean mask adds to scores, as every layer's attention makes it anew."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    nothing = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)
    return nothing.masked_fill_(~mask, float("-inf"))


def _is_plain(decoder: Any) -> bool:
    """Return whether modules run without hooks, on weights in float32 on the CPU, under sdpa."""
    config = decoder.config
    if any(getattr(config, name, False) for name in _BESIDE) or config.return_dict is False:
        return False
    sdpa = getattr(config, "_attn_implementation", None) == "sdpa"
    if not sdpa or ALL_ATTENTION_FUNCTIONS["sdpa"] is not sdpa_attention_forward:
        return False
    if torch_modules._has_any_global_hook():
        return False
    # Of the decoder itself: it may hold a vision encoder, too.
    parts = (decoder.embed_tokens, decoder.layers, decoder.norm, decoder.rotary_emb)
    return all(_is_untouched(module) for part in parts for module in part.modules())


def _is_untouched(module: nn.Module) -> bool:
    """Return whether a module is its class's `forward` on float32 weights, outside training."""
    hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    return (
        all(map(is_own_hook, hooks))
        and "forward" not in vars(module)
        and module._compiled_call_impl is None
        and not module.training
        and all(map(_is_plain_weight, module._parameters.values()))
    )


def _is_plain_weight(weight: Tensor | None) -> bool:
    return weight is None or (
        type(weight) is nn.Parameter
        and weight.dtype == torch.float32
        and weight.device.type == "cpu"
    )


def _copy(cache: DynamicCache) -> DynamicCache:
    """Return a cache with the same keys and values, which grows by concatenation."""
    made = DynamicCache()
    for layer in cache.layers:
        plain = DynamicLayer()
        held = {name: value for name, value in vars(layer).items() if not name.startswith("_")}
        vars(plain).update(held)
        made.layers.append(plain)
    return made


def _same(expected: Any, found: Any, other: DynamicCache, cache: DynamicCache) -> bool:
    """Return whether hidden states, keys and values of both ways are equal bit for bit."""
    pairs = [(expected, found)]
    for one, two in zip(other.layers, cache.layers, strict=True):
        for name in ("keys", "values"):
            # Before the last position the two hold the same numbers.
            pairs.append((getattr(one, name)[:, :, -1], getattr(two, name)[:, :, -1]))
    return all(torch.equal(one, two) for one, two in pairs)
