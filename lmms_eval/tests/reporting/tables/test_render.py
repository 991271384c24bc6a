"""The table in every format: the same numbers, nothing cut, nothing read as code."""

import dataclasses
import io
import json
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from otprune_lmms.reporting.escape import latex as in_latex
from otprune_lmms.reporting.escape import markdown as in_markdown
from otprune_lmms.reporting.tables import csv, html, latex, make_table, markdown, terminal
from otprune_lmms.reporting.tables.render.html import script
from otprune_lmms.reporting.tables.render.terminal import folds
from otprune_lmms.results.manifest import Manifest, PrintedRow

quiet = settings(deadline=None, max_examples=40, derandomize=True)

EVIL = "<script>alert('1')</script> & \"q\" a_b %s #1 $x$ ^~ \\end{tabular} {|} `*_[l](u)_*`"


class Tables(HTMLParser):
    """Rows of all tables of a page: [text of each cell]; and every tag that was met."""

    VOID = ("meta", "br", "img")

    def __init__(self, page):
        super().__init__()
        self.rows, self.tags, self.open, self.cell = [], [], [], None
        self.attributes, self.script = [], ""
        self.feed(page)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.cell = ""

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "tags are nested"
        if tag in ("td", "th"):
            self.rows[-1].append(self.cell)
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data
        if self.open[-1:] == ["script"]:
            self.script += data


@pytest.fixture(scope="module")
def plain(made):
    printed = PrintedRow("a paper", "FastV", "tiny", {"gqa": 49.6})
    return make_table(made.records(), dataclasses.replace(made.manifest, published=(printed,)))


@pytest.fixture(scope="module")
def evil(made):
    """Every text that comes from outside is hostile."""
    records = made.records()
    for column in ("model", "method"):
        records[column] = records[column].where(records[column].isna(), EVIL)
    records["row"] = records["row"].str.replace("otprune", EVIL)
    records["setting"] = records["setting"].str.replace("otprune", EVIL)
    records.loc[records["metric"] == "exact_match", "task"] = EVIL
    lost = records.iloc[0].to_dict() | {"metric": "other", "value": None, "missing": EVIL}
    records.loc[len(records)] = lost
    printed = (
        PrintedRow(EVIL, EVIL, EVIL, {EVIL: 1.0}),
        PrintedRow(EVIL, "unpruned", EVIL, {EVIL: 2}),
    )
    manifest = Manifest(EVIL, origin={EVIL: EVIL + "\nnext line"}, published=printed)
    return make_table(
        records, manifest, references={EVIL: {"mme": (1.0, 1.0, EVIL)}}
    ), manifest.origin


def numbers(table):
    """Every number as it is shown, by row."""
    return [
        [row.whole]
        + [
            e.empty if e.value is None else f"{e.value:.{c.digits}f}"
            for e, c in zip(row.entries, table.columns, strict=True)
        ]
        for part in table.parts
        for block in part.blocks
        for row in block.rows
    ]


def flat(text):
    return " ".join(text.split())


def holds(page, separator, *cells):
    """Whether a line of a page has the cells in this order; there may be others between."""
    for line in page.splitlines():
        found = iter([cell.strip() for cell in line.split(separator)])
        if all(cell in found for cell in cells):
            return True
    return False


# Markdown


def rendered(page):
    return Tables(MarkdownIt("commonmark", {"html": True}).enable("table").render(page))


def test_the_markdown_page(plain, made):
    page = markdown(plain, made.origin)
    assert page.splitlines()[0] == "# A try"
    assert "hardware: `a computer`  " in page
    best = ("**60.0**", "**1200**", "**60.0**", "**68.3**", "**65.5**")
    assert holds(page, "|", "OTPrune 0.1", "57.6", *best)
    assert holds(page, "|", "Random 0.1", "57.6", "<ins>30.0</ins>", "<ins>450</ins>")
    assert "mean over tasks of score / unpruned score" in page
    assert "MME-P = mme mme_perception_score;" in page
    assert "Flickr = flickr30k_test flickr_CIDEr x 100" in page
    assert "documents: gqa 10, mme 10, flickr30k_test 10" in page
    found = rendered(page)
    wanted = {tuple(row) for table in (plain, plain.budgets) for row in numbers(table)}
    assert wanted <= {tuple(row) for row in found.rows}
    widths = {1 + len(table.columns) for table in (plain, plain.budgets)}
    assert {len(row) for row in found.rows} == widths


def test_markdown_shows_hostile_names_as_they_are(evil):
    table, origin = evil
    page = markdown(table, origin)
    found = rendered(page)
    assert set(found.tags) <= {
        "h1", "h2", "p", "code", "br", "table", "thead", "tbody", "tr", "th", "td", "strong", "ins",
        "ul", "li",
    }  # fmt: skip
    widths = {1 + len(one.columns) for one in (table, table.budgets)}
    assert {len(row) for row in found.rows} == widths
    assert f"{EVIL} 0.1" in {row[0] for row in found.rows}
    assert EVIL in found.rows[0]
    assert f"As published, not run here: {EVIL}" in {row[0] for row in found.rows}


@quiet
@given(st.text(min_size=1).filter(lambda t: flat(t) and t.isprintable()))
def test_any_text_survives_markdown(text):
    page = f"| a |\n|---|\n| x {in_markdown(text)} x |"
    (_, (cell,)) = rendered(page).rows
    assert cell == f"x {flat(text)} x"


# HTML


def test_the_page_holds_every_number_and_loads_nothing(plain, made):
    page = html(plain, made.origin)
    found = Tables(page)
    heading = ["setting", *(column.name for column in plain.budgets.columns)]
    rows = [row for row in found.rows if len(row) > 1]
    assert rows[1:] == [*numbers(plain), heading, *numbers(plain.budgets)]
    assert found.rows[0][1:] == [column.name for column in plain.columns]
    assert found.tags.count("script") == found.tags.count("style") == 1
    assert not {"link", "img", "iframe", "object"} & set(found.tags)
    assert not re.search(r"(?:src|href|url\()", page.replace("default-src", "").replace("-src", ""))
    (policy,) = [a["content"] for tag, a in found.attributes if "http-equiv" in a]
    assert policy.startswith("default-src 'none'")


def test_values_to_sort_by_have_all_digits(plain, made):
    cells = [a for tag, a in Tables(html(plain, made.origin)).attributes if tag == "td"]
    parts = [*plain.parts, *plain.budgets.parts]
    entries = [e for p in parts for b in p.blocks for row in b.rows for e in row.entries]
    assert [a["data-value"] for a in cells] == [
        "" if e.value is None else repr(e.value) for e in entries
    ]


def test_the_page_shows_hostile_names_as_they_are(evil):
    table, origin = evil
    found = Tables(html(table, origin))
    assert found.tags.count("script") == 1
    assert found.script.strip() == script().strip(), "ours, and no other"
    assert found.rows[0][1:] == [column.name for column in table.columns]
    assert f"{EVIL} 0.1" in {row[0] for row in found.rows}
    wanted = {"data-value", "title", "class", "scope", "colspan", "data-first", "type"}
    for tag, attributes in found.attributes:
        if tag in ("td", "th", "tr", "tbody", "button", "b", "u"):
            assert set(attributes) <= wanted


FAKE_DOM = """
const fakeCell = (value, extra = {}) => ({
  attributes: { "data-value": value, ...extra },
  getAttribute(name) { return name in this.attributes ? this.attributes[name] : null; },
  setAttribute(name, value) { this.attributes[name] = value; },
  removeAttribute(name) { delete this.attributes[name]; },
  button: { addEventListener(_, act) { this.click = act; } },
  querySelector() { return this.button; },
});
const fakeRow = (values, title) => ({
  cells: values.map((value) => fakeCell(value)),
  classList: { contains: (name) => title && name === "title" },
});
const fakeBody = (rows) => ({
  rows: [fakeRow(["block"], true), ...rows.map((row) => fakeRow(row, false))],
  appendChild(row) { this.rows = [...this.rows.filter((one) => one !== row), row]; },
});
const heads = ["ascending", "descending"].map((first) => fakeCell("", { "data-first": first }));
const table = {
  tHead: { rows: [{ cells: heads }] },
  tBodies: [
    fakeBody([["b", "9.5"], ["a", ""], ["c", "10"]]),
    fakeBody([["z", "1"], ["y", "100"]]),
  ],
};
makeSortable(table);
const state = () => [
  heads.map((head) => head.getAttribute("aria-sort")),
  table.tBodies.map((body) => body.rows.map((row) => row.cells[0].getAttribute("data-value"))),
];
const seen = [];
for (const column of [1, 1, 0]) { heads[column].button.click(); seen.push(state()); }
console.log(JSON.stringify(seen));
"""


def node(code):
    done = subprocess.run(
        ["node", "-e", script() + code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(shutil.which("node") is None, reason="no JavaScript here")
def test_a_click_sorts_each_block_for_itself():
    falling, rising, names = node(FAKE_DOM)
    assert falling == [[None, "descending"], [["block", "c", "b", "a"], ["block", "y", "z"]]]
    assert rising == [[None, "ascending"], [["block", "b", "c", "a"], ["block", "z", "y"]]]
    assert names == [["ascending", None], [["block", "a", "b", "c"], ["block", "y", "z"]]]


@pytest.mark.skipif(shutil.which("node") is None, reason="no JavaScript here")
def test_the_order_is_that_of_a_plain_sort():
    draw = random.Random(0)
    cases = [
        [draw.choice(["", repr(draw.uniform(-3, 3)), str(draw.randint(0, 20))]) for _ in range(n)]
        for n in range(12)
    ]
    found = node(
        f"const cases = {json.dumps(cases)};"
        "console.log(JSON.stringify(cases.map((c) => [order(c, false), order(c, true)])));"
    )
    for values, (rising, falling) in zip(cases, found, strict=True):
        places = range(len(values))
        for order, sign in ((rising, 1), (falling, -1)):
            assert order == sorted(
                places, key=lambda i: (values[i] == "", sign * float(values[i] or 0))
            )


# LaTeX

COMMANDS = {
    "begin", "end", "centering", "caption", "resizebox", "textwidth", "toprule", "midrule",
    "bottomrule", "multicolumn", "textbf", "underline", "scriptsize", "footnotesize", "par",
    "medskip", "textbackslash", "textasciicircum", "textasciitilde", "textless", "textgreater",
    "textbar", "textasciigrave", "dagger", "pm", "times", "alpha", "beta",
    "gamma", "epsilon", "downarrow", "dots",
}  # fmt: skip


def check_latex(text):
    """Read LaTeX strictly: commands that we know, balanced groups, rows of the right width."""
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    body = "\n".join(re.sub(r"(?<!\\)%$", "", line) for line in lines)
    bare = re.sub(r"\\[\\{}$&#%_]", "", body)
    assert "%" not in bare
    assert "#" not in bare
    assert set(re.findall(r"\\([A-Za-z]+)", bare)) <= COMMANDS
    assert not re.search(r"\\[^A-Za-z]", bare)
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    maths = bare.split("$")
    assert len(maths) % 2 == 1
    for outside in maths[::2]:
        assert not re.search(r"[_^~<>|\"]", outside), outside
    stack = []
    for kind, name in re.findall(r"\\(begin|end)\{([a-z*]+)\}", body):
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert not stack
    for columns, table in re.findall(
        r"\\begin\{tabular\}\{(l?r*)\}(.*?)\\end\{tabular\}", body, flags=re.S
    ):
        rows = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert len(rows) > 2
        for row in rows:
            spanned = [int(n) for n in re.findall(r"\\multicolumn\{(\d+)\}", row)]
            cells = len(re.findall(r"(?<!\\)&", row)) + 1
            assert cells + sum(spanned) - len(spanned) == len(columns), row
    return body


def test_the_latex_table(plain, made):
    text = latex(plain, made.origin)
    body = check_latex(text)
    assert text.startswith("% hardware: a computer\n% commit: abc\n")
    span = rf"\multicolumn{{{1 + len(plain.columns)}}}{{c}}"
    assert span + r"{Upper bound: 576 visual tokens (100 \%)} \\" in body
    assert span + r"{Retain 0.1 (57.6 of 576 tokens, down 90.0 \%)} \\" in body
    best = [rf"\textbf{{{number}}}" for number in ("60.0", "1200", "60.0", "68.3")]
    assert holds(body, "&", "OTPrune", "57.6", *best)
    assert holds(body, "&", "Random", "57.6", r"\underline{30.0}", r"\underline{450}")
    assert re.search(r"^FastV &( -- &)+ 49\.6 &( -- &)+ -- \\\\$", body, flags=re.M)


def test_latex_escapes_hostile_names(evil):
    table, origin = evil
    body = check_latex(latex(table, origin))
    assert "<script>" not in body
    assert body.count(r"\end{tabular}") == len(table.parts) == 1


def test_a_table_of_many_rows_is_several_floats_with_headings(made):
    ratios = (0.1, 0.2, 0.3)
    counts = {0.1: 3, 0.2: 40, 0.3: 20}
    names = [f"m{n}-{ratio}" for ratio in ratios for n in range(counts[ratio])]
    records = made.plain({"unpruned": (80, 90)} | dict.fromkeys(names, (50, 60)))
    table = make_table(records, made.manifest)
    text = latex(table, made.origin)
    check_latex(text)
    floats = text.split(r"\begin{table*}")[1:]
    assert len(floats) == 3
    for number, one in enumerate(floats, 1):
        assert rf"\caption{{tiny: A try (part {number} of 3)}}" in one
        assert one.count(r"\toprule") == one.count("Method & ") == 1
        rows = [line for line in one.splitlines() if line.endswith(r" \\")]
        assert 3 < len(rows) <= 1 + 32
        assert (r"\begin{minipage}" in one) == (number == 3)
        # Each row stands below the title of its block.
        assert r"\multicolumn" in rows[1]
    body = text.splitlines()
    for name in names:
        ours = [line for line in body if line.startswith(f"{name.split('-')[0]} & ")]
        assert len(ours) == sum(int(name.split("-")[0][1:]) < count for count in counts.values())
    # A narrow table would grow if it were scaled to the width of the text.
    assert "resizebox" not in text
    parts = tuple(
        dataclasses.replace(part, blocks=tuple(
            dataclasses.replace(block, rows=tuple(
                dataclasses.replace(row, entries=2 * row.entries) for row in block.rows
            )) for block in part.blocks
        )) for part in table.parts
    )  # fmt: skip
    wide = latex(dataclasses.replace(table, columns=2 * table.columns, parts=parts), made.origin)
    assert wide.count("resizebox") == 3
    check_latex(wide)


@quiet
@given(st.text())
def test_no_text_breaks_latex(text):
    check_latex(in_latex(text))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX here")
def test_tex_sets_it(evil, plain, made, tmp_path):
    head = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs,graphicx}"
    for name, text in (("plain", latex(plain, made.origin)), ("evil", latex(*evil))):
        (tmp_path / f"{name}.tex").write_text(
            "\n".join([head, r"\begin{document}", text, r"\end{document}"]), encoding="utf-8"
        )
        done = subprocess.run(
            ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", f"{name}.tex"],
            cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:]
        assert (tmp_path / f"{name}.pdf").stat().st_size > 1000


# Terminal


def drawn(table, width):
    out = io.StringIO()
    Console(file=out, width=width).print(terminal(table))
    return out.getvalue().splitlines()


def test_a_wide_terminal_shows_each_row_once(plain):
    lines = drawn(plain, 200)
    assert lines[0] == "A try"
    wanted = [" ".join(row) for row in numbers(plain)]
    assert [flat(line) for line in lines if flat(line) in wanted] == wanted


@quiet
@given(width=st.integers(1, 140))
def test_no_width_cuts_a_number(plain, width):
    drawing = terminal(plain)
    least = Console(width=1000).measure(drawing).minimum
    lines = drawn(plain, max(width, least))
    assert max(map(len, lines)) <= max(width, least)
    by_row = {}
    for line in lines:
        for name in (row[0] for row in numbers(plain)):
            if line.startswith(f"{name} "):
                by_row.setdefault(name, []).extend(line.removeprefix(name).split())
    assert by_row == {row[0]: row[1:] for row in numbers(plain)}


def test_columns_stand_below_each_other(plain):
    """A number ends where its heading ends, in every block."""
    lines = drawn(plain, 200)
    (head,) = [line for line in lines if line.startswith("setting")]
    ends = {match.end() for match in re.finditer(r"\S+(?: \S+)*", head)} - {len("setting")}
    for row in numbers(plain):
        (line,) = [line for line in lines if line.startswith(f"{row[0]} ")]
        found = [m.end() for m in re.finditer(r"\S+", line[len(row[0]) :])]
        assert {end + len(row[0]) for end in found} == ends


def test_turns_take_as_many_columns_as_fit(plain):
    everything = Console(width=1000).measure(terminal(plain)).maximum
    assert folds(plain, everything) == [list(range(len(plain.columns)))]
    assert len(folds(plain, everything - 1)) == 2
    assert folds(plain, 1) == [[place] for place in range(len(plain.columns))]


def test_the_terminal_reads_no_markup(evil):
    table, _ = evil
    text = "\n".join(drawn(table, 2000))
    assert f"{EVIL} 0.1" in text


# CSV


def test_csv_holds_all_digits_and_no_published_row(plain):
    stored = pd.read_csv(io.StringIO(csv(plain)))
    assert list(stored["setting"]) == ["unpruned", "otprune-0.1", "random-0.1"]
    for (*_, row), line in zip(plain.ours(), stored.to_dict("records"), strict=True):
        for entry, column in zip(row.entries, plain.columns, strict=True):
            if entry.value is None:
                assert pd.isna(line[column.name])
            else:
                assert line[column.name] == entry.value
    assert stored["GQA sd"][2] == pytest.approx(14.142135623730951)
    assert list(stored["seeds"]) == [1, 1, 2]
    assert list(stored["keep_ratio"][1:]) == [0.1, 0.1]
    assert "doubted" not in stored


def test_csv_names_what_is_in_doubt(made):
    table = make_table(made.records(), made.manifest, references={"tiny": {"gqa": (61.96, 1.5)}})
    stored = pd.read_csv(io.StringIO(csv(table)))
    assert set(stored["doubted"]) == {"GQA; mean of ratios; ratio of means (MME-P/20)"}
    assert "†" not in csv(table)


def test_csv_quotes_hostile_names(evil):
    table, _ = evil
    stored = pd.read_csv(io.StringIO(csv(table)))
    assert list(stored["model"]) == [EVIL] * 3
    assert f"{EVIL}-0.1" in set(stored["setting"])
    assert EVIL in stored.columns
