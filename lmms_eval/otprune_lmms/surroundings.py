"""What this machine has of what the harness uses, each with what follows from it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from huggingface_hub import constants

from otprune.compiled.build import CannotBuildError, default_folder, load
from otprune_lmms.environment import SettingsError, read_environment
from otprune_lmms.files import is_folder
from otprune_lmms.hub import reason_unreachable
from otprune_lmms.installation import check_installation

Verdict = Literal["ok", "note", "missing"]

_PACKAGES = ("otprune", "otprune-llava", "otprune-lmms", "torch", "transformers", "lmms_eval")
_GIB = 2**30
_LITTLE_DISK = 2 * _GIB
"""Bytes below which a run of the embedded model may fill the disk."""

_PATIENCE = 20.0
"""Seconds that another environment's interpreter is given."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what.
        verdict: "ok"; "note" where something does not work without it; "missing" where nothing
            does.
        found: what is there.
        advice: what follows, or what to do; "" for nothing.
    """

    name: str
    verdict: Verdict
    found: str
    advice: str = ""


def look_around(journal: Path, results: Path) -> list[Finding]:
    """Return what is found of packages, processors, Java, caches, the hub and vLLM.

    Loads torch, and asks the hub once; takes some seconds, most of them the hub's where it does not
    answer.

    Args:
        journal: folder of finished answers.
        results: folder of the results folders.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [
        *_packages(),
        _processors(torch.get_num_threads()),
        _gpu(gpus),
        _loops(),
        _java(),
        _hub(),
        _cache(),
        _journal(journal),
        _disk(results),
        _vllm(),
        _runs(gpus),
    ]


def _packages() -> Iterator[Finding]:
    versions = {name: _version(name) for name in _PACKAGES}
    shown = ", ".join(f"{name} {number or 'not installed'}" for name, number in versions.items())
    try:
        check_installation()
    except RuntimeError as error:
        yield Finding("packages", "missing", shown, str(error))
        return
    yield Finding("packages", "ok", shown)
    flash = _version("flash-attn")
    yield Finding(
        "flash-attn",
        "ok" if flash else "note",
        flash or "not installed",
        "" if flash else "optional: attention then is torch's own (sdpa)",
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processors(threads: int) -> Finding:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    cores = len(os.sched_getaffinity(0))
    return Finding("processor", "ok", f"{cores} cores, {threads} threads, {memory:.0f} GiB memory")


def _gpu(count: int) -> Finding:
    import torch

    if not count:
        return Finding("CUDA GPU", "note", "none", "7B models need one; the embedded ones do not")
    about = [torch.cuda.get_device_properties(place) for place in range(count)]
    shown = ", ".join(f"{one.name} ({one.total_memory / _GIB:.0f} GiB)" for one in about)
    return Finding("CUDA GPU", "ok", shown)


def _loops() -> Finding:
    try:
        load()
    except CannotBuildError as error:
        advice = "install a C compiler: selection on a CPU runs in torch until then, slower"
        return Finding("compiled loops", "note", str(error), advice)
    return Finding("compiled loops", "ok", f"in {default_folder()}")


def _java() -> Finding:
    found = shutil.which("java")
    advice = "" if found else "install Java 8 or newer: caption metrics need it"
    return Finding("Java", "ok" if found else "note", found or "not on the PATH", advice)


def _hub() -> Finding:
    reason = reason_unreachable()
    if reason is None:
        return Finding("model hub", "ok", f"{constants.ENDPOINT} answers")
    advice = "what is not in the cache cannot be loaded; embedded models and data need no hub"
    return Finding("model hub", "note", f"{constants.ENDPOINT}: {reason}", advice)


def _cache() -> Finding:
    folder = Path(constants.HF_HUB_CACHE)
    there = [one.name for one in folder.iterdir()] if is_folder(folder) else []
    models = sum(name.startswith("models--") for name in there)
    data = sum(name.startswith("datasets--") for name in there)
    return Finding("hub's cache", "ok", f"{folder}: {models} models, {data} data sets")


def _journal(folder: Path) -> Finding:
    files = [one for one in folder.rglob("*") if one.is_file()] if is_folder(folder) else []
    size = sum(one.stat().st_size for one in files)
    shown = f"{folder}: {len(files)} files, {size / 2**20:.1f} MiB" if files else f"{folder}: empty"
    return Finding("finished answers", "ok", shown)


def _disk(folder: Path) -> Finding:
    place = next(one for one in (folder.absolute(), *folder.absolute().parents) if is_folder(one))
    free = shutil.disk_usage(place).free
    little = free < _LITTLE_DISK
    advice = "a run may fill it" if little else ""
    shown = f"{free / _GIB:.1f} GiB free at {folder}"
    return Finding("disk", "note" if little else "ok", shown, advice)


def _vllm() -> Finding:
    try:
        python = read_environment().vllm_python
    except SettingsError as error:
        return Finding("environment variables", "missing", str(error), "correct or unset it")
    if python is None:
        advice = "for `backend: vllm` name the interpreter that has it: OTPRUNE_VLLM_PYTHON"
        return Finding("vLLM", "note", "no environment named", advice)
    ask = "from importlib.metadata import version as v; print(v('vllm'), v('otprune-vllm'))"
    try:
        done = subprocess.run(
            [python, "-c", ask], capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("vLLM", "note", f"{python}: {error}", "it must be a Python interpreter")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return Finding("vLLM", "note", f"{python}: {last}", "install vllm and otprune-vllm there")
    vllm, plugin = done.stdout.split()
    return Finding("vLLM", "ok", f"{python}: vllm {vllm}, otprune-vllm {plugin}")


def _runs(gpus: int) -> Finding:
    what = "configs/paper.yaml, from the hub" if gpus else "configs/mini.yaml, embedded"
    return Finding("bash run_OTPrune.sh", "ok", f"runs {what}")
