"""Drives an OpenAI server as its users do; run by the interpreter that has vLLM.

    python client.py URL MODEL ANSWERS

ANSWERS is a JSON file with what was answered to each kind of request.
"""

import base64
import io
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from asked import RATIO, images
from openai import BadRequestError, OpenAI

QUESTION = "what is it"
TOKENS = 1024
"""Most tokens of a prompt and its answer, as the server is started."""
BROKEN = base64.b64encode(b"no image at all").decode()


def encoded(number: int) -> str:
    """Return an image as it is sent."""
    file = io.BytesIO()
    images()[number].save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def jpegs() -> str:
    """Return a video as it may be sent: its frames, encoded one by one."""
    file = io.BytesIO()
    images()[0].save(file, "JPEG")
    return ",".join([base64.b64encode(file.getvalue()).decode()] * 3)


def part(kind: str, form: str, data: str) -> dict[str, Any]:
    """Return the part of a message that has an image or a video."""
    return {"type": f"{kind}_url", f"{kind}_url": {"url": f"data:{kind}/{form};base64,{data}"}}


class Client:
    """Asks one server."""

    def __init__(self, url: str, model: str) -> None:
        self.client = OpenAI(base_url=f"{url}/v1", api_key="none", timeout=120, max_retries=0)
        self.model = model

    def ask(
        self, image: str | dict[str, Any], ratio: object = None, text: str = QUESTION, **how: Any
    ) -> Any:
        """Return what the client returns for a question about an image.

        Args:
            image: encoded, or the whole part of the message that stands for it.
            ratio: of this request; None for the server's.
            text: of the question.
            how: more settings, or others.
        """
        picture = image if isinstance(image, dict) else part("image", "png", image)
        body: dict[str, Any] = {"ignore_eos": True}
        if ratio is not None:
            body["mm_processor_kwargs"] = {RATIO: ratio}
        return self.client.chat.completions.create(
            model=self.model,
            messages=[{"role": "user", "content": [picture, {"type": "text", "text": text}]}],
            extra_body=body,
            **{"temperature": 0, "max_tokens": 16, **how},
        )

    def answer(self, image: str, ratio: object = None) -> dict[str, Any]:
        """Return an answer and the length of its prompt."""
        made = self.ask(image, ratio)
        return {"text": made.choices[0].message.content, "length": made.usage.prompt_tokens}

    def several(self, image: str, ratio: float, n: int, seed: int) -> list[str]:
        """Return n answers to one request, drawn at random."""
        made = self.ask(image, ratio, n=n, seed=seed, temperature=1)
        return [one.message.content for one in made.choices]

    def refusal(self, *asked: Any) -> str:
        """Return why a request is refused; empty if it is not."""
        try:
            self.ask(*asked)
        except BadRequestError as error:
            return str(error)
        return ""

    def streamed(self, image: str) -> str:
        """Return a streamed answer."""
        return "".join(one.choices[0].delta.content or "" for one in self.ask(image, stream=True))

    def hang_up(self, image: str) -> None:
        """Leave after the first piece of an answer."""
        stream = self.ask(image, stream=True)
        next(iter(stream))
        stream.close()


def main(url: str, model: str, answers: str) -> None:
    """Write the answers."""
    client = Client(url, model)
    pictures = [encoded(number) for number in range(3)]
    requests = [(pictures[i % 3], (None, 0.2, 0.5, 1.0)[i % 4]) for i in range(8)]
    found: dict[str, Any] = {"alone": [client.answer(*one) for one in requests]}
    with ThreadPoolExecutor(8) as pool:
        found["together"] = list(pool.map(lambda one: client.answer(*one), requests))
    found["streamed"] = client.streamed(pictures[0])
    found["ratios"] = {str(ratio): client.refusal(pictures[0], ratio) for ratio in (9.8, 0, "x")}
    found["broken"] = client.refusal(BROKEN)
    found["video"] = client.refusal(part("video", "jpeg", jpegs()))
    found["embeddings"] = client.refusal({"type": "image_embeds", "image_embeds": BROKEN})
    found["long"] = client.refusal(pictures[0], 0.2, "what " * 2 * TOKENS)
    found["several"] = client.several(pictures[0], 0.2, 2, 5)
    found["seeds"] = [client.several(pictures[0], 0.2, 1, seed)[0] for seed in (5, 6)]
    for _ in range(3):
        client.hang_up(pictures[1])
    found["afterwards"] = [client.answer(*one) for one in requests]
    Path(answers).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
