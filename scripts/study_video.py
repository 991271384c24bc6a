"""Selection over a clip: a budget for each frame against one for the clip; and memory of long sets.

    .venv/bin/python scripts/study_video.py answers
    .venv/bin/python scripts/study_video.py memory
    .venv/bin/python scripts/study_video.py page --out results/video

`answers` draws clips of the mini world (scripts/mini/clips.py), keeps some of all frames' tokens
and has llava-mini answer questions about the clip. llava-mini was trained on single images, so what
is kept of all frames is given to it as the tokens of one image, no more than one has. `memory`
measures every selector that claims linear memory, each in a process of its own. Both go on where
they were interrupted. docs/video.md says what the tables mean.
"""

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer

from bench_common import ROOT, added_peak_mib, image_like_tokens, write_tables
from otprune import Signals, make_pruner

sys.path.insert(0, str(ROOT / "scripts" / "mini"))

from clips import Clip, documents, draw_clip, make_clip, prompt, shown  # noqa: E402
from otprune_lmms import provenance  # noqa: E402
from otprune_lmms.reporting.statistics.paired import holm  # noqa: E402

from latex.measures import sign_flip_p, with_interval  # noqa: E402

METHODS = ("otprune", "divprune", "w2greedy", "random")
BUDGETS = (128, 256)
"""Tokens kept of a clip; an image has 256."""

SEEDS = (0, 1, 2)
SIZES, WIDTH = (20_000, 50_000, 100_000), 1024
PICKS = {"w2greedy": 200}
"""Picks of methods that take too long, or too much memory, for `MANY` of them."""

MANY = 1000
CLAIM_LINEAR = (
    "otprune", "dpp", "divprune", "farthest_point", "herding", "facility_location", "kmedoids",
    "w2greedy", "random", "uniform",
)  # fmt: skip
NOTES = [
    "Clips of 8 frames with 256 tokens each; 4 questions a clip, with four options, two about the "
    "object that moves and two about what stands still. One budget for the **clip** lets a method "
    "pick among all 2048 tokens, one for each **frame** among 256 at a time. **changed** keeps a "
    "grid of the first frame and, of the others, the tokens that differ most from those at the "
    "same place in the frame before. Given to llava-mini as the tokens of one image. "
    "**middle frame**: all tokens of the frame that shows the moving object best; **first frame**: "
    "the rule of the released code for videos. **mover**: share kept of the tokens that show the "
    "moving object; "
    "**repeated**: share of kept tokens at a place that is kept in more than one frame.",
    "",
    "Intervals are 95 %, 2000 redraws of clips; p by sign flips of clips, adjusted after Holm over "
    "the rows of a table. `random` is the mean of three seeds.",
    "",
    "Memory is what a selection adds to its tokens, the largest at any time, in a process of its "
    "own, float32 tokens of 1024 channels; growth is the exponent of n by least squares on "
    "logarithms. 1000 picks; w2greedy 200. Other programs ran on the machine: seconds are of CPU, "
    "and rough.",
]

app = typer.Typer(add_completion=False, no_args_is_help=True)
Work = Annotated[Path, typer.Option(help="folder of intermediate files")]
WORK = ROOT / "outputs" / "video"


def keep(name: str, budget: str, frames: torch.Tensor, k: int, number: int) -> torch.Tensor:
    """Return the kept positions, ascending, of all tokens of a clip in a row.

    Args:
        name: a method, "random s" with a seed, or "changed".
        budget: "clip" or "frame".
        frames: [t n d].
        k: of the whole clip; a multiple of the number of frames.
        number: of the clip, by which random draws differ.
    """
    if name == "changed":
        return changed(frames, k)
    method, _, seed = name.partition(" ")
    pruner: Any = make_pruner(method, **({"seed": int(seed)} if seed else {}))
    t, n, _ = frames.shape
    if budget == "clip":
        return pruner.select(frames.flatten(0, 1), k, signals=Signals(image_id=number))
    parts = [
        pruner.select(frame, k // t, signals=Signals(image_id=t * number + i)) + n * i
        for i, frame in enumerate(frames)
    ]
    return torch.cat(parts)


def changed(frames: torch.Tensor, k: int) -> torch.Tensor:
    """Return an even share of the first frame, and the tokens that changed most in the others."""
    t, n, _ = frames.shape
    side = math.isqrt(n)
    first = make_pruner("grid").select(frames[0], k // t, signals=Signals(grid=(side, side)))
    change = (frames[1:] - frames[:-1]).norm(dim=2).flatten()
    later = change.argsort(descending=True, stable=True)[: k - len(first)] + n
    return torch.cat([first, later]).sort().values


def settings() -> list[tuple[str, str, int]]:
    """Return every (method, budget, k)."""
    names = [*METHODS[:-1], *(f"random {seed}" for seed in SEEDS)]
    found = [(name, budget, k) for k in BUDGETS for name in names for budget in ("clip", "frame")]
    return found + [("changed", "clip", k) for k in BUDGETS]


@app.command()
def answers(
    work: Work = WORK,
    clips: Annotated[int, typer.Option(min=1, help="how many")] = 60,
    first: Annotated[int, typer.Option(min=0, help="number of the first")] = 0,
) -> None:
    """Answer the questions about every clip under every setting."""
    from llava.model.builder import load_pretrained_model

    torch.set_num_threads(1)
    loaded = load_pretrained_model("llava-mini", device="cpu")
    work.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + clips):
        file = work / f"clip-{number}.json"
        if not file.exists():
            rows = answer_clip(loaded, make_clip(number))
            _store(file, {"commit": provenance.commit(), "rows": rows})
            print(number, flush=True)


@torch.inference_mode()
def answer_clip(loaded: Any, clip: Clip) -> list[dict]:
    """Return one row for each setting and question."""
    from llava.mm_utils import process_images

    _, model, processor, _ = loaded
    images = draw_clip(clip)
    pixels = process_images(images, processor, model.config)
    visual = model.encode_visual(pixels, [image.size for image in images])
    frames = torch.stack([one.tokens for one in visual])
    asked = documents(clip)
    object_shown = torch.from_numpy(shown(clip, math.isqrt(frames.shape[1])).ravel())
    kept = {
        ("first frame", "-", 256): torch.arange(256),
        ("middle frame", "-", 256): torch.arange(256) + 256 * clip.middle,
    }
    for name, budget, k in settings():
        kept[name, budget, k] = keep(name, budget, frames, k, clip.number)
    rows = []
    everything = frames.flatten(0, 1)
    for (name, budget, k), places in kept.items():
        said = _answers(loaded, everything[places], [prompt(one) for one in asked])
        within = torch.bincount(places % frames.shape[1], minlength=frames.shape[1])
        about = {
            "setting": name.partition(" ")[0] if name.startswith("random") else name,
            "budget": budget,
            "k": k,
            "clip": clip.number,
            "mover": float(object_shown[places].sum() / object_shown.sum()),
            "repeated": float((within[places % frames.shape[1]] > 1).double().mean()),
        }
        for one, answer in zip(asked, said, strict=True):
            right = answer.strip(". ").upper() == one["answer"]
            rows.append(about | {"about": one["about"], "right": int(right)})
    return rows


def _answers(loaded: Any, tokens: torch.Tensor, prompts: list[str]) -> list[str]:
    from llava.chat import make_prompt
    from llava.mm_utils import tokenizer_image_token

    from otprune.pruning import ImageTokens

    tokenizer, model, _, _ = loaded
    rows = [tokenizer_image_token(make_prompt(text, 1), tokenizer) for text in prompts]
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, longest - len(row) :] = torch.tensor(row)
        mask[i, longest - len(row) :] = True
    visual = [ImageTokens(tokens)] * len(rows)
    out = model.generate(ids, attention_mask=mask, visual=visual, do_sample=False, max_new_tokens=4)
    return [text.strip() for text in tokenizer.batch_decode(out, skip_special_tokens=True)]


@app.command(hidden=True)
def one(method: str, n: int) -> None:
    """Print the MiB that one selection adds, and its seconds of CPU; for a fresh process."""
    torch.set_num_threads(1)
    tokens = image_like_tokens(n, WIDTH)
    pruner: Any = make_pruner(method)
    k = PICKS.get(method, MANY)
    signals = Signals(image_id=0)
    pruner.rank(tokens[:5000].clone(), 5, signals)
    start = time.process_time()
    added = added_peak_mib(lambda: pruner.rank(tokens, k, signals), "cpu")
    print(json.dumps({"MiB": added, "s": time.process_time() - start}))


@app.command()
def memory(
    work: Work = WORK,
    seconds: Annotated[int, typer.Option(help="after which a selection is given up")] = 200,
) -> None:
    """Measure each selector that claims linear memory, at each size."""
    work.mkdir(parents=True, exist_ok=True)
    for n in SIZES:
        for method in CLAIM_LINEAR:
            file = work / f"memory-{method}-{n}.json"
            if file.exists():
                continue
            try:
                done = subprocess.run(
                    [sys.executable, __file__, "one", method, str(n)],
                    capture_output=True, text=True, check=True, timeout=seconds,
                )  # fmt: skip
                found = json.loads(done.stdout)
            except subprocess.TimeoutExpired:
                found = {"MiB": None, "s": None}
            _store(file, {"commit": provenance.commit()} | found)
            print(method, n, found, flush=True)


def memory_rows(found: dict[tuple[str, int], dict]) -> list[dict]:
    """Return one row for each method: MiB and seconds at each size, and the growth of MiB."""
    rows = []
    for method in CLAIM_LINEAR:
        row: dict[str, Any] = {"method": method, "picks": PICKS.get(method, MANY)}
        sizes, added = [], []
        for n in SIZES:
            here = found.get((method, n), {"MiB": None, "s": None})
            done = here["MiB"] is not None
            row[f"MiB, {n:,}"] = round(here["MiB"], 1) if done else "not finished"
            row[f"s, {n:,}"] = round(here["s"], 1) if done else "not finished"
            if done and here["MiB"] > 1:
                sizes.append(n)
                added.append(here["MiB"])
        row["growth"] = growth(sizes, added)
        rows.append(row)
    return rows


def growth(sizes: list[int], values: list[float]) -> str:
    """Return the exponent of n, by least squares on logarithms; "-" for fewer than two sizes."""
    if len(sizes) < 2:
        return "-"
    slope = np.polyfit(np.log(sizes), np.log(values), 1)[0]
    return f"{slope:.2f}"


def answer_rows(rows: pd.DataFrame, k: int) -> list[dict]:
    """Return the table of one budget, the references first."""
    some = rows[(rows.k == k) | (rows.budget == "-")]
    found = []
    for (setting, budget), mine in some.groupby(["setting", "budget"], sort=False):
        row: dict[str, Any] = {"setting": setting, "budget": budget}
        for about in ("moving", "still"):
            right = mine[mine.about == about].groupby("clip").right.mean()
            row[f"{about} % right"] = with_interval(right.to_numpy(), 1, 100)
        for column in ("mover", "repeated"):
            row[column] = with_interval(mine.groupby("clip")[column].mean().to_numpy(), 3)
        found.append(row)
    return found


def comparison_rows(rows: pd.DataFrame, k: int) -> list[dict]:
    """Return what one budget for the clip gains over one for each frame, by method."""
    found = []
    for method in METHODS:
        for about in ("moving", "still"):
            gain = _by_clip(rows, method, "clip", k, about) - _by_clip(
                rows, method, "frame", k, about
            )
            found.append(
                {"method": method, "questions": about, "clip - frame": with_interval(gain, 1, 100),
                 "p": sign_flip_p(gain)}
            )  # fmt: skip
    for row, p in zip(found, holm(np.array([row["p"] for row in found])), strict=True):
        row["p"] = f"{p:.2g}"
    return found


def _by_clip(rows: pd.DataFrame, method: str, budget: str, k: int, about: str) -> np.ndarray:
    mine = rows[
        (rows.setting == method) & (rows.budget == budget) & (rows.k == k) & (rows.about == about)
    ]
    return mine.groupby("clip").right.mean().to_numpy()


@app.command()
def page(
    work: Work = WORK,
    out: Annotated[Path, typer.Option(help="folder of the tables")] = ROOT / "results" / "video",
) -> None:
    """Write the tables and the answers that they follow from."""
    out.mkdir(parents=True, exist_ok=True)
    stored = [json.loads(file.read_text()) for file in sorted(work.glob("clip-*.json"))]
    sizes = {}
    for file in sorted(work.glob("memory-*.json")):
        _, method, n = file.stem.split("-")
        sizes[method, int(n)] = json.loads(file.read_text())
    commits = dict.fromkeys(one["commit"] for one in [*stored, *sizes.values()])
    rows = pd.DataFrame([row for one in stored for row in one["rows"]])
    (out / "answers.csv").write_text(rows.to_csv(index=False, float_format="%.4g"))
    tables = {}
    if len(rows):
        clips = rows["clip"].nunique()
        for k in BUDGETS:
            tables[f"{k} tokens of {clips} clips"] = answer_rows(rows, k)
            tables[f"One budget for the clip against one a frame, {k} tokens"] = comparison_rows(
                rows, k
            )
    tables["Memory and time of large sets"] = memory_rows(sizes)
    steps = " && ".join(
        f"python scripts/study_video.py {step}" for step in ("answers", "memory", "page")
    )
    origin = provenance.origin(steps, "cpu") | {"commit": ", ".join(commits)}
    print(write_tables(out / "video", "Selection over clips and large sets", origin, tables, NOTES))


def _store(file: Path, found: dict) -> None:
    """Write a file that is either whole or not there."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.rename(file)


if __name__ == "__main__":
    app()
