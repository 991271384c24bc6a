"""A checkpoint's processor: its chat template, tokenizer, image processor and placeholders.

transformers' own processors want torchvision where a family takes videos. Here only images are
shown, so such a processor is built without the part for videos if torchvision is missing.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from otprune_lmms.models.wrapper_rules import WrapperRules, rules_of

logger = logging.getLogger(__name__)

SEVERAL = "several images"
"""Image view of a prompt with several images, in families that then show each as one tile."""

_NOT_PIXELS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")

_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
"""System text of LLaVA-1.5, whose converted checkpoints may have no chat template."""


@dataclass(frozen=True, slots=True)
class ProcessedImage:
    """What a processor makes of one image.

    Attributes:
        values: pixels and what belongs to them, for the vision encoder.
        placeholder: the text that stands for the image in a prompt.
    """

    values: Mapping[str, Tensor]
    placeholder: str


class ChatProcessor:
    """A checkpoint's processor, used as lmms-eval's own wrapper of the family uses it.

    Args:
        processor: of transformers.
        model_type: of the model's configuration.

    Attributes:
        tokenizer: the processor's.
        image_processor: likewise.
        rules: how the wrapper asks.
        image_token: what a chat template writes for an image.
    """

    def __init__(self, processor: Any, model_type: str) -> None:
        self._processor, self.model_type = processor, model_type
        self.tokenizer, self.image_processor = processor.tokenizer, processor.image_processor
        self.rules: WrapperRules = rules_of(model_type)
        self.image_token = str(getattr(processor, "image_token", "<image>"))
        self._shows_parts: dict[str | None, bool] = {}

    def __repr__(self) -> str:
        """Return all that decides ids and pixels beside the vocabulary."""
        names = ("image_seq_length", "image_seq_len", "num_image_tokens", "patch_size")
        counts = {name: getattr(self._processor, name, None) for name in names}
        return f"{self.model_type} {self.image_processor!r} {self.template!r} {counts}"

    @property
    def template(self) -> str | None:
        """The chat template; None if the checkpoint has none."""
        found = getattr(self._processor, "chat_template", None) or self.tokenizer.chat_template
        return None if found is None else str(found)

    def view(self, images: int) -> str | None:
        """Return the image view of a prompt with a number of images."""
        return SEVERAL if images > 1 and self.model_type == "llava_onevision" else None

    def prompt(self, context: str, images: int, answer: str | None) -> str:
        """Return the prompt of a request as text, with `image_token` for each image.

        Args:
            context: the task's text; may place images with ``<image>``.
            images: number of images.
            answer: the assistant's turn; None leaves it open.

        Raises:
            ValueError: a context that places another number of images, or that has the text by
                which the model knows an image; a chat template that cannot show images.
        """
        parts = self._parts(context, images)
        if self.template is None and not self.model_type.startswith("llava"):
            raise ValueError(
                f"the checkpoint must have a chat template, got none for {self.model_type}"
            )
        if self.template is None:
            text = self._vicuna(parts, answer)
        elif self._takes_parts:
            text = self._rendered([dict(part) for part in parts], answer)
        else:
            text = self._rendered(self._as_text(parts), answer)
        if text.count(self.image_token) != images:
            raise ValueError(
                f"the prompt must show {images} images, got {text.count(self.image_token)} times "
                f"{self.image_token!r}: the context may not have this text, which stands for an "
                "image"
            )
        return text

    @property
    def _takes_parts(self) -> bool:
        """Whether the chat template shows images among a turn's parts.

        Others show a list of parts as it is written in Python, or fail, or leave images out.
        """
        template = self.template
        if template not in self._shows_parts:
            turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]}]
            try:
                text = str(
                    self.tokenizer.apply_chat_template(
                        turn, chat_template=template, tokenize=False, add_generation_prompt=True
                    )
                )
            except (TemplateError, TypeError):
                text = ""
            self._shows_parts[template] = self.image_token in text and "'type'" not in text
        return self._shows_parts[template]

    def _parts(self, context: str, images: int) -> list[dict[str, str]]:
        """Return a user's turn in parts: images, and texts."""
        placed = context.count("<image>")
        image = {"type": "image"}
        if not self.rules.keeps_places or not placed:
            text = {"type": "text", "text": context.replace("<image>", "")}
            return [*(dict(image) for _ in range(images)), text]
        if placed != images:
            raise ValueError(f"the context places {placed} images, the document has {images}")
        first, *others = context.split("<image>")
        parts = [{"type": "text", "text": first}] if first else []
        for text in others:
            parts += [dict(image), {"type": "text", "text": text}]
        return parts

    def _as_text(self, parts: Sequence[Mapping[str, str]]) -> str:
        """Return a user's turn as one text; images that come first have a line of their own."""
        shown = [one.get("text", self.image_token) for one in parts]
        images = sum("text" not in one for one in parts)
        first = all("text" not in one for one in parts[:images])
        if images and first and self.rules.keeps_places and not shown[-1].startswith("\n"):
            return " ".join(shown[:images]) + "\n" + "".join(shown[images:])
        return "".join(shown)

    def _rendered(self, content: Any, answer: str | None) -> str:
        as_text = isinstance(content, str)

        def turn(role: str, words: str) -> dict[str, Any]:
            plain = words if as_text else [{"type": "text", "text": words}]
            return {"role": role, "content": plain}

        messages = [] if self.rules.system is None else [turn("system", self.rules.system)]
        messages.append({"role": "user", "content": content})
        messages += [] if answer is None else [turn("assistant", answer)]
        return str(
            self.tokenizer.apply_chat_template(
                messages,
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=answer is None,
            )
        )

    def _vicuna(self, parts: Sequence[Mapping[str, str]], answer: str | None) -> str:
        """Return a prompt in the form of Vicuna 1.1, as lmms-eval's ``llava_hf`` asks."""
        asked = f"{_VICUNA} USER: {self._as_text(parts)} "
        if answer is None:
            return f"{asked}ASSISTANT:"
        return f"{asked} ASSISTANT: {answer}{self.tokenizer.eos_token}"

    def ids(self, text: str) -> list[int]:
        """Return the ids of a prompt; a template may have written the first token already."""
        begin = self.tokenizer.bos_token
        written = bool(begin) and text.startswith(begin)
        return list(self.tokenizer(text, add_special_tokens=not written).input_ids)

    def image(self, image: Image.Image, view: str | None) -> ProcessedImage:
        """Return what the processor makes of an RGB image.

        Args:
            image: the image.
            view: from `view`.
        """
        count = 2 if view == SEVERAL else 1
        # A list of lists: the images of one prompt.
        made = self._processor(
            images=[[image] * count],
            text=[self.image_token * count],
            return_tensors="pt",
            return_text_replacement_offsets=True,
        )
        offsets = made.get("text_replacement_offsets")
        if offsets:
            placeholder = str(offsets[0][0]["replacement"])
        else:
            placeholder = self._written(made["input_ids"][0].tolist())
        values = {
            name: value
            for name, value in made.items()
            if isinstance(value, Tensor) and name not in _NOT_PIXELS
        }
        if view == SEVERAL:
            # One of the two; that it has company is said by the count of images, which stays.
            values |= {
                name: value[:1] for name, value in values.items() if name != "batch_num_images"
            }
        return ProcessedImage(values, placeholder)

    def _written(self, ids: list[int]) -> str:
        """Return the text of an image's ids, for a processor that does not tell it."""
        special = self.tokenizer("", add_special_tokens=True).input_ids
        if special and ids[: len(special)] == special:
            ids = ids[len(special) :]
        text = str(self.tokenizer.decode(ids, skip_special_tokens=False))
        again = list(self.tokenizer(text, add_special_tokens=False).input_ids)
        if again != ids:
            raise ValueError(
                f"the ids that stand for an image in {self.model_type} must be those of a text, "
                f"got {ids[:8]}... for {text[:40]!r}"
            )
        return text


def load_processor(
    pretrained: str,
    config: Any,
    revision: str | None,
    limits: tuple[int | None, int | None] = (None, None),
) -> ChatProcessor:
    """Return the processor of a checkpoint.

    Args:
        pretrained: folder or hub id.
        config: the model's configuration.
        revision: on the hub.
        limits: smallest and largest area of images in pixels; None for those of lmms-eval's
            wrapper, as far as they are within the checkpoint's own.

    Raises:
        ValueError: no processor, or one that lacks a package; limits for a family whose image
            processor has none.
    """
    try:
        processor = _processor(pretrained, config, revision)
    except ImportError as error:
        raise ValueError(f"the processor of {pretrained} cannot be loaded: {error}") from error
    chat = ChatProcessor(processor, str(config.model_type))
    _set_limits(chat, limits)
    return chat


def _processor(pretrained: str, config: Any, revision: str | None) -> Any:
    # The mapping's values are classes, which its type does not say.
    found: Any = PROCESSOR_MAPPING.get(type(config), None)
    if found is None or "video_processor" not in found.get_attributes():
        return AutoProcessor.from_pretrained(pretrained, revision=revision)
    try:
        return AutoProcessor.from_pretrained(pretrained, revision=revision)
    except ImportError:
        logger.info("%s: its processor is built without videos", pretrained)
    settings, _ = found.get_processor_dict(pretrained, revision=revision)
    parts = {
        "tokenizer": AutoTokenizer.from_pretrained(pretrained, revision=revision),
        "image_processor": AutoImageProcessor.from_pretrained(pretrained, revision=revision),
    }
    arguments = [parts.get(name) for name in found.get_attributes()]
    return _without_videos(found).from_args_and_dict(arguments, settings)


def _without_videos(kind: Any) -> Any:
    """Return a processor's class that takes None for its part for videos."""

    def check(self: Any, name: str, argument: Any) -> Any:
        if argument is None:
            return type(None)
        return kind.check_argument_for_proper_class(self, name, argument)

    return type(kind.__name__, (kind,), {"check_argument_for_proper_class": check})


def _set_limits(chat: ChatProcessor, limits: tuple[int | None, int | None]) -> None:
    """Set the smallest and the largest area of images."""
    processor, (given_least, given_most) = chat.image_processor, limits
    size = dict(getattr(processor, "size", None) or {})
    lower, upper = size.get("shortest_edge"), size.get("longest_edge")
    # In these families "edges" are areas; elsewhere they are lengths of a side.
    if not hasattr(processor, "merge_size") or lower is None or upper is None:
        if limits != (None, None):
            raise ValueError(
                f"min_pixels and max_pixels are for families that take images of any size, got "
                f"{given_least} and {given_most} for {chat.model_type}"
            )
        return

    def within(wanted: int | None, usual: int | None, plain: int) -> int:
        if wanted is not None:
            return wanted
        return plain if usual is None else min(max(usual, lower), upper)

    least = within(given_least, chat.rules.min_pixels, lower)
    most = within(given_most, chat.rules.max_pixels, upper)
    if least > most:
        raise ValueError(f"min_pixels must be at most max_pixels, got {least} and {most}")
    processor.size = {"shortest_edge": least, "longest_edge": most}
