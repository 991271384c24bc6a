"""The journal's header about the run that writes into it."""

import hashlib
import logging
import os
import pkgutil
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from socket import gethostname
from typing import Any

import torch

from otprune_lmms.images import as_rgb
from otprune_lmms.journal import Journal
from otprune_lmms.models.protocol import VisionLanguageModel
from otprune_lmms.provenance import versions
from otprune_lmms.sources import source_hash

logger = logging.getLogger(__name__)

_METHODS = ("otprune.registry", "otprune.selectors", "otprune.mergers", "otprune.layer_pruners")
"""What a family's own code imports of methods only to look them up."""


def describe(journal: Journal, name: str, model: VisionLanguageModel, source: str) -> None:
    """Fill in a journal's header: model, device, dtype, versions, source code, process.

    Args:
        journal: the journal.
        name: the model's name.
        model: the model.
        source: `source_of` the model. Answers of other source are not reused; a warning is logged
            if there are such answers.
    """
    earlier = {_source_before(one, model.fingerprint) for one in journal.sessions}
    if earlier - {source, None}:
        logger.warning(
            "%s holds answers of other source code (of otprune, llava or the engine); they are not "
            "reused",
            journal.folder,
        )
    journal.header.setdefault("models", {})[model.fingerprint] = name
    journal.header.setdefault("sources", {})[model.fingerprint] = source
    journal.header |= {
        "versions": versions(),
        "device": _device_name(model.devices[0]),
        "dtype": str(model.dtype),
        "process": {"host": gethostname(), "pid": os.getpid(), "begun": round(time.time(), 1)},
    }


def _source_before(session: Mapping[str, Any], fingerprint: str) -> str | None:
    """Return the source that answered for a model in an earlier session; None if it did not."""
    if "sources" in session:
        return dict(session["sources"]).get(fingerprint)
    # Sessions of earlier versions have one source, of one family.
    return session.get("source") if fingerprint in session.get("models", {}) else None


@cache
def source_of(family: type[VisionLanguageModel]) -> str:
    """Return SHA-256, as hex, over the source that makes a family's answers, methods left out.

    That is the family's class with all that it imports from its packages, and the engine. A
    method's source is part of `PruningConfig.answer_key`. Computed once: about 0.3 s.
    """
    packages = {"otprune", family.__module__.partition(".")[0], *family.packages}
    engine = __name__.rpartition(".")[0]
    modules = [f"{engine}.{one.name}" for one in pkgutil.iter_modules([str(Path(__file__).parent)])]
    parts = [
        source_hash([one.__module__ for one in family.__mro__[:-1]], packages, _METHODS),
        source_hash([*modules, as_rgb.__module__], ()),
    ]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
