"""The part of vLLM's model runner V2 that moves positions, with the plug-in's function; no Triton.

    python runner_v2.py QUESTION ANSWER

QUESTION is a JSON file: the length of a prompt, its images (start, length, rows, columns), the
numbers of the tokens that are kept of each, and the chunks in which it is read. ANSWER has the
positions afterwards and what is added to later ones.
"""

import json
import sys
from pathlib import Path
from types import MethodType, SimpleNamespace

import numpy as np
import torch
from otprune_vllm.families.qwen2_5_vl import OTPruneQwen2_5_VLForConditionalGeneration
from otprune_vllm.positions import ImageSpan, first_positions, with_places
from vllm.multimodal.inputs import PlaceholderRange
from vllm.v1.worker.gpu.model_states.mm_pruning import MultiModalPruner

IMAGE, WIDTH = 9, 8


class Positions:
    """In place of the runner's, which needs Triton: those of one request."""

    def __init__(self, positions: torch.Tensor, delta: int) -> None:
        self.positions, self.delta = positions.int(), delta

    def read_prefill_positions(self, number: int, length: int) -> torch.Tensor:
        """Return the positions of a prompt."""
        return self.positions[:, :length]

    def update_prefill_positions(self, number: int, positions: torch.Tensor, delta: int) -> None:
        """Take other ones."""
        self.positions[:, : positions.shape[1]].copy_(positions)
        self.delta = delta


def main(question: str, answer: str) -> None:
    """Read a prompt chunk by chunk."""
    asked = json.loads(Path(question).read_text())
    length, spans = asked["length"], [ImageSpan(*one) for one in asked["images"]]
    ids = torch.zeros(1, length, dtype=torch.int32)
    features, rows = [], []
    for span, kept in zip(spans, asked["kept"], strict=True):
        ids[0, span.start : span.start + span.length] = IMAGE
        place = PlaceholderRange(offset=span.start, length=span.length)
        features.append(SimpleNamespace(mm_position=place, modality="image"))
        tokens = torch.randn(span.length, WIDTH).bfloat16()
        rows.append(with_places(tokens, torch.tensor(kept), span.columns))
    model = SimpleNamespace(config=SimpleNamespace(image_token_id=IMAGE))
    model.recompute_mrope_positions = MethodType(
        OTPruneQwen2_5_VLForConditionalGeneration.recompute_mrope_positions, model
    )
    positions = Positions(*first_positions(length, spans))
    encoded = SimpleNamespace(mm_features={"one": features})
    pruner = MultiModalPruner(model, positions, encoded, WIDTH)
    for begin, end in asked["chunks"]:
        given = [
            row[max(begin - span.start, 0) : max(end - span.start, 0)]
            for row, span in zip(rows, spans, strict=True)
        ]
        batch = SimpleNamespace(
            req_ids=["one"],
            idx_mapping_np=np.array([0]),
            prefill_len_np=np.array([length]),
            num_computed_prefill_tokens_np=np.array([begin]),
            num_scheduled_tokens=np.array([end - begin]),
        )
        state = SimpleNamespace(all_token_ids=SimpleNamespace(gpu=ids))
        cleaned = pruner.recompute([row for row in given if len(row)], batch, state)
        if any(row.shape[1] != WIDTH for row in cleaned):
            raise ValueError(f"places must be taken off, got shapes {[*map(len, cleaned)]}")
    Path(answer).write_text(json.dumps([positions.positions.tolist(), positions.delta]))


if __name__ == "__main__":
    main(*sys.argv[1:])
