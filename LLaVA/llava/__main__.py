"""Ask a model from the command line: ``python -m llava MODEL QUESTION --image FILE``."""

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler

from llava.checkpoint import CheckpointError
from llava.images import ImageError
from otprune.checks import check_device
from otprune.pruning import Trace, make_pruning

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    model: Annotated[str, typer.Argument(help="Folder or hub id of a LLaVA checkpoint.")],
    question: Annotated[str, typer.Argument(help="Question about the images.")],
    image: Annotated[list[Path] | None, typer.Option(help="Image file; may be repeated.")] = None,
    method: Annotated[str | None, typer.Option(help="Pruning method, such as otprune.")] = None,
    keep_ratio: Annotated[
        float | None, typer.Option(help="Share of visual tokens to keep.")
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
    logging.basicConfig(handlers=[RichHandler(show_path=False)], format="%(message)s")
    console = Console()
    if method is None and (keep_ratio is not None or k is not None or layer):
        raise typer.BadParameter("--keep-ratio, --k and --layer need --method")
    try:
        if device is not None:
            check_device(device, "--device")
        pruning = None
        if method is not None:
            pruning = make_pruning(method, keep_ratio=keep_ratio, k=k, layer=layer)
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
            image or [],
            template=template,
            max_new_tokens=max_new_tokens,
            trace=trace,
        )
    except (CheckpointError, ImageError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    console.print(answer, markup=False, highlight=False)
    for at, kept in trace.kept.items():
        counts = ", ".join(
            f"{len(one)} of {total}" for one, total in zip(kept, trace.visual, strict=True)
        )
        console.print(f"visual tokens kept at layer {at}: {counts}", style="dim", highlight=False)


if __name__ == "__main__":
    app()
