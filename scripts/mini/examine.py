"""Examine a checkpoint on scenes that training never showed: right answers by kind of question.

    python scripts/mini/examine.py LLaVA/checkpoints/llava-mini --out results/llava-mini/cpu
    python scripts/mini/examine.py lmms_eval/checkpoints/qwen-mini --out results/qwen-mini/cpu

Answers are generated, greedily, one question to a prompt, as a benchmark would. Captions are scored
with CIDEr against the five references of their scene, and against those of another scene.
"""

import json
import shlex
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from captions import captions
from features import picture
from formats import Turn, choose, described, direct, unsure
from llava.chat import Loaded, make_prompt
from llava.mm_utils import process_images, tokenizer_image_token
from llava.model.builder import load_pretrained_model
from pycocoevalcap.cider.cider import Cider
from questions import FAMILIES
from qwen_answers import QwenReader
from rich.console import Console
from scenes import Scene, make_scene

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from otprune_lmms import provenance

from bench_common import markdown, write_tables

FIRST = 20_000
"""Scenes of the split "check" from here on: the training log looks at the first few hundred."""

Answers = Callable[[Scene, Sequence[Turn]], list[str]]

console = Console()
GROUPS = {
    "existence": ("exists", "exists_kind"), "colour": ("colour",), "shape": ("kind",),
    "count": ("count",), "position": ("where",), "relation": ("relation",), "size": ("size",),
    "ground": ("ground",), "knowledge": ("colour_fact", "exists_fact"),
}  # fmt: skip


def turns_of(scene: Scene, rng: np.random.Generator) -> list[tuple[str, Turn]]:
    """Return one question of each group that the scene allows, one with options, and a caption."""
    asked = []
    for group, families in GROUPS.items():
        question = FAMILIES[str(rng.choice(families))](scene, rng)
        if question is not None:
            ask = unsure if group == "knowledge" else direct
            asked.append((group, ask(question)))
    style = str(rng.choice(["mmbench", "seedbench", "scienceqa", "mmmu"]))
    lettered = FAMILIES[str(rng.choice(["colour", "kind", "count", "where"]))](scene, rng)
    if lettered is not None:
        asked.append(("options", choose(lettered, rng, style)))
    return [*asked, ("caption", described(scene))]


@torch.inference_mode()
def answers(loaded: Loaded, scene: Scene, turns: Sequence[Turn]) -> list[str]:
    """Return the model's answers to questions about one scene, which is encoded once."""
    tokenizer, model, processor, _ = loaded
    image = picture(scene)
    pixels = process_images([image], processor, model.config)
    visual = model.encode_visual(pixels, [image.size])
    rows = [
        tokenizer_image_token(make_prompt(turn.prompt, 1), tokenizer) for turn in turns
    ]  # fmt: skip
    longest = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, longest - len(row) :] = torch.tensor(row)
        mask[i, longest - len(row) :] = True
    out = model.generate(
        ids,
        attention_mask=mask,
        visual=list(visual) * len(rows),
        do_sample=False,
        max_new_tokens=64,
    )
    return [text.strip() for text in tokenizer.batch_decode(out, skip_special_tokens=True)]


def reader(checkpoint: Path) -> Answers:
    """Return what answers questions about a scene with a checkpoint, LLaVA's or Qwen3-VL's."""
    if json.loads((checkpoint / "config.json").read_text())["model_type"] == "qwen3_vl":
        qwen = QwenReader(checkpoint)
        return lambda scene, turns: qwen.answers(picture(scene), turns)
    loaded = load_pretrained_model(str(checkpoint), device="cpu")
    return lambda scene, turns: answers(loaded, scene, turns)


def cider(said: dict[int, str], references: dict[int, list[str]]) -> float:
    """Return the mean CIDEr of captions; lower case, split at spaces and full stops."""
    plain = {i: [" ".join(t.lower().replace(".", "").replace(",", " ,").split()) for t in r]
             for i, r in references.items()}  # fmt: skip
    hypotheses = {i: [" ".join(t.lower().replace(".", "").replace(",", " ,").split())]
                  for i, t in said.items()}  # fmt: skip
    return float(Cider().compute_score(plain, hypotheses)[0])


def main(
    checkpoint: Annotated[Path, typer.Argument(help="folder of the checkpoint")],
    out: Annotated[Path | None, typer.Option(help="file to write, without .md and .json")] = None,
    scenes: Annotated[int, typer.Option(help="scenes to ask about")] = 400,
) -> None:
    """Print, and write if asked to, the share of right answers by kind of question."""
    answer = reader(checkpoint)
    right: dict[str, list[bool]] = defaultdict(list)
    said: dict[int, str] = {}
    references: dict[int, list[str]] = {}
    for number in range(FIRST, FIRST + scenes):
        scene = make_scene("check", number)
        asked = turns_of(scene, np.random.default_rng([3, number]))
        replies = answer(scene, [turn for _, turn in asked])
        for (group, turn), reply in zip(asked, replies, strict=True):
            if group == "caption":
                said[number], references[number] = reply, captions(scene)
            else:
                right[group].append(reply.lower() == turn.answer.lower())
    rows = [
        {"questions about": group, "right": round(float(np.mean(hits)), 3), "asked": len(hits)}
        for group, hits in right.items()
    ]
    numbers = list(said)
    shuffled = {n: said[numbers[(i + 1) % len(numbers)]] for i, n in enumerate(numbers)}
    caption = [
        {"captions": "of the scene", "CIDEr": round(cider(said, references), 3)},
        {"captions": "of another scene", "CIDEr": round(cider(shuffled, references), 3)},
    ]
    tables = {f"Right answers on {scenes} scenes": rows, "Captions": caption}
    for heading, table in tables.items():
        console.print(f"{heading}\n\n{markdown(table)}\n", markup=False)
    if out is not None:
        words = ["python", "scripts/mini/examine.py", str(checkpoint), "--scenes", str(scenes)]
        command = shlex.join(words)
        title = f"Examination of {checkpoint.name} on scenes it never saw,"
        write_tables(
            out, title, provenance.origin(command, "cpu"), tables, ["float32, greedy, unpruned."]
        )


if __name__ == "__main__":
    typer.run(main)
