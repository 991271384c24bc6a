"""Read what all requests need once, before the first token: which images, which questions."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image, ImageFile

from llava.images import as_rgb
from otprune_lmms.documents import BROKEN, reason_of
from otprune_lmms.engine.identity import Generation, generation_of, image_hash, request_hash
from otprune_lmms.engine.prompts import prompt_of
from otprune_lmms.engine.requests import DocumentError, Request, RequestError

SeedVideo = Literal["first_frame", "all_frames"]


@dataclass(frozen=True, slots=True)
class Question:
    """A request reduced to what decides its answer.

    Attributes:
        request: the first request that asks it.
        digest: hash of all but the config.
        images: hash of each image's content.
        prompt: with the conversation template, open for the answer.
        generation: settings.
    """

    request: Request
    digest: str
    images: tuple[str, ...]
    prompt: str
    generation: Generation


@dataclass(frozen=True, slots=True)
class Surveyor:
    """What is needed to reduce a request to a question.

    Attributes:
        config: the model's configuration.
        model: the model's fingerprint.
        template: name of the conversation template.
        seed_video: "first_frame" lets a video be its first frame.
    """

    config: Any
    model: str
    template: str
    seed_video: SeedVideo

    def question(self, request: Request) -> Question:
        """Return what a request asks.

        Raises:
            DocumentError: its images cannot be read, or do not go with its context.
        """
        images = tuple(image_hash(image) for image in self.pictures(request))
        prompt = prompt_of(request, len(images), self.template)
        generation = generation_of(request, self.config)
        digest = request_hash(request, prompt, images, generation, self.model)
        return Question(request, digest, images, prompt, generation)

    def pictures(self, request: Request) -> list[Image.Image]:
        """Return a request's images as RGB.

        Raises:
            DocumentError: one cannot be read; the message says which.
        """
        with named(request):
            images = request.images()
            if request.video and self.seed_video == "first_frame":
                images = images[:1]
            return [as_rgb(image, f"image {number}") for number, image in enumerate(images)]


@contextmanager
def named(request: Request) -> Iterator[None]:
    """Turn the ways in which an image can be broken into an error that names the document.

    Raises:
        DocumentError: in place of the errors of the image library and of the task's own code.
    """
    try:
        yield
    except RequestError:
        raise
    except BROKEN as error:
        raise DocumentError(request.failure(reason_of(error))) from error


@contextmanager
def whole_images() -> Iterator[None]:
    """Let truncated images be errors; lmms-eval's tasks have them filled with grey."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
