"""A wrapper as lmms-eval has them, for a tiny model of transformers whose processor needs nothing.

Like some of lmms-eval's it catches every error of `generate` and goes on with an empty answer.
"""

from typing import Any

import torch
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from transformers import AutoModelForImageTextToText, AutoProcessor


class FakeStock(lmms):
    """A simple wrapper.

    Attributes:
        lengths: ids of each prompt that entered the language model.
    """

    is_simple = True

    def __init__(self, pretrained: str, device: str = "cpu", batch_size: int = 1, **kwargs: Any):
        super().__init__()
        assert kwargs == {}, f"Unexpected kwargs: {kwargs}"
        assert int(batch_size) == 1
        self.model = AutoModelForImageTextToText.from_pretrained(pretrained).eval().to(device)
        self.processor = AutoProcessor.from_pretrained(pretrained)
        self.lengths: list[int] = []
        decoder = self.model.model.language_model
        decoder.register_forward_pre_hook(self._measure, with_kwargs=True)

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    def generate_until(self, requests: list[Instance]) -> list[str]:
        found = []
        for context, generation, visuals, doc_id, task, split in (one.args for one in requests):
            inputs = self._inputs(context, visuals(self.task_dict[task][split][doc_id]))
            try:
                ids = self.model.generate(
                    **inputs, max_new_tokens=generation["max_new_tokens"], do_sample=False
                )
                found.append(self.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :]))
            except Exception:  # noqa: BLE001
                found.append("")
        return found

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        found = []
        for context, target, visuals, doc_id, task, split in (one.args for one in requests):
            inputs = self._inputs(context, visuals(self.task_dict[task][split][doc_id]))
            more = self.tokenizer(target, add_special_tokens=False, return_tensors="pt")
            for name in ("input_ids", "attention_mask"):
                inputs[name] = torch.cat([inputs[name], more[name]], dim=1)
            count = more["input_ids"].shape[1]
            labels = inputs["input_ids"].clone()
            labels[:, :-count] = -100
            with torch.inference_mode():
                output = self.model(**inputs, labels=labels)
            assert output.logits.shape[1] == labels.shape[1]
            guesses = output.logits[0, -count - 1 : -1].argmax(-1)
            found.append((float(output.loss), bool((guesses == labels[0, -count:]).all())))
        return found

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError("FakeStock has one round")

    def _inputs(self, context: str, images: list[Any]) -> Any:
        content = [{"type": "image"} for _ in images] + [{"type": "text", "text": context}]
        chat = [{"role": "user", "content": content}]
        text = self.processor.apply_chat_template(chat, add_generation_prompt=True)
        return self.processor(images=images or None, text=text, return_tensors="pt")

    def _measure(self, _: Any, given: Any, kwargs: dict[str, Any]) -> None:
        if kwargs["inputs_embeds"].shape[1] > 1:
            self.lengths.append(kwargs["inputs_embeds"].shape[1])
