"""``otprune prune``: what methods keep of one image."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otprune_lmms.cli.common import fail, log

if TYPE_CHECKING:
    from rich.table import Table

    from otprune_lmms.experiments.diagnostics.one_image import MeasuredImage
    from otprune_lmms.models import ModelSource
    from otprune_lmms.pruning_config import PruningConfig

EMBEDDED = Path("LLaVA/checkpoints/llava-mini")
"""The checkpoint that comes with the repository, from its root."""

ImageFile = Annotated[Path, typer.Argument(help="an image file", metavar="IMAGE")]
Model = Annotated[str, typer.Option(help="folder or hub id of a checkpoint")]
Family = Annotated[str | None, typer.Option(help="the model's family (default: llava)")]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        help="a method, with its settings after a colon: otprune:gamma=0.05 (default: otprune); "
        "may come several times",
    ),
]
Ratio = Annotated[
    float | None, typer.Option(help="share of the tokens to keep, in (0, 1] (default: 0.098)")
]
Count = Annotated[int | None, typer.Option("--k", min=1, help="how many to keep, instead")]
Out = Annotated[
    Path | None, typer.Option(help="the figure to write; default <image>-kept.png in this folder")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda; default: a GPU where there is one")]


def prune(
    image: ImageFile,
    model: Model = str(EMBEDDED),
    family: Family = None,
    method: Methods = None,
    keep_ratio: Ratio = None,
    k: Count = None,
    out: Out = None,
    device: Device = None,
) -> None:
    """Show which patches of an image methods keep, and how far they are from all of it.

    Needs no question: these methods prune before the language model, by the image alone. Prints
    tokens kept, exact and Gaussian 2-Wasserstein distance to all tokens, coverage, effective rank
    and the time of one selection; draws kept patches in colour. Images of several tiles
    (LLaVA-1.6) show as two figures: the whole image, and the tiles.

    Example: otprune prune photo.jpg --method otprune --method divprune --keep-ratio 0.098
    """
    log(quiet=True)
    from rich.console import Console

    from otprune_lmms.models import DEFAULT_FAMILY, ModelSource

    if keep_ratio is None and k is None:
        keep_ratio = 0.098
    exact = importlib.util.find_spec("ot") is not None
    try:
        configs = [_config(text, keep_ratio, k) for text in method or ["otprune"]]
        source = ModelSource(model, family=family or DEFAULT_FAMILY, device=device)
        measured = _measure(image, source, configs, exact)
    except (ValueError, RuntimeError, OSError) as error:
        fail(error, 2)
    console = Console()
    console.print(_table(measured))
    if not exact:
        console.print("exact W2 needs POT: pip install 'otprune\\[transport]'")
    path = out or Path(f"{image.stem}-kept.png")
    from otprune_lmms.reporting.figures.kept_image import draw_panels, panels_of

    try:
        draw_panels(panels_of(measured.views, measured.lines), path)
    except OSError as error:
        fail(error, 1)
    console.print(f"drawn: {path}", highlight=False, soft_wrap=True, markup=False)


def _config(text: str, keep_ratio: float | None, k: int | None) -> "PruningConfig":
    """Return the config of a method as it was typed: ``name`` or ``name:setting=value,...``."""
    import yaml

    from otprune_lmms.pruning_config import PruningConfig, with_texts

    name, _, rest = text.partition(":")
    settings: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"--method must be name:setting=value, got {text!r}")
        # YAML takes a schedule like 2:32 for a number.
        settings[key.strip()] = value if ":" in value else yaml.safe_load(value)
    if name in ("", "none"):
        raise ValueError("--method must name a pruning method")
    return PruningConfig.make(name, keep_ratio=keep_ratio, k=k, **with_texts(name, settings))


def _measure(
    image: Path, source: "ModelSource", configs: "list[PruningConfig]", exact: bool
) -> "MeasuredImage":
    import transformers

    from otprune_lmms.experiments.diagnostics.one_image import measure_image
    from otprune_lmms.images import open_image
    from otprune_lmms.models import load_model

    transformers.utils.logging.disable_progress_bar()
    return measure_image(load_model(source), open_image(image), configs, exact=exact)


def _table(measured: "MeasuredImage") -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("method", no_wrap=True)
    heads = ("tokens", "of", "exact W2", "Gaussian W2", "zero mean", "coverage", "rank", "ms")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    names = ("exact_w2", "gaussian_w2", "gaussian_w2_zero_mean", "coverage", "effective_rank")
    for line in measured.lines:
        numbers = ["–" if line[name] != line[name] else f"{line[name]:.3f}" for name in names]
        counts = [str(len(line["kept"])), str(line["n"])]
        table.add_row(line["setting"], *counts, *numbers, f"{1000 * line['seconds']:.1f}")
    return table
