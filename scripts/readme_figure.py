"""docs/images/overview.png, the picture of the front page: kept patches, and score over tokens.

    .venv/bin/python scripts/readme_figure.py

Left: what three methods keep of one embedded scene, by the embedded model. Right: the scores of a
results folder's table.csv. The numbers drawn are in the file too, as a text of PNG, so that a test
can hold them against the table.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import typer
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from otprune_lmms.embedded import MINI_TASKS
from otprune_lmms.experiments.diagnostics.one_image import MeasuredImage, measure_image
from otprune_lmms.models import ModelSource, load_model
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.reporting.figures.overlay import fade, outline
from otprune_lmms.reporting.figures.style import look, styled
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.names import method_name
from PIL import Image
from PIL.PngImagePlugin import PngInfo

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "images" / "overview.png"
TABLE = ROOT / "results" / "mini" / "table.csv"
SCENE = ("coco2017_cap_val", 0)
"""Task and row of the embedded document whose image is shown."""
SHOWN = ("otprune", "divprune", "random")
KEEP_RATIO = 0.098
SCORE = "mean of ratios"
NUMBERS = "scores"
"""Name of the text in the file: a JSON list of `points`."""

app = typer.Typer(add_completion=False)


def scene() -> Image.Image:
    """Return the image that is shown."""
    task, row = SCENE
    (file,) = (MINI_TASKS.parent / "mini_data" / task).glob("*.parquet")
    image = pq.read_table(file, columns=["image"]).slice(row, 1).to_pylist()[0]["image"]
    return Image.open(io.BytesIO(image["bytes"]))


def kept() -> MeasuredImage:
    """Return what the methods keep of the scene, by the embedded model."""
    configs = [PruningConfig.make(name, keep_ratio=KEEP_RATIO) for name in SHOWN]
    return measure_image(load_model(ModelSource("llava-mini")), scene(), configs, exact=False)


def points(table: Frame) -> list[list[Any]]:
    """Return the points of the curves: method, tokens, score, low and high end of its interval."""
    pruned = table[table["method"].notna()].drop_duplicates(["method", "keep_ratio"])
    return [
        [
            str(one["method"]),
            float(one["tokens"]),
            *(round(float(one[f"{SCORE}{end}"]), 4) for end in ("", " low", " high")),
        ]
        for _, one in pruned.iterrows()
    ]


def draw(measured: MeasuredImage, drawn: Sequence[Sequence[Any]], visual: float) -> bytes:
    """Return the picture as PNG.

    Args:
        measured: from `kept`.
        drawn: from `points`.
        visual: tokens of an image before pruning.
    """
    with styled():
        figure = Figure(figsize=(9.2, 4.0), layout="constrained")
        places = figure.subplot_mosaic(
            [["whole", SHOWN[0], "scores"], [SHOWN[1], SHOWN[2], "scores"]],
            width_ratios=[1, 1, 2.35],
        )
        _draw_scene(places, measured)
        _draw_scores(places["scores"], drawn, visual)
        plain = io.BytesIO()
        FigureCanvasAgg(figure).print_figure(plain, format="png", dpi=150)
    said = PngInfo()
    said.add_text(NUMBERS, json.dumps(drawn))
    file = io.BytesIO()
    # A palette keeps the file small.
    Image.open(plain).convert("RGB").quantize(255).save(file, "PNG", optimize=True, pnginfo=said)
    return file.getvalue()


def _draw_scene(places: Mapping[str, Axes], measured: MeasuredImage) -> None:
    (view,) = measured.views
    for axes in (places["whole"], *(places[name] for name in SHOWN)):
        axes.set_axis_off()
    places["whole"].imshow(view.pixels)
    places["whole"].set_title("the image, 256 tokens", fontweight="normal")
    shape = (view.pixels.shape[0], view.pixels.shape[1])
    for name, line in zip(SHOWN, measured.lines, strict=True):
        mask, colour = view.mask(np.asarray(line["kept"])), look(name).colour
        places[name].imshow(fade(view.pixels, mask))
        outline(places[name], mask, shape, colour)
        title = f"{method_name(name)}, {len(line['kept'])} tokens"
        places[name].set_title(title, color=colour)


def _draw_scores(axes: Axes, drawn: Sequence[Sequence[Any]], visual: float) -> None:
    methods = list(dict.fromkeys(str(method) for method, *_ in drawn))
    for method in methods:
        own = sorted(one[1:] for one in drawn if one[0] == method)
        tokens, score, low, high = np.array(own, dtype=float).T
        style = look(method, methods)
        axes.errorbar(
            tokens,
            score,
            yerr=(score - low, high - score),
            label=style.name,
            color=style.colour,
            marker=style.marker,
            linestyle=style.dash,
            linewidth=style.width,
            elinewidth=0.7,
        )
    axes.axhline(100, color="black", linestyle=":", linewidth=1)
    axes.annotate("unpruned", (0.01, 99.7), xycoords=("axes fraction", "data"), va="top")
    axes.set_xscale("log", base=2)
    ticks = sorted({round(one[1]) for one in drawn if one[0] in SHOWN})
    axes.set_xticks(ticks, [str(one) for one in ticks])
    axes.set_xlabel(f"visual tokens kept of {visual:.0f}")
    axes.set_title("score of llava-mini, % of unpruned (11 benchmarks, 95 % intervals)")
    axes.legend(loc="lower right")


@app.command()
def main(
    table: Annotated[Path, typer.Option(help="table of a results folder")] = TABLE,
    out: Annotated[Path, typer.Option(help="the picture to write")] = OUT,
) -> None:
    """Draw the picture."""
    scores = pd.read_csv(table)
    picture = draw(kept(), points(scores), float(scores["visual tokens"].max()))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(picture)
    print(f"{out}: {len(picture) / 1024:.0f} KiB")


if __name__ == "__main__":
    app()
