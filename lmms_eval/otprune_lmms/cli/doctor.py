"""``otprune doctor``: what this machine has, and what would run."""

import json
from dataclasses import asdict

import typer

from otprune_lmms.cli.options import JOURNAL, RESULTS, Json
from otprune_lmms.cli.stopping import ends_in_words
from otprune_lmms.cli.terminal import say

_SIGNS = {"ok": "ok", "note": "-", "missing": "✗"}


@ends_in_words
def doctor(as_json: Json = False) -> None:
    """Say what this machine has of what the harness uses, and what would run.

    Versions, processors and GPUs, compiled loops, Java, the hub and its cache, finished answers,
    disk, vLLM. Lines with - name what is not here, what does not work without it and what to do;
    exits with 1 where nothing would run.

    Example: otprune doctor --json
    """
    from otprune_lmms.surroundings import look_around

    found = look_around(JOURNAL, RESULTS)
    if as_json:
        plain = [asdict(one) for one in found]
        typer.echo(json.dumps(plain, indent=1, ensure_ascii=False))
    else:
        wide = max(len(one.name) for one in found)
        for one in found:
            say(f"{_SIGNS[one.verdict]:<2} {one.name:<{wide}}  {one.found}")
            if one.advice:
                say(f"{'':{wide + 5}}{one.advice}")
    if any(one.verdict == "missing" for one in found):
        raise typer.Exit(1)
