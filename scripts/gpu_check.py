"""Pruning of Qwen2.5-VL-7B at real size on a GPU: correctness, prefill times, memory.

    bash scripts/gpu_check.sh                        # bfloat16 on a CUDA GPU; minutes
    bash scripts/gpu_check.sh --tiny --device cpu    # the same with a small configuration

The configuration is the published one and the weights are random: times and memory do not depend
on what they mean, and correctness is an equation. All settings take turns in one process. Ends with
code 1 where an answer is not what it must be.
"""

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from otprune_lmms import provenance
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.utils import is_flash_attn_2_available

from bench_common import ROOT, added_peak_mib, write_tables
from otprune.hf import pruned
from otprune.hf.wrapping import replaced

RATIOS = (0.33, 0.22, 0.11)
SELECTORS = ("otprune", "divprune", "random")
LAYER = 2
"""Where FastV prunes: at the input of the third layer, as in its paper."""

TEXT = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "max_position_embeddings": 128000,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_theta": 1e6, "rope_type": "default", "mrope_section": [16, 24, 24]},
    "bos_token_id": 151643,
    "eos_token_id": 151645,
}
VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "out_hidden_size": 3584,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
IDS = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "tie_word_embeddings": False,
}
SMALL_TEXT = TEXT | {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "rope_parameters": TEXT["rope_parameters"] | {"mrope_section": [4, 6, 6]},
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SMALL_VISION = VISION | {
    "depth": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_heads": 2,
    "out_hidden_size": 128,
    "fullatt_block_indexes": [1],
}
SMALL_IDS = IDS | {
    "image_token_id": 500,
    "video_token_id": 501,
    "vision_start_token_id": 502,
    "vision_end_token_id": 503,
}
QUESTIONS = (40, 24)
"""Text tokens of the prompts in turn: prompts of a batch are padded."""

app = typer.Typer(add_completion=False)


def random_model(tiny: bool, device: str, dtype: torch.dtype, attention: str) -> Any:
    """Return Qwen2.5-VL-7B with random weights, or a small one."""
    text, vision, ids = (SMALL_TEXT, SMALL_VISION, SMALL_IDS) if tiny else (TEXT, VISION, IDS)
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2_5_VLForConditionalGeneration._from_config(
            config, dtype=dtype, attn_implementation=attention
        )
    return model.eval().requires_grad_(False)


def request(model: Any, side: int, batch: int) -> dict[str, Tensor]:
    """Return padded prompts, each with an image of ``side`` x ``side`` visual tokens."""
    config, device = model.config, model.device
    generator = torch.Generator().manual_seed(batch)
    image = [config.vision_start_token_id, *[config.image_token_id] * side**2]
    rows = []
    for number in range(batch):
        words = QUESTIONS[number % len(QUESTIONS)]
        text = torch.randint(10, 400, (words,), generator=generator).tolist()
        rows.append([*text[:10], *image, config.vision_end_token_id, *text[10:]])
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    vision = config.vision_config
    width = 3 * vision.temporal_patch_size * vision.patch_size**2
    patches = torch.randn(batch * 4 * side**2, width, generator=generator)
    grid = torch.tensor([[1, 2 * side, 2 * side]] * batch)
    made = {
        "input_ids": ids,
        "attention_mask": mask,
        "mm_token_type_ids": (ids == config.image_token_id).int(),
        "pixel_values": patches.to(model.dtype),
        "image_grid_thw": grid,
    }
    return {name: value.to(device) for name, value in made.items()}


@dataclass
class Setting:
    """A way of pruning, and what it took.

    Attributes:
        name: what the table says.
        method: of the registry; None for no pruning.
        settings: of the method, budget included.
        prefill: milliseconds of each turn.
        selection: those of them that choose tokens.
        kept: visual tokens of an image that are left at the end.
        peak: MiB that a call adds to what the model takes.
    """

    name: str
    method: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    prefill: list[float] = field(default_factory=list)
    selection: list[float] = field(default_factory=list)
    kept: int = 0
    peak: float = 0.0

    def open(self, model: Any) -> Any:
        """Return the block in which the model is pruned so; it gives a trace or None."""
        if self.method is None:
            return nullcontext()
        return pruned(model, self.method, **self.settings)


def settings() -> list[Setting]:
    """Return unpruned, every selector at every ratio, and FastV."""
    found = [Setting("unpruned")]
    for ratio in RATIOS:
        found += [Setting(f"{one} {ratio}", one, {"keep_ratio": ratio}) for one in SELECTORS]
        found.append(Setting(f"fastv {ratio}", "fastv", {"schedule": f"{LAYER}:{ratio}"}))
    return found


class Clock:
    """Adds up the milliseconds of what it is entered around.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: str) -> None:
        self.device, self.spent = device, 0.0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Add the time of a block."""
        start = self.now()
        yield
        self.spent += self.now() - start

    def now(self) -> float:
        """Return the milliseconds at which all that was begun is done."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() * 1e3


def prefill(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Return the logits of each prompt's last token."""
    return model(**inputs, logits_to_keep=1, use_cache=True).logits[:, -1]


def measured(
    model: Any, inputs: dict[str, Tensor], device: str, repeats: int
) -> list[dict[str, Any]]:
    """Return a row for each setting; they take turns, one to warm up."""
    chosen, whole, encoder = settings(), Clock(device), []
    visual = int(inputs["image_grid_thw"][0].prod()) // 4
    images = {name: inputs[name] for name in ("pixel_values", "image_grid_thw")}
    for turn in range(repeats + 1):
        start = whole.now()
        model.get_image_features(**images)
        encoder.append(whole.now() - start)
        for one in chosen:
            clock = Clock(device)
            with one.open(model) as trace:
                if trace is not None:
                    trace.watch = clock
                start = whole.now()
                prefill(model, inputs)
                spent = whole.now() - start
            if turn:
                one.prefill.append(spent)
                one.selection.append(clock.spent)
            one.kept = visual if trace is None else len(list(trace.kept.values())[-1][0])
    for one in chosen:
        with one.open(model):
            one.peak = added_peak_mib(lambda: prefill(model, inputs), device)
    first, encoding = median(chosen[0].prefill), median(encoder[1:])
    return [
        {
            "setting": one.name,
            "visual tokens": one.kept,
            "prefill ms": median(one.prefill),
            "of unpruned": median(one.prefill) / first,
            "without the encoder, of unpruned": (median(one.prefill) - encoding)
            / (first - encoding),
            "selection ms": median(one.selection),
            "selection, of prefill": median(one.selection) / median(one.prefill),
            "peak MiB": one.peak,
        }
        for one in chosen
    ]


class ByHand:
    """What the language model is given for unpruned prompts, and its layers run one after another.

    Args:
        model: the model.
        inputs: of a call.
    """

    def __init__(self, model: Any, inputs: dict[str, Tensor]) -> None:
        self.model, self.inputs = model, inputs
        self.decoder = model.model.language_model
        given: dict[str, Any] = {}

        def noted(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            given.update(kwargs)
            return forward(*args, **kwargs)

        with replaced(self.decoder, "forward", noted):
            self.unpruned = prefill(model, inputs)
        self.embeds = given["inputs_embeds"]
        names = ("input_ids", "attention_mask", "mm_token_type_ids", "image_grid_thw")
        self.axes = model.model.get_rope_index(**{name: inputs[name] for name in names})[0]

    def logits(self, row: int, layer: int, kept: Tensor) -> Tensor:
        """Return the last token's logits of one prompt without padding, shortened at a layer."""
        valid = self.inputs["attention_mask"][row].bool()
        visual = self.inputs["input_ids"][row, valid] == self.model.config.image_token_id
        stays = ~visual
        stays[visual.nonzero()[:, 0][kept.to(visual.device)]] = True
        hidden, axes = self.embeds[row : row + 1, valid], self.axes[:, row : row + 1, valid]
        for number, block in enumerate(self.decoder.layers):
            if number == layer:
                hidden, axes = hidden[:, stays], axes[..., stays]
            angles = self.decoder.rotary_emb(hidden, axes)
            # Without a mask, attention is causal.
            hidden = block(hidden, attention_mask=None, position_embeddings=angles)
        return self.model.lm_head(self.decoder.norm(hidden)[0, -1])


def distance(logits: Tensor, wanted: Tensor) -> float:
    """Return the largest difference, as a share of the largest logit that is wanted."""
    wanted = wanted.float()
    return float((logits.float() - wanted).abs().max() / wanted.abs().max())


def compared(model: Any, inputs: dict[str, Tensor], bound: float) -> list[dict[str, Any]]:
    """Return how far answers are from what they must be, and whether that is near enough."""
    hand = ByHand(model, inputs)
    with pruned(model, "otprune", keep_ratio=1.0):
        whole = prefill(model, inputs)
    same = torch.equal(whole, hand.unpruned)
    found = [
        {
            "setting": "otprune, all tokens kept",
            "must be": "the unpruned logits, to the last bit",
            "difference": 0.0 if same else distance(whole, hand.unpruned),
            "unpruned would be off by": 0.0,
            "right": same,
        }
    ]
    for one in settings()[1:]:
        with one.open(model) as trace:
            logits = prefill(model, inputs)
        layer, kept = list(trace.kept.items())[-1]
        wanted = [hand.logits(row, layer, kept[row]) for row in range(len(logits))]
        worst = max(map(distance, logits, wanted))
        unpruned = min(map(distance, hand.unpruned, wanted))
        found.append(
            {
                "setting": one.name,
                "must be": f"the prompt shortened by hand, to {bound} of its largest logit",
                "difference": worst,
                "unpruned would be off by": unpruned,
                "right": worst <= bound,
            }
        )
    return found


def fail(message: str) -> typer.Exit:
    """Say a mistake in a sentence; return the end of the program."""
    print(f"error: {message}", file=sys.stderr)
    return typer.Exit(2)


@app.command()
@torch.inference_mode()
def main(
    device: Annotated[str, typer.Option(help="cuda or cpu")] = "cuda",
    tiny: Annotated[bool, typer.Option(help="a small configuration, in float32 on a CPU")] = False,
    batch: Annotated[int, typer.Option(min=2, help="prompts at once in the second table")] = 8,
    repeats: Annotated[int, typer.Option(min=1, help="turns that count")] = 5,
    out: Annotated[Path, typer.Option(help="folder of the tables")] = ROOT / "results" / "gpu",
) -> None:
    """Check answers, measure prefill and memory, and write the tables."""
    if device not in ("cuda", "cpu"):
        raise fail(f"--device must be cuda or cpu, got {device!r}")
    if device == "cpu" and not tiny:
        raise fail("--device cpu needs --tiny: 7B in bfloat16 is for a GPU")
    if device == "cuda" and not torch.cuda.is_available():
        raise fail("no CUDA GPU is here; --tiny --device cpu runs the same with a small model")
    dtype, bound = (torch.float32, 1e-4) if device == "cpu" else (torch.bfloat16, 3e-2)
    tables: dict[str, list[dict[str, Any]]] = {}
    kinds = ["sdpa", *(["flash_attention_2"] if _flash(device) else [])]
    for attention in kinds:
        model = random_model(tiny, device, dtype, attention)
        for size in (1, batch):
            inputs = request(model, 8 if tiny else 32, size)
            said = f"{attention}, {size} {'prompt' if size == 1 else 'prompts'}"
            tables[f"Answers, {said}"] = compared(model, inputs, bound)
            tables[f"Prefill, {said}"] = measured(model, inputs, device, repeats)
        del model
    command = shlex.join(["bash", "scripts/gpu_check.sh", *sys.argv[1:]])
    title = "A small Qwen2.5-VL" if tiny else "Qwen2.5-VL-7B"
    notes = [
        "Differences: the largest of any logit, as a share of the largest logit; that of the "
        "unpruned logits tells how far off an answer would be if nothing were pruned.",
        f"Random weights, {str(dtype).removeprefix('torch.')}, one image of "
        f"{(8 if tiny else 32) ** 2} visual tokens a prompt. Prefill: a whole call, vision encoder "
        f"and selection included, median of {repeats} turns in which all settings alternate. Peak: "
        "what a call adds to the weights. `fastv` prunes at the input of layer "
        f"{LAYER}, the others before the language model.",
    ]
    name = "qwen2_5_vl_tiny" if tiny else "qwen2_5_vl_7b"
    origin = provenance.origin(command, device)
    print(write_tables(out / name, f"{title}, pruned and unpruned,", origin, tables, notes))
    wrong = [
        f"{heading}: {row['setting']}"
        for heading, rows in tables.items()
        for row in rows
        if row.get("right") is False
    ]
    if wrong:
        print(f"error: not as it must be: {'; '.join(wrong)}", file=sys.stderr)
        raise typer.Exit(1)


def _flash(device: str) -> bool:
    return device == "cuda" and is_flash_attn_2_available()


if __name__ == "__main__":
    app()
