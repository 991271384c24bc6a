"""Ask a model from the command line: ``python -m llava MODEL QUESTION --image FILE``."""

import io
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler

from llava.checkpoint import CheckpointError
from llava.checkpoint.files import CheckpointFiles
from llava.images import ImageError, open_image
from llava.printing import PrintableFormatter, printable
from otprune.checks import check_device
from otprune.pruning import PAPER_RATIO, Trace, pruning_by_name

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _file(text: str | Path) -> Path:
    """Return what an option names; "" would be the current folder."""
    if isinstance(text, str) and not text.strip():
        raise typer.BadParameter("it must name a file, got nothing")
    return Path(text)


@app.command()
def main(
    model: Annotated[str, typer.Argument(help="Folder or hub id of a LLaVA checkpoint.")],
    question: Annotated[str, typer.Argument(help="Question about the images.")],
    image: Annotated[
        list[Path] | None,
        typer.Option(parser=_file, metavar="FILE", help="Image file; may be repeated."),
    ] = None,
    method: Annotated[str | None, typer.Option(help="Pruning method, such as otprune.")] = None,
    keep_ratio: Annotated[
        float | None,
        typer.Option(
            help=f"Share of visual tokens to keep (default: {PAPER_RATIO}; methods with a schedule "
            "have their own)."
        ),
    ] = None,
    k: Annotated[int | None, typer.Option("--k", help="Or how many of each image.")] = None,
    layer: Annotated[int, typer.Option(help="0: before the language model; L: inside.")] = 0,
    template: Annotated[str, typer.Option(help="Conversation template.")] = "vicuna_v1",
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 512,
    device: Annotated[
        str | None, typer.Option(help="cuda, cpu, cuda:1; default: a GPU where there is one.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float16, bfloat16 or float32.")] = None,
) -> None:
    """Answer a question about images, with visual tokens pruned on request."""
    for stream in (sys.stdout, sys.stderr):
        # Rather a question mark than no answer, where the encoding lacks a character.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    handler = RichHandler(console=Console(stderr=True, emoji=False), show_path=False)
    handler.setFormatter(PrintableFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler])
    if method is None and (keep_ratio is not None or k is not None or layer):
        raise typer.BadParameter("--keep-ratio, --k and --layer need --method")
    try:
        if device is not None:
            check_device(device, "--device")
        pruning = None
        if method is not None:
            pruning = pruning_by_name(method, keep_ratio=keep_ratio, k=k, layer=layer)
        pictures = [open_image(one) for one in image or ()]
        CheckpointFiles(model).need("config.json")
        # Imported late, since it takes seconds that a mistaken setting need not cost.
        from llava.chat import ask
        from llava.model.builder import load_pretrained_model

        loaded = load_pretrained_model(
            model, device=device or "cuda", torch_dtype=dtype, pruning=pruning
        )
        trace = Trace()
        answer = ask(
            loaded,
            question,
            pictures,
            template=template,
            max_new_tokens=max_new_tokens,
            trace=trace,
        )
    except (CheckpointError, ImageError, ValueError) as error:
        raise typer.BadParameter(printable(str(error))) from None
    typer.echo(printable(answer))
    for at, kept in trace.kept.items():
        counts = ", ".join(
            f"{len(one)} of {total}" for one, total in zip(kept, trace.visual, strict=True)
        )
        typer.secho(f"visual tokens kept at layer {at}: {counts}", dim=True)


if __name__ == "__main__":
    app()
