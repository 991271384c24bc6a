"""``otprune prune``: what methods keep of one image."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otprune_lmms.cli.common import check_folder, fail, log, method_parts
from otprune_lmms.cli.options import path
from otprune_lmms.cli.stopping import ends_in_words
from otprune_lmms.cli.terminal import Listing, say
from otprune_lmms.processes import check_address_space

if TYPE_CHECKING:
    from PIL import Image

    from otprune_lmms.experiments.diagnostics.one_image import MeasuredImage

EMBEDDED = "llava-mini"
"""The checkpoint that comes with the llava package."""

_INSTEAD = "without --model the embedded one is used, which needs no network"

ImageFile = Annotated[Path, typer.Argument(parser=path, help="an image file", metavar="IMAGE")]
Model = Annotated[str, typer.Option(help="folder or hub id of a checkpoint")]
Family = Annotated[
    str | None, typer.Option(help="the model's family (default: by its configuration)")
]
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
    Path | None,
    typer.Option(
        parser=path,
        metavar="FILE",
        help="the figure to write; default <image>-kept.png in this folder",
    ),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1; default: a GPU where there is one")
]


@ends_in_words
def prune(
    image: ImageFile,
    model: Model = EMBEDDED,
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
    if keep_ratio is None and k is None:
        keep_ratio = 0.098
    exact = importlib.util.find_spec("ot") is not None
    try:
        # What needs no torch comes first: a slip is answered at once.
        picture = _opened(image)
        check_folder(model)
        typed = [method_parts(text) for text in method or ["otprune"]]
        from otprune_lmms.hub import check_reachable, model_needs

        check_reachable(model_needs([model]), _INSTEAD)
        check_address_space()
        measured = _measure(picture, typed, (model, family, device), (keep_ratio, k), exact)
    except (ValueError, RuntimeError, OSError) as error:
        fail(error, 2)
    _show(measured)
    if not exact:
        say("exact W2 needs POT: pip install 'otprune[transport]'")
    figure = out or Path(f"{image.stem}-kept.png")
    from otprune_lmms.reporting.figures.kept_image import draw_panels, panels_of

    try:
        draw_panels(panels_of(measured.views, measured.lines), figure)
    except OSError as error:
        fail(error, 1)
    say(f"drawn: {figure}")


def _opened(image: Path) -> "Image.Image":
    from otprune_lmms.images import open_image

    return open_image(image)


def _measure(
    image: "Image.Image",
    typed: list[tuple[str, dict[str, Any]]],
    model: tuple[str, str | None, str | None],
    budget: tuple[float | None, int | None],
    exact: bool,
) -> "MeasuredImage":
    """Return what methods keep of an image.

    Args:
        image: the image.
        typed: from `method_parts`.
        model: folder or hub id, family, device.
        budget: keep ratio, or count.
        exact: whether the exact distance is computed.
    """
    from otprune.checks import check_device
    from otprune_lmms.models import ModelSource, check_source, load_model
    from otprune_lmms.pruning_config import PruningConfig, with_texts

    name, family, device = model
    if device is not None:
        check_device(device, "--device")
    configs = [
        PruningConfig.make(one, keep_ratio=budget[0], k=budget[1], **with_texts(one, settings))
        for one, settings in typed
    ]
    source = ModelSource(name, family=family, device=device)
    check_source(source)
    import transformers

    from otprune_lmms.experiments.diagnostics.one_image import measure_image

    transformers.utils.logging.disable_progress_bar()
    return measure_image(load_model(source), image, configs, exact=exact)


def _show(measured: "MeasuredImage") -> None:
    heads = ("method", "tokens", "of", "exact W2", "Gaussian W2", "zero mean", "coverage", "rank")
    names = ("exact_w2", "gaussian_w2", "gaussian_w2_zero_mean", "coverage", "effective_rank")
    from otprune_lmms.results.names import Names

    called, rows = Names(measured.lines), []
    for line in measured.lines:
        numbers = ["–" if line[name] != line[name] else f"{line[name]:.3f}" for name in names]
        counts = [str(len(line["kept"])), str(line["n"])]
        rows.append(
            [called.setting(line["setting"]), *counts, *numbers, f"{1000 * line['seconds']:.1f}"]
        )
    Listing((*heads, "ms"), rows).show()
    say(
        "W2: distance to all tokens, small is near; zero mean: between Gaussians of zero mean; "
        "coverage: distance of a token to its nearest kept one; rank: effective rank, kept / all; "
        "ms: one selection"
    )
