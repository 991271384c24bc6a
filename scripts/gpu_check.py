"""What pruning does on a CUDA GPU: tests, answers, and what it saves; in nine minutes at most.

    bash scripts/gpu_check.sh                        # everything, on a CUDA GPU
    bash scripts/gpu_check.sh --part selection       # one part
    bash scripts/gpu_check.sh --tiny --device cpu    # everything with small models, minutes

Weights are random and of the published sizes: times and memory do not depend on what they mean, and
correctness is an equation. The parts, each in a process of its own (`gpu/`):

- tests: those that need a GPU;
- selection: the release's way, our loop, the loop as a CUDA graph, Triton;
- answers: LLaVA-1.5-7B and Qwen2.5-VL-7B, pruned, against prompts shortened by hand;
- prefill: times of prefill and whole answers, beside the most that the FLOPs allow;
- harness: answers a second of the harness;
- flash: prefill under FlashAttention, where that is installed.

What does not fit into ``--seconds`` is left out and named. Tables go to results/gpu/<part>.md and
.json as they are made. What a part needs that is not there is named, and the others run. Ends with
code 1 where a test fails, an answer is not what it must be, or a part breaks off.
"""

import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from bench_common import ROOT
from gpu.budget import Budget, shared_out
from gpu.needs import NEEDS, missing, runnable
from gpu.page import Page

SHARES = {
    "tests": 90,
    "selection": 110,
    "answers": 60,
    "prefill": 170,
    "harness": 60,
    "flash": 50,
}
"""The parts in their order, and their shares of the time."""

TITLES = {
    "tests": "Tests that need a GPU",
    "selection": "Selection",
    "answers": "Pruned answers against prompts shortened by hand",
    "prefill": "Prefill and whole answers, pruned and unpruned,",
    "harness": "The harness with a model of random weights",
    "flash": "Prefill and whole answers under FlashAttention",
}

app = typer.Typer(add_completion=False)


def fail(message: str) -> typer.Exit:
    """Say a mistake in a sentence; return the end of the program."""
    print(f"error: {message}", file=sys.stderr)
    return typer.Exit(2)


def run_part(name: str, page: Page, budget: Budget, device: str, *, small: bool) -> list[str]:
    """Run a part in this process; return what is wrong.

    Modules are imported here, since each needs other packages.
    """
    if name == "tests":
        from gpu import marked_tests

        return marked_tests.run(page, budget)
    if name == "selection":
        from gpu import selection

        selection.run(page, budget, device, small=small)
    elif name == "answers":
        from gpu import answers

        return answers.run(page, budget, device, small=small)
    elif name == "harness":
        from gpu import harness

        harness.run(page, budget, device, small=small)
    elif name == "prefill":
        from gpu import prefill

        prefill.run(page, budget, device, small=small)
    else:
        from gpu import prefill

        prefill.run_flash(page, budget, device, small=small)
    return []


def run_all(seconds: float, words: list[str]) -> list[str]:
    """Run every part in a process of its own; return those that went wrong."""
    end = time.monotonic() + seconds
    wrong = []
    for name in SHARES:
        left = end - time.monotonic()
        lacking = missing(NEEDS[name])
        if lacking:
            print(f"left out: {name} needs {', '.join(lacking)}", file=sys.stderr)
            continue
        if left < 10:
            print(f"left out: {name}, no time is left", file=sys.stderr)
            continue
        share = shared_out(SHARES, name, left)
        print(f"{name}: {share:.0f} s of {left:.0f} s that are left", file=sys.stderr)
        command = [sys.executable, __file__, *words, "--part", name, "--seconds", f"{share:.0f}"]
        try:
            done = subprocess.run(command, check=False, timeout=left)
        except subprocess.TimeoutExpired:
            wrong.append(f"{name} (stopped when the time was up; its tables so far are written)")
            continue
        if done.returncode:
            wrong.append(f"{name} (exit status {done.returncode})")
    return wrong


@app.command()
def main(
    device: Annotated[str, typer.Option(help="cuda or cpu")] = "cuda",
    tiny: Annotated[bool, typer.Option(help="small models, in float32 on a CPU")] = False,
    part: Annotated[str | None, typer.Option(help=f"one of {', '.join(SHARES)}")] = None,
    seconds: Annotated[int, typer.Option(min=1, help="what all may take together")] = 540,
    out: Annotated[Path, typer.Option(help="folder of the tables")] = ROOT / "results" / "gpu",
) -> None:
    """Run all parts, or one, and write the tables."""
    if device not in ("cuda", "cpu"):
        raise fail(f"--device must be cuda or cpu, got {device!r}")
    if part is not None and part not in SHARES:
        raise fail(f"--part must be one of {', '.join(SHARES)}; got {part!r}")
    if device == "cpu" and not tiny:
        raise fail("--device cpu needs --tiny: 7B in bfloat16 is for a GPU")
    if device == "cuda" and not torch.cuda.is_available():
        raise fail("no CUDA GPU is here; --tiny --device cpu runs the same with small models")
    words = ["--device", device, *["--tiny"] * tiny]
    if part is None:
        wrong = run_all(seconds, [*words, "--out", str(out)])
    else:
        lacking = missing(NEEDS[part])
        if lacking:
            others = ", ".join(runnable()) or "no part"
            raise fail(f"{part} needs {', '.join(lacking)}; {others} can run without")
        budget = Budget(seconds)
        command = shlex.join(["bash", "scripts/gpu_check.sh", *words, "--part", part])
        name = f"{part}-tiny" if tiny else part
        page = Page(out / name, TITLES[part], command, device, [])
        wrong = run_part(part, page, budget, device, small=tiny)
        page.add("Left out", budget.left_out)
        print(page.text)
    if wrong:
        print(f"error: not as it must be: {'; '.join(wrong)}", file=sys.stderr)
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
