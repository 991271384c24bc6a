"""Where numbers come from: hardware, code, versions, memory."""

import platform
import resource
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = (
    "accelerate",
    "datasets",
    "lmms_eval",
    "numpy",
    "otprune",
    "otprune-llava",
    "otprune-lmms",
    "pandas",
    "pillow",
    "pycocoevalcap",
    "tokenizers",
    "torch",
    "transformers",
)
"""Packages whose version can change a number."""


def origin(command: str, device: str | None = None) -> dict[str, str]:
    """Return what a reader needs to reproduce numbers: five fields, none of them empty.

    Args:
        command: the command that made the numbers.
        device: "cpu" or "cuda"; None for a GPU where there is one.
    """
    return {
        "hardware": hardware(device),
        "commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "command": command,
    }


def hardware(device: str | None = None) -> str:
    """Return the name of the GPU, or of the processor with the threads in use; see `origin`."""
    if device == "cuda" or (device is None and torch.cuda.is_available()):
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        flags = next((line for line in lines if line.startswith("flags")), "")
        name = models[0] if models else name
        name += " with AVX-512" if "avx512f" in flags else ""
    return f"{name}, {torch.get_num_threads()} threads"


def commit() -> str:
    """Return the commit of this code, " + changes" where files outside results/ differ from it.

    "installed version X" where this file is in no repository: it may be surrounded by one (a
    virtual environment inside a project), whose commit says nothing about it.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.rstrip()

    installed = f"installed version {_installed('otprune-lmms')}"
    try:
        if not git("ls-files", "--error-unmatch", Path(__file__).name):
            return installed
        head = git("rev-parse", "--short=12", "HEAD")
        changed = [line for line in git("status", "--porcelain").splitlines() if line]
    except FileNotFoundError:
        return installed
    if not head:
        return installed
    return head + (" + changes" if any("results/" not in line for line in changed) else "")


def versions() -> dict[str, str]:
    """Return the version of every package that can change a number."""
    found = {package: _installed(package) for package in PACKAGES}
    return {"python": platform.python_version(), **found}


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def peak_memory_mib() -> dict[str, float]:
    """Return the peak memory so far in MiB: of this process, of the largest child, of the GPU."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    found = {"process": round(own, 1), "largest child": round(child, 1)}
    if torch.cuda.is_available():
        found["gpu"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return found
