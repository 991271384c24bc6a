"""lmms-eval's command line, with a note of what its wrapper asked vLLM, and of what was answered.

    python stock.py NOTES RATIO WORD [WORD ...]

The words are those behind ``python -m lmms_eval``. NOTES is a JSON file with the text and the
length of the prompt of each answer. Unless RATIO is ``none``, the engine is then asked the same
once more, without the wrapper and at that ratio.
"""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

from asked import RATIO
from vllm import LLM

calls: list[tuple[Any, dict[str, Any]]] = []
"""The engine of each call of the wrapper, and what it was given."""
answers: list[dict[str, Any]] = []
"""What it answered to each request, in order."""
plain = LLM.chat


def chat(self: LLM, *args: Any, **kwargs: Any) -> Any:
    """Ask as before; note it."""
    if args:
        raise TypeError(f"the wrapper names all that it gives to LLM.chat, but gave {len(args)}")
    calls.append((self, kwargs))
    found = plain(self, **kwargs)
    answers.extend(noted(found))
    return found


def noted(found: Any) -> list[dict[str, Any]]:
    """Return the texts and the lengths of the prompts."""
    return [{"text": one.outputs[0].text, "length": len(one.prompt_token_ids)} for one in found]


def main(notes: str, ratio: str, *words: str) -> None:
    """Run the command line, ask again, write the notes."""
    LLM.chat = chat
    sys.argv[1:] = words
    try:
        runpy.run_module("lmms_eval", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            raise
    again: list[dict[str, Any]] = []
    if ratio != "none":
        for engine, given in calls:
            own = {"mm_processor_kwargs": {RATIO: float(ratio)}}
            again.extend(noted(plain(engine, **given, **own)))
    Path(notes).write_text(json.dumps({"answers": answers, "again": again}))


if __name__ == "__main__":
    main(*sys.argv[1:])
