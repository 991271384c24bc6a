"""Prefill, decoding, memory and selection share of LLaVA, unpruned against pruned, same run.

    .venv/bin/python scripts/bench_model.py                  # a 185 M model on the CPU, 10 minutes
    .venv/bin/python scripts/bench_model.py --device cuda    # 7B, 13B and 1.6-7B at real size

Random weights and image-like visual tokens: times do not depend on what the weights mean. Settings
take turns in one process. Writes results/model/<device>.md and .json.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from llava.constants import IMAGE_TOKEN_INDEX
from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaForCausalLM
from otprune_lmms import provenance

from bench_common import (
    ROOT,
    added_peak_mib,
    image_like_tokens,
    median_ms,
    write_tables,
)
from otprune.cost import VICUNA_7B, VICUNA_13B, DecoderShape, prefill_multiply_adds
from otprune.pruning import Pruning, Trace, make_pruning
from otprune.pruning.image_tokens import ImageTokens

TEXT = 60
"""Text tokens of a prompt: the system text of vicuna_v1 and a short question."""

DECODED = 16
_SMALL = DecoderShape(hidden=768, feed_forward=2048, layers=16, heads=12)
_SMALL_TOWER = {
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "image_size": 336,
    "patch_size": 14,
}


@dataclass(frozen=True)
class Case:
    """A model and its prompts: visual tokens an image, one image a prompt.

    Attributes:
        name: what the table says.
        shape: of the language model.
        visual: visual tokens of an image.
        tiles: tiles that the tower encodes for an image.
        batches: prompts at once.
        tower: configuration of the vision tower; CLIP-L/14-336 by name if not given.
    """

    name: str
    shape: DecoderShape
    visual: int
    tiles: int
    batches: tuple[int, ...]
    tower: dict[str, Any] | None = None


CASES = {
    "cpu": (
        Case("185M", _SMALL, 576, 1, (1, 4), _SMALL_TOWER),
        Case("185M, anyres", _SMALL, 2340, 5, (1,), _SMALL_TOWER),
    ),
    "cuda": (
        Case("LLaVA-1.5-7B", VICUNA_7B, 576, 1, (1, 16)),
        Case("LLaVA-1.5-13B", VICUNA_13B, 576, 1, (1, 16)),
        Case("LLaVA-1.6-7B", VICUNA_7B, 2340, 5, (1, 8)),
    ),
}
SETTINGS: dict[str, Pruning | None] = {
    "unpruned": None,
    "otprune 0.5": make_pruning("otprune", keep_ratio=0.5),
    "otprune 0.2": make_pruning("otprune", keep_ratio=0.2),
    "otprune 0.098": make_pruning("otprune", keep_ratio=0.098),
    "otprune 0.05": make_pruning("otprune", keep_ratio=0.05),
    "divprune 0.098": make_pruning("divprune", keep_ratio=0.098),
    "otprune 0.098 at layer 2": make_pruning("otprune", keep_ratio=0.098, layer=2),
}


def random_model(case: Case, device: str, dtype: torch.dtype) -> LlavaLlamaForCausalLM:
    """Return the model of a case with random weights."""
    config = LlavaConfig(
        vocab_size=32000,
        hidden_size=case.shape.hidden,
        intermediate_size=case.shape.feed_forward,
        num_hidden_layers=case.shape.layers,
        num_attention_heads=case.shape.heads,
        max_position_embeddings=4096,
        pad_token_id=0,
        mm_hidden_size=case.tower["hidden_size"] if case.tower else 1024,
        mm_projector_type="mlp2x_gelu",
        mm_vision_config=case.tower,
        mm_vision_tower="openai/clip-vit-large-patch14-336",
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return LlavaLlamaForCausalLM._from_config(config).eval()
    finally:
        torch.set_default_dtype(before)


def request(case: Case, batch: int, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Return a batch of prompts with an image each, visual tokens made."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 30000, (batch, TEXT + 1), generator=generator)
    ids[:, 35] = IMAGE_TOKEN_INDEX
    tokens = [image_like_tokens(case.visual, case.shape.hidden, seed=i) for i in range(batch)]
    return {
        "input_ids": ids.to(device),
        "visual": [ImageTokens((image / image.std()).to(device, dtype)) for image in tokens],
    }


def selection(pruning: Pruning | None, visual: list[ImageTokens]) -> Any:
    """Return a call that selects what a pruning keeps, and nothing else."""
    if pruning is None:
        return lambda: None
    (stage,) = pruning.stages
    tokens = [image.tokens for image in visual]
    budget = stage.budget(len(tokens[0]), len(tokens[0]))
    return lambda: stage.method.select_batch(tokens, k=budget)


def cache_mib(output: Any) -> float:
    """Return the size of the keys and values that a call has left."""
    layers = output.past_key_values.layers
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers) / 2**20


@torch.inference_mode()
def measure(
    model: LlavaLlamaForCausalLM, case: Case, batch: int, device: str, repeats: int
) -> list[dict]:
    """Return a row for each setting."""
    asked = request(case, batch, device, model.dtype)
    forever = {"eos_token_id": [10**6], "do_sample": False}

    def prefill(pruning: Pruning | None, trace: Trace | None = None) -> Any:
        return model(**asked, pruning=pruning, trace=trace, logits_to_keep=1, use_cache=True)

    def answer(pruning: Pruning | None, tokens: int) -> Any:
        return model.generate(**asked, pruning=pruning, max_new_tokens=tokens, **forever)

    calls = []
    for pruning in SETTINGS.values():
        calls += [
            selection(pruning, asked["visual"]),
            lambda p=pruning: prefill(p),
            lambda p=pruning: answer(p, 1),
            lambda p=pruning: answer(p, 1 + DECODED),
        ]
    times = median_ms(calls, repeats, device)
    rows = []
    for number, (name, pruning) in enumerate(SETTINGS.items()):
        select, first, short, long = times[4 * number : 4 * number + 4]
        select = 0.0 if pruning is None else select
        trace = Trace()
        cached = cache_mib(prefill(pruning, trace))
        tokens = [row[0] for row in trace.lengths]
        row = {
            "model": case.name,
            "batch": batch,
            "setting": name,
            "kept": len(next(iter(trace.kept.values()))[0]) if trace.kept else case.visual,
            "selection ms": select,
            "prefill ms": first,
            "selection share": select / first,
            "decode ms/token": (long - short) / DECODED,
            "cache MiB": cached,
            "prefill peak MiB": added_peak_mib(lambda p=pruning: prefill(p), device),
            "multiply-adds": prefill_multiply_adds(case.shape, tokens, "3ndm") / 1e12,
        }
        rows.append(row)
        print(row, file=sys.stderr)
    whole, formula = rows[0]["prefill ms"], rows[0]["multiply-adds"]
    for row in rows:
        row["prefill, of unpruned"] = row["prefill ms"] / whole
        row["by the formula"] = row.pop("multiply-adds") / formula
    return rows


@torch.inference_mode()
def vision_row(model: LlavaLlamaForCausalLM, case: Case, device: str, repeats: int) -> dict:
    """Return what encoding an image costs beside the rest."""
    tiles = torch.randn(case.tiles, 3, 336, 336, device=device, dtype=model.dtype)
    (spent,) = median_ms([lambda: model.encode_images(tiles)], repeats, device)
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    return {
        "model": case.name,
        "parameters M": parameters,
        "dtype": str(model.dtype).removeprefix("torch."),
        "tiles": case.tiles,
        "visual tokens": case.visual,
        "vision ms": spent,
    }


def fits(case: Case, device: str) -> bool:
    """Return whether a GPU has memory for the weights in half precision, and as much again."""
    if device == "cpu":
        return True
    free, _ = torch.cuda.mem_get_info()
    shape = case.shape
    layer = 4 * shape.hidden**2 + 3 * shape.hidden * shape.feed_forward
    return 4 * (layer * shape.layers + 2 * 32000 * shape.hidden) < free


def run_case(case: Case, device: str, repeats: int) -> tuple[dict, list[dict]]:
    """Return the rows of one model; a fresh model, gone afterwards."""
    model = random_model(case, device, torch.float32 if device == "cpu" else torch.float16)
    rows = [row for batch in case.batches for row in measure(model, case, batch, device, repeats)]
    return vision_row(model, case, device, repeats), rows


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    repeats: Annotated[int, typer.Option(help="timed runs of each setting; the median counts")] = 5,
    out: Annotated[Path, typer.Option(help="folder to write to")] = ROOT / "results" / "model",
) -> None:
    """Measure, print and write all tables."""
    if device == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("--device cuda needs a CUDA device")
    command = f"python scripts/bench_model.py --device {device} --repeats {repeats}"
    origin = provenance.origin(command, device)
    models, rows, missing = [], [], []
    for case in CASES[device]:
        if fits(case, device):
            vision, measured = run_case(case, device, repeats)
            models.append(vision)
            rows += measured
        else:
            missing.append({"model": case.name, "result": "not run: too little GPU memory"})
    if device == "cpu":
        missing = [{"model": case.name, "result": "not run: no GPU"} for case in CASES["cuda"]]
    tables = {"Models": models, "Prefill and decoding": rows}
    if missing:
        tables["Not run"] = missing
    notes = [
        f"Medians of {repeats}; settings take turns in one process. {TEXT} text tokens and one",
        "image a prompt. Prefill: from ids and visual tokens to the first logits, selection and",
        "splice included, vision not. Selection: the same selection alone. Decode: mean of",
        f"{DECODED} tokens after the first. Peak: what prefill adds to weights and inputs. By the",
        "formula: multiply-adds of the decoder, 4nd² + 2n²d + 3ndm a layer with its own n;",
        "it knows no selection, output head, embeddings or overhead.",
    ]
    print(write_tables(out / device, "LLaVA pruned and unpruned", origin, tables, notes))


if __name__ == "__main__":
    typer.run(main)
