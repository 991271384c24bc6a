"""The embedded model as transformers' own LLaVA: does it answer as our LLaVA does?

    .venv/bin/python scripts/compare_transformers.py results/transformers/llava-mini.md

The first documents of every task of an experiment are answered under each of its pruning configs
twice: by the `llava` package, and by transformers' `LlavaForConditionalGeneration` with the same
weights inside `otprune.hf.pruned`. Answers and kept tokens are compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import torch
import transformers
import typer
from llava.constants import IMAGE_TOKEN_INDEX
from llava.conversation import conv_templates
from llava.model.to_transformers import to_transformers
from otprune_lmms.cli.common import log
from otprune_lmms.engine import Request
from otprune_lmms.engine.prepare import RequestPreparer, image_number
from otprune_lmms.experiments.config import load_experiment
from otprune_lmms.experiments.cost.experiment import requests_for
from otprune_lmms.experiments.plan import Source
from otprune_lmms.models import load_model
from otprune_lmms.models.generation import cut, padded, padding_id
from otprune_lmms.models.protocol import Generation, ModelInput
from otprune_lmms.provenance import origin
from otprune_lmms.pruning_config import PruningConfig

from bench_common import write_tables
from otprune.hf import pruned
from otprune.hf.families import family_of
from otprune.pruning import Pruning, Trace

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 16

app = typer.Typer(add_completion=False)


@dataclass
class Batch:
    """Prompts with one image each or several, for both models.

    Images are encoded once for all settings, as far as these allow it.

    Attributes:
        ids: of each prompt, with `IMAGE_TOKEN_INDEX` for an image.
        pixels: of all images, as `VisionLanguageModel.preprocess` gives them.
        numbers: of all images, for seeded methods.
        images: how many each prompt has.
        visual: by names of signals, the visual tokens that the `llava` package made of them.
        encoded: what transformers' encoder made of them, for methods that read no signal of it.
    """

    ids: list[torch.Tensor]
    pixels: list[Any]
    numbers: list[int]
    images: list[int]
    visual: dict[frozenset[str], list[Any]] = field(default_factory=dict)
    encoded: Any = None


class ChatTokenizer:
    """A LLaVA's tokenizer with its chat template, as transformers' tokenizers have theirs.

    Args:
        model: the LLaVA.
    """

    def __init__(self, model: Any) -> None:
        self.tokenizer, self.chat_template = model.tokenizer, model.chat_template

    def __call__(self, text: str, add_special_tokens: bool = True) -> Any:
        """Return a text's ids."""
        return self.tokenizer(text, add_special_tokens=add_special_tokens)

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        """Return the text of ids."""
        return self.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    def apply_chat_template(
        self, messages: list[dict[str, str]], tokenize: bool, add_generation_prompt: bool
    ) -> str:
        """Return the prompt of one question."""
        conversation = conv_templates[self.chat_template].copy()
        conversation.append_message(conversation.roles[0], messages[0]["content"])
        conversation.append_message(conversation.roles[1], None)
        return conversation.get_prompt()


def batch_of(model: Any, requests: Sequence[Request]) -> Batch:
    """Return requests prepared as by the engine."""
    preparer = RequestPreparer(model, "", "first_frame")
    batch = Batch([], [], [], [])
    for request in requests:
        one = preparer.prepare(request)
        batch.ids.append(model.token_ids(one.prompt))
        pictures = preparer.images(request)
        batch.pixels += [model.preprocess(image, one.prompt.image_view) for image in pictures]
        batch.numbers += [image_number(digest) for digest in one.images]
        batch.images.append(len(pictures))
    return batch


def ours(model: Any, batch: Batch, pruning: Pruning | None) -> tuple[list[str], Trace]:
    """Return the answers of the `llava` package, and what it kept."""
    needs = frozenset() if pruning is None else pruning.needs
    if needs not in batch.visual:
        batch.visual[needs] = model.encode(batch.pixels, needs)
    visual, inputs, first = batch.visual[needs], [], 0
    for ids, count in zip(batch.ids, batch.images, strict=True):
        mine = slice(first, first + count)
        inputs.append(ModelInput(ids, tuple(visual[mine]), tuple(batch.numbers[mine])))
        first += count
    trace = Trace()
    written = model.generate(inputs, pruning, Generation(max_new_tokens=LONGEST), trace)
    return [one.text for one in written], trace


def theirs(
    model: Any, twin: Any, batch: Batch, pruning: Pruning | None
) -> tuple[list[str], Trace | None]:
    """Return the answers of transformers' LLaVA, and what was kept of it."""
    count = model.model.get_vision_tower().num_patches
    image = torch.full((count,), twin.config.image_token_index)
    rows = []
    for ids in batch.ids:
        parts = [image if one == IMAGE_TOKEN_INDEX else torch.tensor([one]) for one in ids.tolist()]
        rows.append(torch.cat(parts))
    padding = padding_id(model.tokenizer)
    ids, mask = padded(rows, padding)
    pixels = torch.stack([one.values for one in batch.pixels])
    images: dict[str, Any] = {"pixel_values": pixels}
    if pruning is not None and not pruning.needs & family_of(twin).gives:
        if batch.encoded is None:
            batch.encoded = twin.get_image_features(pixel_values=pixels, return_dict=True)
        images = {"mm_encoder_outputs": {"image": batch.encoded}}
    call = {
        **images,
        "input_ids": ids,
        "attention_mask": mask.long(),
        "max_new_tokens": LONGEST,
        "do_sample": False,
        "pad_token_id": padding,
    }
    if pruning is None:
        output, trace = twin.generate(**call), None
    else:
        # In a holder, as a processor holds its tokenizer.
        processor = SimpleNamespace(tokenizer=ChatTokenizer(model))
        with pruned(twin, pruning, image_ids=batch.numbers, tokenizer=processor) as trace:
            output = twin.generate(**call)
    texts = model.tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True)
    return [cut(text, ()) for text in texts], trace


def kept_of(trace: Trace | None) -> dict[int, list[list[int]]]:
    """Return the kept tokens of a trace as plain lists."""
    kept = {} if trace is None else trace.kept
    return {layer: [one.tolist() for one in images] for layer, images in kept.items()}


def compared(
    model: Any, twin: Any, batches: Sequence[Batch], configs: Sequence[PruningConfig]
) -> list[dict[str, Any]]:
    """Return for each config how many answers and how many images differ."""
    found = []
    for config in configs:
        row: dict[str, Any] = {"setting": config.label, "answers": 0, "differing answers": 0}
        row |= {"images": 0, "images with other tokens": 0}
        for batch in batches:
            mine, trace = ours(model, batch, config.pruning)
            other, told = theirs(model, twin, batch, config.pruning)
            row["answers"] += len(mine)
            row["differing answers"] += sum(a != b for a, b in zip(mine, other, strict=True))
            row["images"] += len(batch.numbers)
            if config.pruning is not None:
                pairs = (kept_of(trace), kept_of(told))
                row["images with other tokens"] += sum(
                    any(pairs[0][layer][i] != pairs[1][layer][i] for layer in pairs[0])
                    for i in range(len(batch.numbers))
                )
        found.append(row)
        print(*row.values(), flush=True)
    return found


@app.command()
@torch.inference_mode()
def main(
    out: Annotated[Path, typer.Argument(help="the table; a .json file is written beside it")],
    experiment: Annotated[Path, typer.Option()] = ROOT / "configs" / "methods" / "mini.yaml",
    samples: Annotated[int, typer.Option(help="documents of each task")] = 3,
    batch_size: Annotated[int, typer.Option()] = 11,
) -> None:
    """Compare both models and write OUT.md and OUT.json."""
    transformers.logging.set_verbosity_error()
    log(quiet=True)
    source = Source(load_experiment(experiment), experiment.parent)
    requests = requests_for(source, samples)
    choice = source.experiment.models[0]
    model: Any = load_model(choice.source(source.folder, "cpu"))
    twin = to_transformers(model.model)
    starts = range(0, len(requests), batch_size)
    batches = [batch_of(model, requests[at : at + batch_size]) for at in starts]
    rows = compared(model, twin, batches, source.experiment.pruning.configs())
    total = {name: sum(row[name] for row in rows) for name in rows[0] if name != "setting"}
    shown = experiment.resolve().relative_to(ROOT).as_posix()
    options = f"--samples {samples} --experiment {shown}"
    command = f"python scripts/compare_transformers.py {out} {options}"
    notes = [
        f"`{choice.name}` answers {len(requests)} questions, {samples} of each task of `{shown}`, "
        "under each setting twice: by the `llava` package, and as transformers' "
        "`LlavaForConditionalGeneration` with the same weights inside `otprune.hf.pruned`; float32."
    ]
    tables = {"All settings together": [total], "Each setting": rows}
    write_tables(out, "Our LLaVA and transformers'", origin(command, "cpu"), tables, notes)


if __name__ == "__main__":
    app()
