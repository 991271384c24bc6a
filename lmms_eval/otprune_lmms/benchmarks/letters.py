"""References that are letters of options."""

from collections.abc import Mapping
from typing import Any


def answer_letter(document: Mapping[str, Any]) -> str | None:
    """Return the letter in the column ``answer``; None for anything else: no answer equals it."""
    answer = document["answer"]
    alone = isinstance(answer, str) and len(answer.strip()) == 1 and answer.strip().isalpha()
    return answer if alone else None
