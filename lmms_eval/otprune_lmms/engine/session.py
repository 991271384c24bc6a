"""The journal's header about the run that writes into it."""

import hashlib
import logging
import os
import time
from importlib.util import find_spec
from pathlib import Path
from socket import gethostname

import torch

from otprune_lmms.journal import Journal
from otprune_lmms.models.protocol import VisionLanguageModel
from otprune_lmms.provenance import versions

logger = logging.getLogger(__name__)

_PACKAGES = ("otprune", "llava", "otprune_lmms")


def describe(journal: Journal, name: str, model: VisionLanguageModel) -> None:
    """Fill in a journal's header: model, device, dtype, versions, source code, process.

    Answers of other source code are reused, since most changes of the code change no answer; a
    warning is logged if there are such answers.
    """
    source = source_hash()
    earlier = {one.get("source") for one in journal.sessions} - {source, None}
    if earlier:
        logger.warning(
            "%s holds answers that were written by other source code; if that code gives other "
            "answers, begin a new journal",
            journal.folder,
        )
    journal.header.setdefault("models", {})[model.fingerprint] = name
    journal.header |= {
        "source": source,
        "versions": versions(),
        "device": _device_name(model.devices[0]),
        "dtype": str(model.dtype),
        "process": {"host": gethostname(), "pid": os.getpid(), "begun": round(time.time(), 1)},
    }


def source_hash() -> str:
    """Return SHA-256 over the Python files of our packages, as hex."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        spec = find_spec(package)
        folders = [] if spec is None else spec.submodule_search_locations or []
        for folder in map(Path, folders):
            for file in sorted(folder.rglob("*.py")):
                digest.update(f"{package}/{file.relative_to(folder)}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
