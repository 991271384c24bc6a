"""Recorded cases of the reference code, tiny models, and requests made from them."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from llava.mm_utils import process_images, tokenizer_image_token
from llava.model.builder import load_pretrained_model

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data"
PARITY = DATA / "parity"
V15, V16, CLIP = (
    PARITY / "checkpoints" / name for name in ("tiny-llava-v1.5", "tiny-llava-v1.6", "tiny-clip")
)
QUESTION = "<image>\nWhat is in this image?"


def cases(*kinds: str) -> list[dict[str, Any]]:
    """Entries of the index of recorded cases."""
    entries = json.loads((PARITY / "index.json").read_text())
    return [entry for entry in entries if entry["kind"] in kinds]


def case_id(entry: dict[str, Any]) -> str:
    return Path(entry.get("file") or f"loss-{entry['checkpoint']}").stem


def arrays(entry: dict[str, Any]) -> dict[str, torch.Tensor]:
    with np.load(PARITY / entry["file"]) as stored:
        return {name: torch.tensor(stored[name]) for name in stored.files}


@functools.cache
def loaded(checkpoint: str, dtype: str = "float32"):
    """(tokenizer, model, image_processor, context_len) of a recorded checkpoint."""
    return load_pretrained_model(PARITY / checkpoint, device="cpu", torch_dtype=dtype)


@functools.cache
def visual_of(checkpoint: str, image: str, dtype: str = "float32"):
    """Visual tokens of a recorded image."""
    _, model, processor, _ = loaded(checkpoint, dtype)
    picture = Image.open(PARITY / image)
    pixels = process_images([picture], processor, model.config)
    with torch.no_grad():
        return model.encode_visual(pixels, [picture.size], frozenset({"cls_attention"}))[0]


def inputs_of(entry: dict[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """Arguments of `forward` and `generate` for a recorded case, with right padding."""
    tokenizer = loaded(entry["checkpoint"], dtype)[0]
    ids = [tokenizer_image_token(p, tokenizer, return_tensors="pt") for p in entry["prompts"]]
    return padded(ids) | {
        "visual": [visual_of(entry["checkpoint"], image, dtype) for image in entry["images"]]
    }


def padded(rows: list[torch.Tensor], side: str = "right") -> dict[str, torch.Tensor]:
    """input_ids and attention_mask of rows of unequal length."""
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for row, tokens in enumerate(rows):
        place = slice(0, len(tokens)) if side == "right" else slice(longest - len(tokens), None)
        ids[row, place] = tokens
        mask[row, place] = True
    return {"input_ids": ids, "attention_mask": mask}


def largest(difference: torch.Tensor) -> float:
    return float(difference.detach().abs().max())


def last_logits(model, batch: dict[str, Any], pruning) -> torch.Tensor:
    """Logits at the last position of each row that is no padding, and the trace."""
    from otprune.pruning import Trace

    trace = Trace()
    with torch.no_grad():
        out = model(**batch, pruning=pruning, trace=trace)
    ends = trace.lengths[-1]
    return torch.stack([out.logits[row, end - 1] for row, end in enumerate(ends)])


def load(path, **arguments):
    """A checkpoint, on the CPU unless an argument says otherwise."""
    return load_pretrained_model(path, **{"device": "cpu", **arguments})


def change(path, **fields):
    content = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({k: v for k, v in content.items() if v != "REMOVE"}))


def same_weights(one, other) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(t, theirs[name]) for name, t in one.state_dict().items())


def rewrite(folder, change_weights):
    """Change what the last shard of a v1.6 checkpoint holds, and its index."""
    path = folder / "model-00001-of-00003.safetensors"
    weights = load_file(path)
    change_weights(weights)
    save_file(weights, path)
