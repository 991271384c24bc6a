"""What decides an answer, reduced to hashes."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

from PIL import Image

from llava.images import as_rgb
from otprune_lmms.engine.requests import Request

FORMAT = 1
"""To be raised by whoever changes what the engine answers to an unchanged request."""

_PACKAGES = ("otprune", "otprune-llava", "otprune-lmms")


@dataclass(frozen=True, slots=True)
class Generation:
    """Generation settings of a request, defaults filled in.

    Attributes:
        max_new_tokens: longest answer.
        temperature: 0 for greedy decoding.
        top_p: nucleus of sampling; None for all.
        num_beams: beams.
        until: texts that end an answer, left out of it.
        aspect: ``image_aspect_ratio`` for a checkpoint whose configuration has none.
    """

    max_new_tokens: int = 1024
    temperature: float = 0
    top_p: float | None = None
    num_beams: int = 1
    until: tuple[str, ...] = ()
    aspect: str | None = None

    @property
    def samples(self) -> bool:
        """Whether answers are drawn."""
        return self.temperature > 0


def generation_of(request: Request, config: Any) -> Generation:
    """Return what a request's generation settings mean for a model.

    ``image_aspect_ratio`` counts only if the model's configuration has no such field, as in
    lmms-eval's own wrapper, and for this request alone.

    Raises:
        ValueError: an ``until`` that is no text or list of texts.
    """
    given = request.generation
    until = given.get("until") or ()
    until = (until,) if isinstance(until, str) else until
    if not isinstance(until, list | tuple) or not all(isinstance(one, str) for one in until):
        raise ValueError(f"until of {request.name} must be texts, got {until!r}")
    own_aspect = "image_aspect_ratio" in vars(config)
    return Generation(
        max_new_tokens=int(_or(given, "max_new_tokens", 1024)),
        temperature=_or(given, "temperature", 0),
        top_p=given.get("top_p"),
        num_beams=int(_or(given, "num_beams", 1)),
        until=tuple(one for one in until if one),
        aspect=None if own_aspect else given.get("image_aspect_ratio"),
    )


def _or(given: Mapping[str, Any], name: str, default: Any) -> Any:
    value = given.get(name)
    return default if value is None else value


@cache
def _code() -> dict[str, str]:
    return {name: version(name) for name in _PACKAGES}


def image_hash(image: Image.Image) -> str:
    """Return SHA-256 over size and RGB pixels.

    Raises:
        ImageError: no usable image.
    """
    rgb = as_rgb(image)
    digest = hashlib.sha256(f"RGB {rgb.width} {rgb.height} ".encode())
    digest.update(rgb.tobytes())
    return digest.hexdigest()


def image_number(digest: str) -> int:
    """Return the integer that names an image for seeded methods: its content, not its place."""
    return int(digest[:15], 16)


def request_hash(
    request: Request, prompt: str, images: tuple[str, ...], generation: Generation, model: str
) -> str:
    """Return SHA-256 over all but the config that decides the answer to a request.

    Prompt (context and conversation template), images, generation settings, continuation, model
    fingerprint and version of the code. Task and document do not count: equal questions have equal
    answers.
    """
    known = {
        "format": FORMAT,
        "code": _code(),
        "model": model,
        "kind": request.kind,
        "prompt": prompt,
        "continuation": request.continuation,
        "images": images,
        "generation": dataclasses.asdict(generation),
        "repeat": request.repeat if generation.samples else 0,
    }
    text = json.dumps(known, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
