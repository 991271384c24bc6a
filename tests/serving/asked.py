"""What the suite asks: images, prompts, and a process with an engine, or with transformers.

    python asked.py vllm|transformers QUESTIONS ANSWERS

QUESTIONS is a JSON file: the model's folder, its family, the engine's settings, and rounds of
requests, each with the number of a prompt and optionally a ratio; optionally the tokens of an
answer. ANSWERS has for each request the length of its prompt, how much of it was cached, the
answer's ids and their log-probabilities, and how often the engine had preempted requests by then.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RATIO = "otprune_keep_ratio"
ANSWER = 8
"""Tokens of an answer."""
PICTURE = {
    "qwen2_5_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "qwen3_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "internvl": "<IMG_CONTEXT>",
    "gemma3": "<start_of_image>",
}


def images() -> list[Image.Image]:
    """Return a landscape, a portrait and a square."""
    rng = np.random.default_rng(0)
    sizes = ((112, 224), (280, 84), (168, 168))
    return [Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in sizes]


def prompts(family: str) -> list[tuple[str, list[int]]]:
    """Return prompts with the numbers of their images: one image, one image, two."""
    picture = PICTURE.get(family, "<image>")
    asked = [
        (f"{picture}what is it", [0]),
        (f"and this one here {picture} is", [1]),
        (f"then {picture} or {picture} which of them", [1, 2]),
    ]
    return [(f"USER: {text} ASSISTANT:", numbers) for text, numbers in asked]


def with_engine(asked: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Return the answers of an engine of vLLM, round by round."""
    from vllm import LLM, SamplingParams

    llm = LLM(
        model=asked["model"],
        **{
            "dtype": "float32",
            "max_model_len": 1024,
            "enforce_eager": True,
            "seed": 0,
            "max_num_seqs": 4,
            "block_size": 32,
            "limit_mm_per_prompt": {"image": 2},
            "distributed_executor_backend": "uni",
            "disable_log_stats": False,
        }
        | asked["engine"],
    )
    pictures, texts, answers = images(), prompts(asked["family"]), []
    length = asked.get("answer", ANSWER)
    sampling = SamplingParams(temperature=0, max_tokens=length, ignore_eos=True, logprobs=1)
    for requests in asked["rounds"]:
        given = []
        for one in requests:
            text, numbers = texts[one["prompt"]]
            data = {"image": [pictures[number] for number in numbers]}
            request: dict[str, Any] = {"prompt": text, "multi_modal_data": data}
            if "ratio" in one:
                request["mm_processor_kwargs"] = {RATIO: one["ratio"]}
            given.append(request)
        found = llm.generate(given, sampling, use_tqdm=False)
        counted = {one.name: one for one in llm.get_metrics()}
        answers.append(
            [
                {
                    "length": len(one.prompt_token_ids),
                    "cached": one.num_cached_tokens,
                    "preempted": counted["vllm:num_preemptions"].value,
                    "ids": list(one.outputs[0].token_ids),
                    "logprobs": [
                        step[number].logprob
                        for step, number in zip(
                            one.outputs[0].logprobs, one.outputs[0].token_ids, strict=True
                        )
                    ],
                }
                for one in found
            ]
        )
    return answers


def with_transformers(asked: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Return the answers of transformers inside `otprune.hf.pruned`, request by request."""
    import torch
    from otprune_vllm.requests import image_id
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from otprune.hf import pruned

    model = AutoModelForImageTextToText.from_pretrained(asked["model"], dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(asked["model"])
    model.generation_config.eos_token_id = None
    pictures, texts, answers = images(), prompts(asked["family"]), []
    settings = dict(asked["engine"].get("hf_overrides", {}).get("otprune", {}))
    method, default = settings.pop("method", "otprune"), settings.pop("keep_ratio", 1.0)
    for requests in asked["rounds"]:
        found = []
        for one in requests:
            text, numbers = texts[one["prompt"]]
            inputs = processor(
                text=text, images=[pictures[number] for number in numbers], return_tensors="pt"
            )
            if asked["family"] == "gemma3":
                # Each token of an image sees those before it, as in vLLM's attention on CPUs.
                inputs["token_type_ids"].zero_()
            ratio = one.get("ratio", default)
            ids = [image_id(pictures[number]) for number in numbers]

            def named(units: int, ids: list[int] = ids) -> list[int | None]:
                # Tiles that are units have no numbers here: no seeded method is asked about them.
                return [*ids] if units == len(ids) else [None] * units

            pruning = {"keep_ratio": ratio, "image_ids": named, **settings}
            with pruned(model, method, **pruning) as trace, torch.no_grad():
                made = model.generate(
                    **inputs,
                    max_new_tokens=asked.get("answer", ANSWER),
                    do_sample=False,
                    output_scores=True,
                    return_dict_in_generate=True,
                )
            ids = made.sequences[0, inputs["input_ids"].shape[1] :].tolist()
            scores = [score[0].float().log_softmax(-1) for score in made.scores]
            found.append(
                {
                    "length": trace.lengths[0][0],
                    "ids": ids,
                    "logprobs": [float(s[i]) for s, i in zip(scores, ids, strict=True)],
                }
            )
        answers.append(found)
    return answers


def main(who: str, questions: str, answers: str) -> None:
    """Write the answers to a file of questions."""
    asked = json.loads(Path(questions).read_text())
    begin = time.perf_counter()
    ask = {"vllm": with_engine, "transformers": with_transformers}[who]
    Path(answers).write_text(json.dumps(ask(asked)))
    sys.stderr.write(f"{who}: {time.perf_counter() - begin:.0f} s\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
