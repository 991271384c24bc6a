"""Recorded cases of methods that prune inside the language model, on the tiny one of 32 layers.

The values were recorded in float32 on a CPU. In float64 the same code keeps the same tokens; logits
(their range is about 15) move by at most 1.4e-5, scores by 5e-6 of themselves.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from helpers import PARITY, arrays, inputs_of, largest, loaded
from otprune.pruning import Pruning, Trace

LOGITS = 1e-4
SCORES = 1e-4


def cases32(*methods: str) -> list[dict[str, Any]]:
    """Entries of the index of these methods."""
    entries = json.loads((PARITY / "methods" / "index.json").read_text())
    return [entry for entry in entries if entry["method"] in methods]


def schedule(layers: list[int], amounts: list[float]) -> str:
    """A schedule as the methods take it; the authors' list of shares or counts."""
    return "/".join(f"{layer}:{amount!r}" for layer, amount in zip(layers, amounts, strict=True))


@dataclass
class Answer:
    """What a model answered to a case, and what it did on the way.

    Attributes:
        trace: what was pruned.
        tokens: generated ids.
        logits: of each generated token, the prefill's first; [8 v].
        norms: of the last position's hidden state after each layer of the prefill.
    """

    trace: Trace
    tokens: list[int]
    logits: Tensor
    norms: list[float] = field(default_factory=list)


def answer(entry: dict[str, Any], pruning: Pruning | None, attention: str = "sdpa") -> Answer:
    """Eight greedy tokens of a case in float32."""
    model = loaded(entry["checkpoint"])[1]
    layers = model.get_model().layers
    trace, norms = Trace(), []

    def note(module, args, output) -> None:
        if len(norms) < len(layers):
            hidden = output[0] if isinstance(output, tuple) else output
            norms.append(float(hidden[0, -1].norm()))

    hooks = [layer.register_forward_hook(note) for layer in layers]
    model.set_attn_implementation(attention)
    try:
        out = model.generate(
            **inputs_of(entry),
            pruning=pruning,
            trace=trace,
            max_new_tokens=8,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    finally:
        model.set_attn_implementation("sdpa")
        for hook in hooks:
            hook.remove()
    return Answer(trace, out.sequences[0].tolist(), torch.cat(out.logits), norms)


def assert_same(
    entry: dict[str, Any], got: Answer, *, shift: int = 0, scores: float | None = SCORES
) -> None:
    """Check everything that a case has recorded.

    Args:
        entry: the case.
        got: what the model answered.
        shift: added to the authors' layer number, it is that of the layer at whose input the
            pruning happens.
        scores: largest relative difference of a score; None not to compare them.
    """
    want = arrays(entry)
    assert got.trace.lengths == [[n] for n in want["layer_len"].tolist()]
    for name in entry["kept"]:
        layer = int(name) + shift
        assert got.trace.kept[layer][0].tolist() == want[f"kept_{name}"].tolist(), name
        if scores is not None:
            found = got.trace.scores[layer][0]
            torch.testing.assert_close(found, want[f"score_{name}"], rtol=scores, atol=0)
    torch.testing.assert_close(
        torch.tensor(got.norms), want["prefill_last_norm"], rtol=1e-4, atol=0
    )
    assert largest(got.logits[:1] - want["logits"]) <= LOGITS
    assert largest(got.logits[1:] - want["decode_logits"]) <= LOGITS
    # The old transformers puts a bos in front of what it generated.
    assert got.tokens == want["gen_ids"][0, 1:].tolist()


def kept_in_common(entry: dict[str, Any], got: Answer, name: str, shift: int = 0) -> int:
    """How many tokens kept at a layer are those of the case."""
    kept = got.trace.kept[int(name) + shift][0]
    return len(set(kept.tolist()) & set(arrays(entry)[f"kept_{name}"].tolist()))
