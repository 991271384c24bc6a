"""Write tests/data/golden.json: what every method keeps of one photo's tokens.

    .venv/bin/python scripts/make_golden.py

Run it after a deliberate change of a method, and read the difference: every line that changes is a
table of somebody's that changes. float64 where a method offers it, so that rounding of different
machines does not move a pick.
"""

import dataclasses
import json
from pathlib import Path

from safetensors.torch import load_file

from otprune import PRUNERS, Selector, make_pruner

DATA = Path(__file__).parent.parent / "tests" / "data"
PHOTO, K = "astronaut/9", 56


def golden_pruner(name: str) -> Selector:
    """Return the method with its defaults, in float64 where it can."""
    settings = {field.name for field in dataclasses.fields(PRUNERS[name])}  # type: ignore[arg-type]
    return make_pruner(name, **({"accumulate": "float64"} if "accumulate" in settings else {}))


def golden() -> dict[str, list[int]]:
    """Return picks in picking order by method."""
    tokens = load_file(DATA / "real_tokens.safetensors")[PHOTO].float()
    return {name: golden_pruner(name).rank(tokens, K).tolist() for name in sorted(PRUNERS)}


if __name__ == "__main__":
    rows = ",\n".join(f"  {json.dumps(name)}: {picks}" for name, picks in golden().items())
    (DATA / "golden.json").write_text(f"{{\n{rows}\n}}\n")
