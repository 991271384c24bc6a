"""Requests reduced to what decides their answers: prompt, images, generation settings."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from math import isfinite

from PIL import Image

from otprune_lmms.documents import BROKEN, SeedVideo, reason_of
from otprune_lmms.engine.memory import is_out_of_memory
from otprune_lmms.engine.requests import DocumentError, Request, RequestError
from otprune_lmms.images import as_rgb, image_hash
from otprune_lmms.models.protocol import (
    LONGEST_ANSWER,
    Generation,
    Prompt,
    VisionLanguageModel,
)

FORMAT = 3
"""Version of the digests; raise it with any change that alters answers to unchanged requests."""

_PACKAGES = ("otprune", "otprune-llava", "otprune-lmms")


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request reduced to what decides its answer; requests of one digest have one answer.

    Attributes:
        request: the first request of this digest.
        digest: `request_hash`: everything that decides the answer, except the pruning config.
        images: `image_hash` of each image.
        prompt: the prompt, up to where the answer begins.
        generation: generation settings, defaults filled in.
    """

    request: Request
    digest: str
    images: tuple[str, ...]
    prompt: Prompt
    generation: Generation


@dataclass(frozen=True, slots=True)
class RequestPreparer:
    """Prepares requests for a model, on any thread.

    Attributes:
        model: the model.
        fingerprint: its fingerprint; "" where digests of different models are never compared.
        source: `engine.session.source_of` it; "" likewise.
        seed_video: how videos are shown.
    """

    model: VisionLanguageModel
    fingerprint: str
    seed_video: SeedVideo
    source: str = ""

    def prepare(self, request: Request) -> PreparedRequest:
        """Return a request prepared; reads and hashes its images.

        Raises:
            DocumentError: its images cannot be read, or its context is no text or places another
                number of images.
        """
        context: object = request.context
        if not isinstance(context, str):
            reason = f"its context must be a text, got {type(context).__name__}"
            raise DocumentError(request.failure(reason))
        images = tuple(image_hash(image) for image in self.images(request))
        try:
            prompt = self.model.render(request.context, len(images), request.generation)
        except ValueError as error:
            raise DocumentError(request.failure(str(error))) from error
        generation = generation_of(request, self.model.max_new_tokens)
        model = f"{self.fingerprint} {self.source}"
        digest = request_hash(request, prompt, images, generation, model)
        return PreparedRequest(request, digest, images, prompt, generation)

    def images(self, request: Request) -> list[Image.Image]:
        """Return a request's images as RGB.

        Raises:
            DocumentError: one cannot be read; the message has its number.
        """
        with document_errors(request):
            images = request.images()
            if request.video and self.seed_video == "first_frame":
                images = images[:1]
            return [as_rgb(image, f"image {number}") for number, image in enumerate(images)]


@contextmanager
def document_errors(request: Request) -> Iterator[None]:
    """In this context errors of a broken document become one that names the document.

    Raises:
        DocumentError: in place of the errors of the image library and of the task's own code, and
            where memory runs out: a few bytes can hold an image of 1 x 40 000 pixels, whose padded
            square takes gigabytes.
    """
    try:
        yield
    except RequestError:
        raise
    except BROKEN as error:
        raise DocumentError(request.failure(reason_of(error))) from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise DocumentError(request.failure("its images do not fit into memory")) from error


def generation_of(request: Request, longest: int = LONGEST_ANSWER) -> Generation:
    """Return a request's generation settings with the defaults filled in.

    Args:
        request: the request.
        longest: longest answer where the task does not say.

    Raises:
        ValueError: an ``until`` that is no text or list of texts, a length or number of beams that
            is no whole number from 1 on, a ``temperature`` or ``top_p`` that is no number.
    """
    given = request.generation
    until = given.get("until") or ()
    until = (until,) if isinstance(until, str) else until
    if not isinstance(until, list | tuple) or not all(isinstance(one, str) for one in until):
        raise ValueError(f"until of {request.name} must be texts, got {until!r}")
    return Generation(
        max_new_tokens=int(_number(request, "max_new_tokens", longest, whole=True)),
        temperature=_number(request, "temperature", 0),
        top_p=None if given.get("top_p") is None else _number(request, "top_p", 1),
        num_beams=int(_number(request, "num_beams", 1, whole=True)),
        until=tuple(one for one in until if one),
    )


def _number(request: Request, name: str, default: int, *, whole: bool = False) -> int | float:
    value = request.generation.get(name)
    if value is None:
        return default
    usable = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    if not usable or (whole and (value < 1 or value != int(value))):
        rule = "a whole number >= 1" if whole else "a number"
        raise ValueError(f"{name} of {request.name} must be {rule}, got {value!r}")
    return value


def image_number(digest: str) -> int:
    """Return the number of an image for seeded methods, from the hash of its content."""
    return int(digest[:15], 16)


@cache
def _code() -> dict[str, str]:
    return {name: version(name) for name in _PACKAGES}


def request_hash(
    request: Request,
    prompt: Prompt,
    images: tuple[str, ...],
    generation: Generation,
    model: str,
) -> str:
    """Return SHA-256, as hex, over everything that decides an answer, except the pruning config.

    That is prompt, images, generation settings, continuation, the model (its fingerprint and
    source) and the packages' versions. Task and document are not included: equal requests have
    equal answers.
    """
    known = {
        "format": FORMAT,
        "code": _code(),
        "model": model,
        "kind": request.kind,
        "prompt": prompt.text,
        "view": prompt.image_view,
        "continuation": request.continuation,
        "images": images,
        "generation": dataclasses.asdict(generation),
        "repeat": request.repeat if generation.samples else 0,
    }
    text = json.dumps(known, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
