"""A module with the name of vLLM that answers by transformers, inside `otprune.hf.pruned`.

On the path of a worker process it stands in for vLLM, of which it has what `otprune_vllm.worker`
uses. It refuses a model length of 13, as vLLM refuses what it cannot have.
"""

import os
import signal
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from otprune_vllm.requests import image_id
from transformers import AutoModelForImageTextToText, AutoProcessor

from otprune.hf import pruned
from otprune.serving import ServedPruning


class SamplingParams(SimpleNamespace):
    """Settings of an answer, by name."""


class LLM:
    """An engine."""

    def __init__(self, **settings: Any) -> None:
        if settings.get("max_model_len") == 13:
            raise ValueError("max_model_len (13) is an unlucky number")
        folder = settings["model"]
        assert settings["hf_overrides"]["architectures"][0].startswith("OTPrune")
        self.model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32")
        self.model.eval()
        self.processor: Any = AutoProcessor.from_pretrained(folder)
        length = settings.get(
            "max_model_len", self.model.config.text_config.max_position_embeddings
        )
        self.llm_engine = SimpleNamespace(
            vllm_config=SimpleNamespace(
                model_config=SimpleNamespace(dtype=torch.float32, max_model_len=length),
                device_config=SimpleNamespace(device_type="cpu"),
            ),
            engine_core=SimpleNamespace(shutdown=lambda: None),
        )

    def generate(
        self, prompts: Sequence[Mapping[str, Any]], sampling: Sequence[Any], use_tqdm: bool
    ) -> list[SimpleNamespace]:
        """Answer prompts, one after the other."""
        return [self._answer(one, how) for one, how in zip(prompts, sampling, strict=True)]

    @torch.no_grad()
    def _answer(self, prompt: Mapping[str, Any], how: Any) -> SimpleNamespace:
        tokenizer = self.processor.tokenizer
        text = tokenizer.decode(prompt["prompt_token_ids"], skip_special_tokens=False)
        if "stop the engine" in text:
            os.kill(os.getpid(), signal.SIGKILL)
        if "refuse" in text:
            raise ValueError("the prompt is refused")
        images = prompt.get("multi_modal_data", {}).get("image", [])
        inputs = dict(self.processor(text=text, images=images or None, return_tensors="pt"))
        pruning = ServedPruning().for_request(prompt.get("mm_processor_kwargs", {}))
        settings = dict(pruning.settings)
        if images:
            with pruned(
                self.model,
                pruning.method,
                keep_ratio=pruning.keep_ratio,
                image_ids=[image_id(image) for image in images],
                **settings,
            ) as trace:
                return self._generated(inputs, how, text, trace)
        return self._generated(inputs, how, text, None)

    def _generated(self, inputs: Any, how: Any, text: str, trace: Any) -> SimpleNamespace:
        ids = inputs["input_ids"][0].tolist()
        token = self.processor.image_token_id
        made = self.model.generate(
            **inputs,
            max_new_tokens=how.max_tokens,
            do_sample=False,
            eos_token_id=how.stop_token_ids,
            stop_strings=getattr(how, "stop", None) or None,
            tokenizer=self.processor.tokenizer,
            output_scores=True,
            return_dict_in_generate=True,
        )
        answer = made.sequences[0, len(ids) :].tolist()
        scores = [score[0].log_softmax(-1) for score in made.scores]
        whole = written = self.processor.tokenizer.decode(answer, skip_special_tokens=True)
        for stop in getattr(how, "stop", []):
            written = written.partition(stop)[0]
        ended = answer[-1] in how.stop_token_ids or written != whole
        kept = sum(len(one) for one in trace.kept[0]) if trace is not None else 0
        left, seen = [], 0
        for one in ids:
            if one != token or seen < kept:
                left.append(one)
            seen += one == token
        scored = None
        if getattr(how, "prompt_logprobs", None) is not None:
            logits = self.model(**inputs).logits[0].log_softmax(-1)
            # Kept visual tokens are not the first in truth; only what follows them is looked at.
            scored = [None, *(_chosen(row, i) for row, i in zip(logits, left[1:], strict=False))]
        return SimpleNamespace(
            prompt_token_ids=left,
            prompt_logprobs=scored,
            outputs=[
                SimpleNamespace(
                    token_ids=answer,
                    text=written,
                    finish_reason="stop" if ended else "length",
                    logprobs=[_chosen(row, i) for row, i in zip(scores, answer, strict=True)],
                )
            ],
        )


def _chosen(row: torch.Tensor, number: int) -> dict[int, SimpleNamespace]:
    rank = int((row >= row[number]).sum())
    return {number: SimpleNamespace(logprob=float(row[number]), rank=rank)}
