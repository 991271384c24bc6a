"""``otprune prune``: one image, several methods."""

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from helpers import PARITY, TINY, TINY_ANYRES, picture, tiny
from otprune_lmms.cli.prune import prune
from otprune_lmms.experiments.diagnostics.one_image import measure_image
from otprune_lmms.pruning_config import PruningConfig

LAND = PARITY / "images" / "land.png"


@pytest.fixture
def call():
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(prune)
    return lambda *words: CliRunner().invoke(
        app, [str(word) for word in words], env={"COLUMNS": "160"}
    )


def views(checkpoint, name):
    model = tiny(checkpoint)
    pixels = model.preprocess(picture(name))
    return model, pixels, model.image_views(pixels)


def test_one_tile_is_one_view_in_raster_order():
    _, _, (view,) = views(TINY, "land.png")
    assert (view.tokens == np.arange(576).reshape(24, 24)).all()
    assert view.pixels.shape == (336, 336, 3)
    mask = view.mask(np.array([0, 25]))
    assert mask.sum() == 2
    assert mask[0, 0]
    assert mask[1, 1]


@pytest.mark.parametrize("name", ["land.png", "port.png", "wide.png", "square.png"])
def test_several_tiles_show_each_token_once(name):
    model, pixels, (whole, raster) = views(TINY_ANYRES, name)
    (tokens,) = model.encode([pixels], frozenset())
    assert (whole.tokens == np.arange(576).reshape(24, 24)).all()
    newline = np.flatnonzero(tokens.newline)
    shown = np.concatenate([whole.tokens.ravel(), raster.tokens[raster.tokens >= 0]])
    assert sorted([*shown, *newline]) == list(range(len(tokens)))
    # Rows of the raster follow each other, a newline after each.
    rows = raster.tokens[(raster.tokens >= 0).any(axis=1)]
    assert len(rows) == len(newline)
    for row, end in zip(rows, newline, strict=True):
        own = row[row >= 0]
        assert (np.diff(own) == 1).all()
        assert own[-1] == end - 1


@pytest.mark.parametrize("name", ["land.png", "port.png"])
def test_tiles_are_put_where_they_were_cut(name):
    _, _, (_, raster) = views(TINY_ANYRES, name)
    image = picture(name)
    # Where patches have tokens lies the image, up to the rounding of its margins.
    rows, columns = (np.flatnonzero((raster.tokens >= 0).any(axis=axis)) for axis in (1, 0))
    patch = raster.pixels.shape[0] // raster.tokens.shape[0]
    cut = raster.pixels[
        rows[0] * patch : (rows[-1] + 1) * patch, columns[0] * patch : (columns[-1] + 1) * patch
    ]
    resized = np.asarray(image.resize((cut.shape[1], cut.shape[0]))) / 255
    assert np.abs(cut - resized).mean() < 0.08


def test_the_command_draws_and_prints(call, tmp_path):
    out = tmp_path / "deep" / "kept.png"
    words = ("--model", TINY, "--method", "otprune", "--method", "random:seed=3", "--out", out)
    done = call(LAND, *words)
    assert done.exit_code == 0, done.output
    assert "OTPrune 0.098" in done.output
    assert "Random 0.098" in done.output
    line = next(line for line in done.output.splitlines() if "OTPrune 0.098" in line).split()
    assert line[2:4] == ["56", "576"]
    measured = measure_image(
        tiny(), picture("land.png"), [PruningConfig.make("otprune", keep_ratio=0.098)]
    )
    assert line[4] == f"{measured.lines[0]['exact_w2']:.3f}"
    with Image.open(out) as drawn:
        assert drawn.width > 600
    assert [path.name for path in out.parent.iterdir()] == ["kept.png"]


def test_several_tiles_are_drawn(call, tmp_path):
    out = tmp_path / "kept.png"
    done = call(LAND, "--model", TINY_ANYRES, "--method", "first_k", "--k", "60", "--out", out)
    assert done.exit_code == 0, done.output
    assert " 60 " in done.output
    with Image.open(out) as drawn:
        assert drawn.width > 900


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere.png",), "nowhere.png"),
        ((LAND, "--method", "best"), "method must be one of"),
        ((LAND, "--method", "none"), "--method must name"),
        ((LAND, "--method", "otprune:gamma"), "name:setting=value"),
        ((LAND, "--method", "otprune:gamma=-1"), "gamma"),
        ((LAND, "--keep-ratio", "2"), "keep_ratio must be in (0, 1]"),
        ((LAND, "--keep-ratio", "0.5", "--k", "3"), "exactly one of"),
        ((LAND, "--model", "./no_such_checkpoint"), "no_such_checkpoint"),
    ],
)
def test_what_cannot_be_is_a_sentence(call, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = () if "--model" in words else ("--model", TINY)
    done = call(*words, *model)
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "config",
    [PruningConfig.make(), PruningConfig.make("otprune", k=3, layer=1)],
    ids=lambda config: config.label,
)
def test_configs_that_an_image_does_not_decide_are_refused(config):
    with pytest.raises(ValueError, match="an image alone does not decide"):
        measure_image(tiny(), picture("land.png"), [config])
