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

BROKEN = base64.b64encode(b"no image at all").decode()


def encoded(number: int) -> str:
    """Return an image as it is sent."""
    file = io.BytesIO()
    images()[number].save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


class Client:
    """Asks one server."""

    def __init__(self, url: str, model: str) -> None:
        self.client = OpenAI(base_url=f"{url}/v1", api_key="none", timeout=120, max_retries=0)
        self.model = model

    def ask(self, image: str, ratio: object = None, *, stream: bool = False) -> Any:
        """Return what the client returns for a question about an image."""
        picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}
        body: dict[str, Any] = {"ignore_eos": True}
        if ratio is not None:
            body["mm_processor_kwargs"] = {RATIO: ratio}
        return self.client.chat.completions.create(
            model=self.model,
            messages=[
                {"role": "user", "content": [picture, {"type": "text", "text": "what is it"}]}
            ],
            temperature=0,
            max_tokens=16,
            stream=stream,
            extra_body=body,
        )

    def answer(self, image: str, ratio: object = None) -> dict[str, Any]:
        """Return an answer and the length of its prompt."""
        made = self.ask(image, ratio)
        return {"text": made.choices[0].message.content, "length": made.usage.prompt_tokens}

    def refusal(self, image: str, ratio: object = None) -> str:
        """Return why a request is refused; empty if it is not."""
        try:
            self.ask(image, ratio)
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
    for _ in range(3):
        client.hang_up(pictures[1])
    found["afterwards"] = [client.answer(*one) for one in requests]
    Path(answers).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
