"""Write a LLaVA in transformers' own layout: weights, tokenizer, chat template and processor."""

from pathlib import Path
from typing import Any

from transformers import CLIPImageProcessorPil, LlavaProcessor

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import Conversation, conv_templates
from llava.fast_tokenizer import fast_tokenizer
from llava.model.to_transformers import to_transformers

_QUESTION, _ANSWER, _NEXT = "\ue000", "\ue001", "\ue002"
"""Characters of no text, which show where a template puts its turns."""


def write_transformers_folder(
    folder: str | Path, tokenizer: Any, model: Any, image_processor: Any, chat_template: str
) -> None:
    """Write a loaded LLaVA-1.5 so that transformers alone can load and ask it.

    Prompts have the ids and square images the pixels that this package gives them. An image that is
    not square is cropped by transformers' processor, where ``image_aspect_ratio: pad`` would pad
    it. The placeholder's logit, which belongs to no token, is left out of generated answers by
    ``suppress_tokens``; a likelihood counts it.

    Args:
        folder: made if it does not exist.
        tokenizer: as `load_pretrained_model` returns it.
        model: likewise.
        image_processor: likewise.
        chat_template: name of the conversation template.

    Raises:
        ValueError: as `to_transformers`; a name of no template.
    """
    if chat_template not in conv_templates:
        known = ", ".join(conv_templates)
        raise ValueError(f"chat_template must be one of {known}; got {chat_template!r}")
    twin = to_transformers(model)
    twin.generation_config.suppress_tokens = [twin.config.image_token_index]
    fast = fast_tokenizer(
        tokenizer.model_file, DEFAULT_IMAGE_TOKEN, model_max_length=tokenizer.model_max_length
    )
    template = jinja_template(conv_templates[chat_template])
    fast.chat_template = template
    side = image_processor.side
    pixels = CLIPImageProcessorPil(
        size={"shortest_edge": image_processor.resize_to or side},
        crop_size={"height": side, "width": side},
        image_mean=list(image_processor.image_mean),
        image_std=list(image_processor.image_std),
        resample=image_processor.resample,
        rescale_factor=image_processor.rescale_factor,
    )
    tower = model.get_vision_tower()
    processor = LlavaProcessor(
        image_processor=pixels,
        tokenizer=fast,
        patch_size=tower.config.patch_size,
        vision_feature_select_strategy=twin.config.vision_feature_select_strategy,
        num_additional_image_tokens=int(tower.has_cls),
        image_token=DEFAULT_IMAGE_TOKEN,
        chat_template=template,
    )
    twin.save_pretrained(folder)
    processor.save_pretrained(folder)


def jinja_template(conversation: Conversation) -> str:
    """Return a conversation template in the language of transformers' chat templates.

    Its messages have plain texts, the images written in them as ``<image>``.
    """
    first, second = conversation.roles

    def prompt(*texts: str | None) -> str:
        made = conversation.copy()
        for place, text in enumerate(texts):
            made.append_message(second if place % 2 else first, text)
        return made.get_prompt()

    before, _, asked = prompt(_QUESTION, None).partition(_QUESTION)
    whole = prompt(_QUESTION, _ANSWER).partition(_QUESTION)[2]
    reply, _, end = whole.partition(_ANSWER)
    between = prompt(_QUESTION, _ANSWER, _NEXT, None).partition(_ANSWER)[2].partition(_NEXT)[0]
    again = between.removeprefix(end)
    texts = {name: _quoted(text) for name, text in (
        ("before", before), ("again", again), ("asked", asked), ("reply", reply), ("end", end),
    )}  # fmt: skip
    return (
        "{% for m in messages %}"
        "{% if m['role'] == 'user' %}"
        f"{{{{ {texts['before']} if loop.first else {texts['again']} }}}}{{{{ m['content'] }}}}"
        f"{{% if loop.last and add_generation_prompt %}}{{{{ {texts['asked']} }}}}{{% endif %}}"
        "{% elif m['role'] == 'assistant' %}"
        f"{{{{ {texts['reply']} }}}}{{{{ m['content'] }}}}{{{{ {texts['end']} }}}}"
        "{% endif %}{% endfor %}"
    )


def _quoted(text: str) -> str:
    """Return a text as it is written in a template."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
