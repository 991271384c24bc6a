"""Part `tests`: the tests that need a GPU."""

import subprocess
import sys
from typing import Any

from bench_common import ROOT
from gpu.budget import Budget
from gpu.needs import HARNESS, LLAVA, missing
from gpu.page import Page

TRITON = [f"tests/greedy/test_triton{name}.py" for name in ("", "_others", "_compiles")]
SUITES: dict[str, tuple[str, list[str], tuple[str, ...]]] = {
    "selection": (".", ["-m", "gpu", "tests/greedy", "tests/selectors"], ()),
    "Triton programs": (".", TRITON, ()),
    "llava": ("LLaVA", ["-m", "gpu", "tests/model/test_gpu.py"], LLAVA),
    "harness": ("lmms_eval", ["-m", "gpu", "tests/experiments/cost"], (*HARNESS, "lmms_eval")),
}
"""Folder, arguments of pytest, and packages that are needed besides."""


def run(page: Page, budget: Budget) -> list[str]:
    """Add the table; return what failed."""
    failed = []
    for name, (folder, arguments, requirements) in SUITES.items():
        row: dict[str, Any] = {"tests": name, "of": folder, "result": "", "ended with": ""}
        lacking = missing(requirements)
        if lacking:
            row["result"] = f"left out: needs {', '.join(lacking)}"
        elif budget.allows(f"tests of {name}", 5):
            row |= _result(folder, arguments, budget.left())
            if row["ended with"]:
                failed.append(f"tests of {name}: {row['result']}")
        else:
            row["result"] = "left out: no time"
        page.add("Tests", [row])
    return failed


def _result(folder: str, arguments: list[str], seconds: float) -> dict[str, Any]:
    """Return the last line of pytest and its exit status, 0 where no test is to be run."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    try:
        done = subprocess.run(
            command, cwd=ROOT / folder, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return {"result": f"stopped after {seconds:.0f} s", "ended with": "a timeout"}
    lines = (done.stdout + done.stderr).strip().splitlines() or ["nothing was printed"]
    if done.returncode:
        print("\n".join(lines[-60:]), file=sys.stderr)
    return {"result": lines[-1].strip("= "), "ended with": done.returncode}
