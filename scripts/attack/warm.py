"""Everything that a child may need, loaded in this process before children are forked from it."""

import copy
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lmms_eval.tasks
import otprune_lmms.experiments.diagnostics.diagnose
import otprune_lmms.experiments.run
import otprune_lmms.reporting.analysis.write
import otprune_lmms.reporting.figures
import otprune_lmms.reporting.report
import otprune_lmms.reporting.statistics
import otprune_lmms.reporting.tables  # noqa: F401 - commands import these only when they run
import torch
from lmms_eval.tasks import TaskManager
from otprune_lmms.models import llava

ROOT = Path(__file__).parents[2]

MINI = ROOT / "LLaVA" / "checkpoints" / "llava-mini"
"""The embedded checkpoint."""


def single_threaded() -> None:
    """Let torch work in one thread: a child has none but the one that forked it."""
    torch.set_num_threads(1)


def keep_loaded(*checkpoints: Path) -> None:
    """From now on, load each of some checkpoints once; others are loaded as before.

    Args:
        checkpoints: their folders; loaded now, for the CPU.
    """
    plain: Callable[..., Any] = llava.load_pretrained_model
    fingerprint: Callable[..., Any] = llava.model_fingerprint
    known = {str(one): plain(one, device="cpu", torch_dtype="float32") for one in checkpoints}
    prints = {
        id(model): fingerprint(model, tokenizer, processor)
        for tokenizer, model, processor, _ in known.values()
    }

    @functools.wraps(plain)
    def load(model: Any, *arguments: Any, **options: Any) -> Any:
        others = {options.get(name) for name in ("model_base", "attn_implementation")}
        usual = not any(arguments) and others == {None} and _is_usual(options)
        found = known.get(str(Path(str(model)).resolve())) if usual else None
        return found or plain(model, *arguments, **options)

    @functools.wraps(fingerprint)
    def print_of(model: Any, *others: Any) -> str:
        return prints.get(id(model)) or fingerprint(model, *others)

    llava.load_pretrained_model = load
    llava.model_fingerprint = print_of


def _is_usual(options: Mapping[str, Any]) -> bool:
    """Return whether a model is loaded in float32 on the CPU; others are not kept."""
    usual = {"device": ("cpu",), "torch_dtype": (None, "auto", "float32")}
    known = all(options.get(name, values[0]) in values for name, values in usual.items())
    return known and not options.get("load_4bit") and not options.get("load_8bit")


def keep_index() -> None:
    """From now on, index lmms-eval's own tasks once; that takes 4 to 8 seconds."""
    plain: Callable[..., Any] = TaskManager._get_task_and_group
    own = Path(lmms_eval.tasks.__file__).parent
    known: dict[str, Any] = {}

    def index(self: TaskManager, task_dir: str) -> Any:
        if not Path(task_dir).is_relative_to(own):
            return plain(self, task_dir)
        if task_dir not in known:
            known[task_dir] = plain(self, task_dir)
        return copy.deepcopy(known[task_dir])

    TaskManager._get_task_and_group = index
    TaskManager("ERROR")
