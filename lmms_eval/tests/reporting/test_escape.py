"""Whatever a title, a name or a task is called: every page shows it, none obeys it."""

import json
import re
from html.parser import HTMLParser

import matplotlib.text
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from matplotlib.backends.backend_agg import FigureCanvasAgg

import results_folder
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.reporting.analysis.write import write_analysis
from otprune_lmms.reporting.cost import write_cost
from otprune_lmms.reporting.escape import flat, html, latex, markdown, markdown_code
from otprune_lmms.reporting.figures import KINDS, read_results
from otprune_lmms.reporting.figures.data import NotDrawn, Results
from otprune_lmms.reporting.figures.kept_image import write_kept_patches
from otprune_lmms.reporting.figures.style import drawn, styled
from otprune_lmms.reporting.report import write_report
from otprune_lmms.reporting.statistics import write_statistics
from otprune_lmms.reporting.tables import write_tables
from otprune_lmms.results.costs import MeasuredCost, Speedup, Spread
from otprune_lmms.results.diagnostics import COLUMNS as DIAGNOSTIC_COLUMNS
from otprune_lmms.results.kept_image import KeptImage, write_kept_image
from otprune_lmms.results.names import names_of
from otprune_lmms.terminal_text import printable

EVIL = (
    "# <script>alert(1)</script> | `rm` [x](javascript:alert) ![y](http://z) \\input{/etc/passwd} "
    "$x_1$ 5% a_b _c_ & \" ' ~~d~~ \x1b[31m \u202e \x07 \x85 \u2028 **e**"
    "\n## F\n\n| g |\n|---|\n- h"
)
"""What a title, a name or a task may be called, in the eyes of someone who means ill."""

quiet = settings(deadline=None, max_examples=100, derandomize=True)
texts = st.text(
    st.one_of(
        st.characters(codec="utf-8"), st.sampled_from("#+-=|`*_[]()<>&\\$%{}~^!1.) \n\x1b\u202e")
    )
)

PAGES = {"table.md", "statistics.md", "analysis.md", "cost.md"}
MARKS = {"h1", "h2", "h3", "p", "code", "br", "table", "thead", "tbody", "tr", "th", "td", "strong",
         "ins", "ul", "li", "img"}  # fmt: skip


def evil(value, *names):
    """A text with every one of some names replaced."""
    if isinstance(value, str) and value in names:
        return f"{value} {EVIL}"
    return value


def rename(frame, *names):
    """A frame whose texts that are one of some names are hostile."""
    return frame.map(lambda value: evil(value, *names))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A results folder whose title, models, rows, methods and tasks are hostile; all its pages."""
    folder = tmp_path_factory.mktemp("escape") / "results"
    configs = results_folder.SETTINGS
    ours = {one[name] for one in configs for name in ("setting", "row", "name", "method")}
    names = ("tiny", "gqa", "try", "exact_match", *(ours - {None, "unpruned"}))
    results_folder.write_folder(folder)
    for path in folder.glob("*.csv"):
        own = pd.read_csv(path)
        own = own[~own["task"].isin(["pope", "mme"])] if "task" in own else own
        rename(own, *names).to_csv(path, index=False)
    for path in folder.glob("*.parquet"):
        own = pd.read_parquet(path)
        own = own[~own["task"].isin(["pope", "mme"])]
        own = own.assign(detail="{}") if "detail" in own else own
        if path.stem == "diagnostics":
            extra = dict.fromkeys(("gaussian_w2_zero_mean", "gaussian_w2_channels"), 1.0)
            own = own.assign(**extra, coverage_mean=1.0, coverage_max=1.0)[DIAGNOSTIC_COLUMNS]
        schema = pq.read_schema(path) if path.stem == "samples" else None
        rename(own, *names).to_parquet(path, index=False, schema=schema)
    content = results_folder.manifest(EVIL, published=[
        {"source": EVIL, "row": EVIL, "model": evil("tiny", "tiny"), "scores": {"gqa": 1.0}},
    ])  # fmt: skip
    content["experiment"]["models"] = [{"name": evil("tiny", "tiny")}]
    content["experiment"]["tasks"] = [
        {"id": evil(task, "gqa"), "limit": None} for task in ("gqa", "coco2017_cap_val")
    ]
    content["origin"] = {"hardware": EVIL, EVIL: EVIL, "commit": "abc"}
    content["failed"] = [{"task": evil("gqa", "gqa"), "doc_id": 1, "reason": EVIL}]
    content["versions"] = {EVIL: EVIL}
    (folder / "manifest.json").write_text(json.dumps(content))
    columns = {name: evil(value, *names) for name, value in configs[1].items()}
    masks = np.zeros((1, 2, 2), dtype=bool)
    write_kept_image(KeptImage(np.zeros((8, 8, 3), np.uint8), [columns], masks), folder)
    write_kept_patches(folder)
    write_statistics(folder)
    write_analysis(folder)
    write_tables(folder)
    write_report(folder, results_folder.images)
    # The last, since the report reads the costs of the other.
    write_cost(
        folder, [cost(evil("tiny", "tiny"), columns)], content["origin"], names_of(None, [columns])
    )
    return folder


def cost(model, columns):
    none, slower = Spread(1.0, 1.0, 1.0), Speedup(0.5, 0.4, 0.6)
    return MeasuredCost(
        model, columns, 1, 16.0, 4.0, 9.0, *[none] * 7, 0.5, 0.5, slower, slower, None, 1.0, 1,
        None, 1.0, "2ndm", 0.5, 1.0, 0.5, 1.0, 1.0, 1, 1, "float32", EVIL,
    )  # fmt: skip


class Seen(HTMLParser):
    """Tags, their attributes and the text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def test_no_text_file_but_data_has_control_characters(folder):
    data = {"manifest.json", "records.csv"}
    checked = set()
    for path in folder.iterdir():
        if path.suffix in (".md", ".tex", ".html"):
            text = path.read_text(encoding="utf-8")
            assert printable(text.replace("\u2028", "")) == text, path.name
            checked.add(path.name)
    assert checked == PAGES | {"table.tex", "table.html", "report.html"}
    assert data <= {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", sorted(PAGES))
def test_markdown_shows_names_and_has_no_other_marks(folder, name):
    page = (folder / name).read_text(encoding="utf-8")
    parser = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough")
    seen = Seen(parser.render(page))
    assert set(seen.tags) <= MARKS
    assert ("src", "kept_patches.png") in seen.attributes or name != "table.md"
    assert {value for key, value in seen.attributes if key in ("src", "href")} <= {
        "kept_patches.png"
    }
    assert flat(EVIL) in seen.text
    # Dollar signs begin mathematics on GitHub.
    outside = re.sub(r"(`+).*?\1", "", page)
    assert not re.search(r"(?<!\\)\$", outside)
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert rows


def test_web_pages_show_names_and_have_only_our_tags(folder):
    for name in ("table.html", "report.html"):
        seen = Seen((folder / name).read_text(encoding="utf-8"))
        assert "<script>alert(1)</script>" not in seen.tags
        # Beside the page's own there are rows of long tables, as data.
        scripts = seen.tags.count("script") - seen.attributes.count(("class", "rows"))
        assert scripts == (1 if name == "table.html" else 2)
        assert not [key for key, _ in seen.attributes if key.startswith("on")]
        assert not [value for _, value in seen.attributes if str(value).startswith("javascript")]
        assert printable(EVIL).split("\n")[0] in seen.text or flat(EVIL) in seen.text


def test_latex_sets_names_and_has_no_other_commands(folder):
    page = (folder / "table.tex").read_text(encoding="utf-8")
    body = "\n".join(line for line in page.splitlines() if not line.startswith("%"))
    assert "\\textbackslash{}input\\{/etc/passwd\\}" in body
    assert not re.search(r"\\(input|n\b|x1b|u202e)", body)
    for line in page.splitlines():
        assert line.startswith("%") or not re.search(r"(?<!\\)%(?!$)", line), line
    assert not re.search(r"(?<!\\)#", body)


def test_data_files_hold_names_as_they_are(folder):
    own = pd.read_csv(folder / "records.csv", keep_default_na=False)
    assert evil("tiny", "tiny") in set(own["model"])
    tables = ("averages.csv", "intervals.csv", "table.csv", "budgets.csv", "kept.csv")
    for name in (*tables, "answers.csv"):
        assert evil("tiny", "tiny") in set(pd.read_csv(folder / name)["model"]), name
    assert json.loads((folder / "manifest.json").read_text())["experiment"]["title"] == EVIL


def test_figures_draw_names_as_plain_text(folder):
    plain = read_results(folder)
    results = Results(folder, plain.records, results_folder.images)
    shown = 0
    for kind in KINDS:
        with styled():
            try:
                figure = kind.draw(results, plain.models[0])
            except NotDrawn:
                continue
            FigureCanvasAgg(figure).draw()
            for text in figure.findobj(matplotlib.text.Text):
                assert printable(text.get_text()) == text.get_text()
                assert not text.get_parse_math()
        shown += 1
    assert shown >= 6


@quiet
@given(texts)
def test_any_text_survives_markdown_as_a_line_and_in_a_table(text):
    parser = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough")
    wanted = flat(text)
    line = Seen(parser.render(f"{markdown(text)}\n"))
    assert line.text.strip() == wanted
    assert set(line.tags) <= {"p"}
    item = Seen(parser.render(f"- {markdown(text)}\n"))
    assert item.text.strip() == wanted
    assert set(item.tags) == {"ul", "li"}
    cell = Seen(parser.render(f"| {markdown(text)} | 2 |\n|---|---|\n"))
    assert [part.strip() for part in cell.text.split("\n") if part.strip()] == [
        part for part in (wanted, "2") if part
    ]
    code = Seen(parser.render(f"x {markdown_code(text)} y\n"))
    assert code.text.strip().split() == f"x {wanted} y".split() or not wanted


@quiet
@given(texts)
def test_any_text_survives_html_and_has_no_control_characters(text):
    seen = Seen(f'<p title="{html(text)}">{html(text)}</p>')
    assert seen.tags == ["p"]
    assert seen.text == printable(text)
    assert seen.attributes == [("title", printable(text))]
    assert printable(latex(text)) == latex(text)
    assert printable(drawn(text)) == drawn(text)
    assert len(drawn(text)) <= 45


def test_a_figure_s_text_is_one_short_line():
    assert drawn("a\nb\x1b") == "a b\\x1b"
    assert drawn("字 _x") == "□ _x"
    assert drawn("_x") == " _x"
    assert drawn("a" * 60) == "a" * 43 + "…"


def test_settings_of_experiments_never_need_it():
    label = PruningConfig.make("otprune", 0.5, gamma=0.05).label
    assert markdown(label) == label
