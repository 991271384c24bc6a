"""scripts/study_latex.py: its formulas, drawings, statistics, and pruning in a tiny stand-in."""

import copy
import importlib
import json
import random
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from otprune import make_pruner

ROOT = Path(__file__).parent.parent
PARTS = ("formulas", "reader", "measures", "settings", "tables")


@pytest.fixture(scope="module")
def latex():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        return SimpleNamespace(**{p: importlib.import_module(f"latex.{p}") for p in PARTS})
    finally:
        sys.path.remove(str(ROOT / "scripts"))


def test_formulas_follow_from_the_seed_and_differ(latex):
    formulas = latex.formulas.make_formulas(200, 0)
    assert len(set(formulas)) == 200
    assert formulas[:50] == latex.formulas.make_formulas(50, 0)
    assert len(set(formulas) & set(latex.formulas.make_formulas(50, 1))) < 5
    everything = " ".join(formulas)
    for part in ("frac", "sqrt", "sum", "int", "alpha", "substack", "^{", "_{", "lim", "hat"):
        assert part in everything
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        latex.formulas.make_formulas(0, 0)


def test_every_kind_of_term_is_drawn_with_a_white_margin(latex):
    for term in latex.formulas._TERMS:
        for seed in range(5):
            image = np.asarray(latex.formulas.draw(term(random.Random(seed)) + "=1"))
            edges = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
            assert (edges == 255).all()
            assert image.min() < 50


def test_an_image_is_scaled_and_centred_on_black_and_its_patches_are_told_apart(latex):
    from PIL import Image

    paper = np.full((64, 64), 255, dtype=np.uint8)
    paper[8:16, 24:32] = 0
    canvas, kinds = latex.reader.fit(Image.fromarray(paper), 64, 128)
    pixels = np.asarray(canvas)
    assert pixels.shape == (64, 128)
    assert (pixels[:, :32] == 0).all()
    assert (pixels[:, 96:] == 0).all()
    assert np.array_equal(pixels[:, 32:96], paper)
    kinds = kinds.reshape(8, 16)
    assert (kinds[:, :4] == 0).all()
    assert np.argwhere(kinds == 2).tolist() == [[1, 7]]
    # A wide image fills the width; patches that its upper edge cuts are paper.
    _, kinds = latex.reader.fit(Image.fromarray(np.full((30, 128), 255, np.uint8)), 64, 128)
    assert kinds.reshape(8, 16)[:, 0].tolist() == [0, 0, 1, 1, 1, 1, 0, 0]


D, HEADS, LAYERS, WORDS = 16, 2, 2, 12
START, END, NEVER = 1, 2, (0, 1)


class Block(nn.Module):
    """A decoder's block with the package's names."""

    def __init__(self):
        super().__init__()
        for name in ("self", "cross"):
            setattr(self, f"{name}_norm", nn.LayerNorm(D))
            setattr(self, f"{name}_attn", nn.MultiheadAttention(D, HEADS, batch_first=True))
        self.ffn_norm = nn.LayerNorm(D)
        self.ffn = nn.Sequential(nn.Linear(D, 2 * D), nn.GELU(), nn.Linear(2 * D, D))


class Decoder(nn.Module):
    """A decoder with random weights and the package's names."""

    def __init__(self):
        super().__init__()
        self.decoder_embed = nn.Module()
        self.decoder_embed.token_emb = nn.Embedding(WORDS, D)
        self.decoder_embed.pos_emb = nn.Embedding(64, D)
        self.decoder_embed.norm = nn.LayerNorm(D)
        self.decoder_blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.decoder_norm = nn.LayerNorm(D)
        self.lm_head = nn.Linear(D, WORDS)

    def scores(self, words, tokens, mask=None):
        """The plain way: everything again for each character; ``mask`` hides visual tokens."""
        t = words.shape[1]
        embed = self.decoder_embed
        states = embed.norm(embed.token_emb(words) + embed.pos_emb.weight[:t])
        later = torch.ones(t, t, dtype=torch.bool).triu(1)
        for block in self.decoder_blocks:
            normed = block.self_norm(states)
            states = states + block.self_attn(normed, normed, normed, attn_mask=later)[0]
            seen = block.cross_attn(block.cross_norm(states), tokens, tokens, key_padding_mask=mask)
            states = states + seen[0]
            states = states + block.ffn(block.ffn_norm(states))
        return self.lm_head(self.decoder_norm(states))[:, -1]


@pytest.fixture(scope="module")
def stand_in(latex):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Decoder().eval()
        # The end is chosen now and then, at different places.
        model.lm_head.bias.data[END] += 0.5
    texts = ["", "", "", *"abcdefghi"]
    words = latex.reader.Vocabulary(texts, START, END, NEVER)
    return latex.reader.Reader(model, words, 32, 64)


def plainly(reader, tokens, longest, mask=None):
    given = [START]
    with torch.no_grad():
        for _ in range(longest):
            scores = reader.model.scores(torch.tensor([given]), tokens[None], mask)
            scores[:, list(NEVER)] = -1e9
            given.append(int(scores.argmax()))
            if given[-1] == END:
                break
    return reader.vocabulary.text(given[1:])


def tokens_of(count, seed=0):
    return torch.randn(count, 32, D, generator=torch.Generator().manual_seed(seed)) * 3


def test_reading_several_images_is_reading_each_the_plain_way(stand_in):
    tokens = tokens_of(24)
    found = stand_in.read(tokens, 20)
    assert found == [plainly(stand_in, one, 20) for one in tokens]
    lengths = {len(text) for text in found}
    assert len(lengths) > 2
    assert len(set(found)) > 10


def test_a_reading_that_repeats_itself_ends(latex, stand_in):
    repeats = latex.reader.repeats
    assert repeats([9, 3, 4] + [1, 2] * 16)
    assert repeats([*range(8)] * 4)
    assert not repeats([1, 2] * 15)
    assert not repeats([*range(9)] * 4)
    assert not repeats([1] * 31 + [2])
    endless = replace(stand_in, model=copy.deepcopy(stand_in.model))
    with torch.no_grad():
        endless.model.lm_head.bias[5] += 50
    tokens = tokens_of(8, seed=2)
    found, longer = endless.read(tokens, 60), [plainly(endless, one, 60) for one in tokens]
    assert found != longer
    for ours, plain in zip(found, longer, strict=True):
        assert plain.startswith(ours)
        assert ours == plain or repeats(list(map(ord, ours)))


def test_dropping_tokens_before_the_decoder_is_hiding_them_from_it(stand_in):
    tokens = tokens_of(12, seed=1)
    kept = make_pruner("otprune").select(tokens, 8)
    dropped = torch.ones(12, 32, dtype=torch.bool).scatter(1, kept, value=False)
    found = stand_in.read(torch.stack([t[k] for t, k in zip(tokens, kept, strict=True)]), 20)
    hidden = [
        plainly(stand_in, one, 20, mask[None]) for one, mask in zip(tokens, dropped, strict=True)
    ]
    assert found == hidden
    assert found != stand_in.read(tokens, 20)


def test_attention_is_the_mean_share_over_layers_heads_and_characters(stand_in):
    tokens, text = tokens_of(1)[0], "abca"
    shares = stand_in.attention(tokens, text)
    assert shares.shape == (32,)
    assert float(shares.sum()) == pytest.approx(1)
    # One more token like another receives as much as the other, and both share what one had.
    more = stand_in.attention(torch.cat([tokens, tokens[3:4]]), text)
    assert float(more[3]) == pytest.approx(float(more[32]))
    assert float(more[3]) < float(shares[3])


def picture(latex, n=64, d=12, seed=0):
    g = torch.Generator().manual_seed(seed)
    tokens = torch.randn(n, d, generator=g) + torch.randn(d, generator=g)
    attention = torch.rand(n, generator=g)
    kinds = torch.randint(0, 3, (n,), generator=g)
    return latex.settings.Picture(0, (8, n // 8), tokens, kinds, attention / attention.sum())


def test_the_kernel_with_nothing_switched_is_the_released_otprune(latex):
    for seed in range(5):
        image = picture(latex, seed=seed)
        ours = latex.settings.Kernel()(image, 20)
        assert (
            ours.tolist()
            == make_pruner("otprune", accumulate="float64").rank(image.tokens, 20).tolist()
        )


def test_the_kernel_s_switches_do_what_their_names_say(latex):
    kernel, image = latex.settings.Kernel, picture(latex)
    v = image.tokens.double()
    columns = v / v.norm(dim=0)
    full = kernel().moments(image.tokens).dense()
    torch.testing.assert_close(full, (columns @ columns.T) @ (columns @ columns.T))
    plain = kernel(squared=False).moments(image.tokens).dense()
    torch.testing.assert_close(plain, columns @ columns.T)
    unit = kernel(rows=True, squared=False).moments(image.tokens).diagonal()
    torch.testing.assert_close(unit, torch.ones_like(unit))
    centred = kernel(centred=True, columns=False, squared=False).moments(image.tokens).dense()
    torch.testing.assert_close(centred.sum(0), torch.zeros_like(centred[0]), atol=1e-9, rtol=0)
    # γ is such that the mean of γ M_ii does not depend on the scaling: equal picks when M is only
    # multiplied by a number.
    larger = latex.settings.Picture(0, image.grid, 7 * image.tokens, image.kinds, image.attention)
    one = kernel(columns=False)
    assert one(image, 20).tolist() == one(larger, 20).tolist()


def test_swaps_take_in_what_they_say_and_keep_the_budget(latex):
    image, settings = picture(latex, n=256), latex.settings
    rule = settings.method("otprune")
    picks = rule(image, 40)
    attended = settings.swapped(rule, 16, "attended")(image, 40)
    assert len(attended.unique()) == 40
    assert set(image.attended[:16].tolist()) <= set(attended.tolist())
    ink = settings.swapped(rule, 16, "ink")(image, 40)
    new = [i for i in ink.tolist() if i not in picks.tolist()]
    assert len(new) == 16
    assert (image.kinds[new] == 2).all()
    assert not set(new) & set(image.attended.tolist())
    others = settings.swapped(rule, 16, "others")(image, 40)
    assert set(others.tolist()[16:]) == set(picks.tolist()[:24])
    without = settings.without_attended(rule)(image, 40)
    assert len(without.unique()) == 40
    assert not set(without.tolist()) & set(image.attended.tolist())


def test_every_setting_keeps_its_budget_and_has_a_name_of_its_own(latex):
    settings = latex.settings.all_settings()
    assert len({setting.label for setting in settings}) == len(settings)
    names = {setting.name for setting in settings}
    assert {"otprune", "dpp", "divprune", "w2greedy", "kmedoids", "uniform", "grid"} <= names
    assert not {"fastervlm", "cdpruner"} & names
    image = picture(latex, n=512)
    for setting in settings:
        k = round(512 * setting.ratio)
        assert len(setting.rule(image, k).unique()) == k, setting.label


def test_shares_of_kept_tokens(latex):
    image = picture(latex, n=128)
    whole = latex.settings.kept_shares(image, torch.arange(128))
    assert whole == pytest.approx(dict.fromkeys(whole, 1.0))
    most = latex.settings.kept_shares(image, image.attended)
    assert most["attended"] == 1.0
    assert most["attention"] == pytest.approx(float(image.attention[image.attended].sum()))


def test_content_leaves_out_looks_and_keeps_what_is_drawn(latex):
    content = latex.measures.content
    a = r"\sqrt{\,a\,}+\tfrac{b}{c}\boldsymbol{=}\bigl(x\bigr)\to\infty"
    a = r"\begin{equation*}" + a + r"\end{equation*}"
    b = r"\[\sqrt{a} + \frac{b}{c} = \left(x\right) \rightarrow \infty\]"
    assert content(a) == content(b)
    # Longer names that begin alike are others.
    assert content(r"\leftarrow") != content("arrow")
    assert content(r"\beta\ \times\ \top") == r"\beta\times\top"
    assert content("x^{2}") != content("x_{2}")


def test_the_edit_distance_is_a_share_of_the_longer_text(latex):
    edit = latex.measures.edit_distance
    assert edit("", "") == 0
    assert edit("abc", "") == edit("", "abc") == 1
    assert edit("kitten", "sitting") == pytest.approx(3 / 7)
    assert edit("ab", "ba") == 1
    stream = random.Random(0)
    for _ in range(50):
        a, b, c = ("".join(stream.choices("ab", k=stream.randint(1, 6))) for _ in range(3))
        assert edit(a, b) == edit(b, a)
        counts = [edit(x, y) * max(len(x), len(y)) for x, y in ((a, c), (a, b), (b, c))]
        assert counts[0] <= counts[1] + counts[2] + 1e-9


def test_sign_flips_are_those_of_scipy_and_intervals_cover_the_mean(latex):
    from scipy.stats import permutation_test

    stream = np.random.default_rng(0)
    values = stream.normal(0.3, 1, 10)
    exact = permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert latex.measures.sign_flip_p(values) == pytest.approx(exact, abs=0.02)
    assert latex.measures.sign_flip_p(np.zeros(5)) == 1
    assert latex.measures.sign_flip_p(np.ones(40)) == 1e-4
    inside = 0
    for _ in range(200):
        low, high = latex.measures.mean_interval(stream.normal(1, 1, 50), draws=400)
        inside += low <= 1 <= high
    assert 180 <= inside <= 199


def test_slopes_take_out_formula_and_setting(latex):
    stream = np.random.default_rng(0)
    rows = []
    for formula in range(30):
        for seed in range(3):
            x = stream.normal()
            rows.append(
                {"part": "methods", "setting": "random", "ratio": 0.5, "seed": seed,
                 "formula": formula, "ink": x, "edit": -2 * x + 10 * formula + 5 * seed}
            )  # fmt: skip
    frame = pd.DataFrame(rows)
    low = latex.tables._slope(frame, frame.ink)
    spread = float(low.split()[0]) / -2
    assert 0.5 < spread < 1.1
    # No noise: the interval is its estimate.
    assert low.split()[0] == low.split("[")[1].split(",")[0]


COMMITTED = ROOT / "results" / "latex"


def test_the_committed_tables_follow_from_the_committed_readings(latex):
    told = json.loads((COMMITTED / "latex.json").read_text())["tables"]
    readings = pd.read_csv(COMMITTED / "formulas.csv")
    images = pd.read_csv(COMMITTED / "images.csv")
    assert len(images) >= 200
    whole = next(rows for title, rows in told.items() if title.startswith("Nothing pruned"))
    assert whole == latex.tables.unpruned(images)
    some = readings[(readings.part == "methods") & (readings.ratio == 0.25)]
    adjusted = latex.tables.adjusted_ps(readings[readings.part == "methods"])
    assert told["25 % of the tokens"] == latex.tables.comparison(some, 0.25, adjusted)
    for part, title in (("kernel", "OTPrune's kernel taken"), ("swaps", "Tokens taken in")):
        rows = next(rows for heading, rows in told.items() if heading.startswith(title))
        mine = readings[readings.part == part]
        made = [latex.tables._row(*pair) for pair in mine.groupby("setting", sort=False)]
        assert rows[1:] == made


def test_the_numbers_of_the_page_on_documents_are_the_committed_ones(latex):
    page = (ROOT / "docs" / "documents.md").read_text()
    told = json.loads((COMMITTED / "latex.json").read_text())["tables"]
    known = {str(value) for rows in told.values() for row in rows for value in row.values()}
    shown = re.findall(r"-?[\d.]+ \[-?[\d.]+, -?[\d.]+\]", page)
    assert len(shown) > 20
    for value in shown:
        assert value in known, value
