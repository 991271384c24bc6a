"""Which methods run in which families of transformers, as it was found by running them.

`scripts/models_page.py` runs every method of the otprune package in a tiny model of every family
and writes what it found into that package. Reading it imports neither otprune nor torch.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

YES, ORIGINAL, NO = "yes", "original", "no"
"""A method runs; it runs with ``positions="original"``; it is refused."""

_FILE = Path("hf") / "capabilities.json"


@dataclass(frozen=True)
class Capabilities:
    """What was found.

    Attributes:
        transformers: the version in which it was found.
        families: by their ``config.model_type``.
        methods: names of the methods that were run.
    """

    transformers: str
    families: Sequence[str]
    methods: Sequence[str]
    _found: Mapping[str, Mapping[str, Any]]

    def kind(self, method: str) -> str:
        """Return "selector", "merger" or "layer pruner"."""
        return self._found[method]["kind"]

    def answer(self, method: str, family: str) -> tuple[str, str]:
        """Return whether a method runs in a family, and why not; "" where it does."""
        one = self._found[method]
        for reason, families in one[NO].items():
            if family in families:
                return NO, reason
        return (ORIGINAL if family in one[ORIGINAL] else YES), ""

    def plain(self, methods: Sequence[str], families: Sequence[str]) -> dict[str, Any]:
        """Return the answers of some methods in some families for JSON, by family and method."""
        found: dict[str, Any] = {}
        for family in families:
            found[family] = {}
            for method in methods:
                answer, why = self.answer(method, family)
                found[family][method] = {"answer": answer} | ({"why": why} if why else {})
        return {"transformers": self.transformers, "families": found}


def read_capabilities() -> Capabilities:
    """Return what was found when the installed otprune package was made."""
    spec = find_spec("otprune")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'otprune'", name="otprune")
    content = json.loads((Path(spec.origin).parent / _FILE).read_text(encoding="utf-8"))
    found = content["methods"]
    return Capabilities(content["transformers"], content["families"], list(found), found)
