"""The page of a results folder, read as text and opened in a browser."""

import base64
import hashlib
import itertools
import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from PIL import Image

import results_folder
from browser import CHROMIUM, Browser
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.reporting.report import write_report
from otprune_lmms.results.names import Names

EVIL = (
    "</script><script>window.pwned=1</script><img src=x onerror='window.pwned=2'>"
    "\"'`&amp;&lt; ]]> <!-- ${window.pwned=3} \u2028 \u202eגלש אב 😀 \\u003c {{ 7*7 }}"
)
"""What a model or a data set may say."""

opened = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")


class Outline(HTMLParser):
    """Tags, and the texts of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.scripts[-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = results_folder.write_folder(tmp_path_factory.mktemp("report") / "results")
    (folder / "figures").mkdir()
    Image.new("RGB", (300, 200), "white").save(folder / "figures" / "radar.png")
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return write_report(folder, images=results_folder.images, per_task=3)


def data_of(text: str) -> dict:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(found)


def test_the_page_holds_what_the_folder_holds(page):
    outline = Outline(page.read_text())
    text = page.read_text()
    for heading in (
        "What was run",
        "Tables",
        "Statistics",
        "Analysis",
        "Cost",
        "Figures",
        "Samples",
    ):
        assert f"<h2>{heading}</h2>" in text
    assert len(outline.all("figure")) == 1
    assert "a computer" in text
    data = data_of(text)
    assert [task["shown"] for task in data["tasks"]] == [3] * 4
    assert [task["documents"] for task in data["tasks"]] == [8] * 4
    assert len(data["samples"]) == 12
    assert all(len(sample["answers"]) == 10 for sample in data["samples"])
    assert all(sample["images"] for sample in data["samples"])
    assert len(data["pictures"]) < len(data["samples"])


def test_nothing_is_loaded_and_only_our_script_may_run(page):
    text = page.read_text()
    outline = Outline(text)
    for tag, attributes in outline.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "action", "data"):
                assert (value or "").startswith(("#", "data:")), (tag, value)
    assert [one.get("type") for one in outline.all("script")] == ["application/json", None]
    (policy,) = [one for one in outline.all("meta") if one.get("http-equiv")]
    digest = base64.b64encode(hashlib.sha256(outline.scripts[1].encode()).digest()).decode()
    assert "default-src 'none'" in (policy["content"] or "")
    assert f"script-src 'sha256-{digest}'" in (policy["content"] or "")
    assert "innerHTML" not in text


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evil") / "results"
    results_folder.write_folder(
        folder, models=("tiny",), title=EVIL, prompt=EVIL, target=EVIL, answer=EVIL + "x" * 10_000
    )
    return write_report(folder, images=results_folder.images, per_task=2)


def test_what_models_say_is_text(evil):
    text = evil.read_text()
    outline = Outline(text)
    assert len(outline.all("script")) == 2
    assert not [one for one in outline.all("img") if one.get("src") == "x"]
    assert "<script>window" not in text
    data = data_of(text)
    assert EVIL in data["texts"]
    assert any(one.startswith(EVIL) and "characters)" in one for one in data["texts"])
    assert "49" not in re.sub(r"[^{]*", "", text)
    assert "{{ 7*7 }}" in text


def test_fewer_samples_where_the_page_would_be_too_large(tmp_path):
    folder = results_folder.write_folder(tmp_path / "results")

    def noisy(places):
        return {place: [Image.effect_noise((160, 160), 90)] for place in places}

    whole = write_report(folder, images=noisy, per_task=8).stat().st_size
    path = write_report(folder, images=noisy, per_task=8, largest=int(0.8 * whole))
    data = data_of(path.read_text())
    assert path.stat().st_size <= 0.8 * whole
    assert 1 <= data["tasks"][0]["shown"] < 8
    assert f"up to {data['tasks'][0]['shown']} documents" in path.read_text()
    tiny = write_report(folder, images=noisy, per_task=8, largest=10)
    assert [task["shown"] for task in data_of(tiny.read_text())["tasks"]] == [1] * 4


def test_records_and_manifest_are_enough(tmp_path):
    folder = results_folder.write_folder(tmp_path / "results")
    for path in folder.iterdir():
        if path.name not in ("records.csv", "manifest.json"):
            path.unlink()
    text = write_report(folder, images=results_folder.images).read_text()
    assert "no samples.parquet" in text
    assert "<h2>Tables</h2>" in text
    for heading in ("Statistics", "Analysis", "Cost", "Figures"):
        assert f"<h2>{heading}</h2>" not in text
    with pytest.raises(ValueError, match="per_task must be at least 1, got 0"):
        write_report(folder, per_task=0)
    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match="is no manifest"):
        write_report(folder, images=results_folder.images)


@pytest.fixture(scope="module")
def browser():
    with Browser() as started:
        yield started


VISIBLE = "Array.from(document.querySelectorAll('{}')).filter(e => e.offsetParent !== null).length"


def choose(browser, **settings):
    """Set filters, and return how many samples fit."""
    for name, value in settings.items():
        field = f"document.getElementById('f-{name}')"
        kind = "checked" if isinstance(value, bool) else "value"
        browser.run(f"{field}.{kind} = {json.dumps(value)}")
    form = "document.getElementById('filters')"
    browser.run(f"{form}.dispatchEvent(new Event('input', {{bubbles: true}}))")
    count = browser.run("document.getElementById('count').textContent")
    return int(count.split()[0])


@opened
def test_the_filters_find_what_they_say(page, browser):
    browser.open(page)
    data = data_of(page.read_text())
    assert choose(browser) == 12
    assert browser.run("document.querySelectorAll('.sample').length") == 10
    assert browser.run("document.getElementById('less').hidden") is True
    browser.run("document.getElementById('more').click()")
    assert browser.run("document.querySelectorAll('.sample').length") == 2
    assert browser.run("document.getElementById('more').hidden") is True
    assert "12 of 12 samples fit; 11 to 12 are shown" in browser.run(
        "document.getElementById('count').textContent"
    )
    browser.run("document.getElementById('less').click()")
    assert browser.run("document.querySelectorAll('.sample').length") == 10
    best = [task["best"] for task in data["tasks"]]
    base = 0
    for setting in (1, 5):
        for outcome in ("right", "wrong", "worse", "better"):
            want = 0
            for sample in data["samples"]:
                value = {a[1]: a[3] for a in sample["answers"]}
                full = best[sample["task"]]
                want += {
                    "right": full is not None and value[setting] >= full / 2,
                    "wrong": full is not None and value[setting] < full / 2,
                    "worse": value[setting] < value[base],
                    "better": value[setting] > value[base],
                }[outcome]
            assert choose(browser, setting=str(setting), outcome=outcome) == want, (
                setting,
                outcome,
            )
    browser.run("document.querySelector('#filters button[type=reset]').click()")
    assert browser.run("new Promise(done => setTimeout(() => done(1), 50))") == 1
    assert choose(browser, task="1") == 3
    assert choose(browser, task="", disagree=True) == sum(s["disagree"] for s in data["samples"])
    assert choose(browser, disagree=False, text="WHAT OF 3") == sum(
        data["texts"][s["question"]] == "What of 3?" for s in data["samples"]
    )
    assert choose(browser, text="nobody said this") == 0
    assert browser.complaints() == []


@opened
def test_kept_patches_lie_where_they_were_kept(page, browser, folder):
    browser.open(page)
    choose(browser, text="", task="0")
    buttons = "document.querySelectorAll('button[data-setting]')"
    assert browser.run(f"{buttons}.length") > 0
    name = browser.run(f"{buttons}[0].closest('article').getAttribute('aria-label')")
    browser.run(f"{buttons}[0].click()")
    assert browser.run(f"{buttons}[0].getAttribute('aria-pressed')") == "true"
    doc, label = int(name.split()[-1]), browser.run(f"{buttons}[0].getAttribute('aria-label')")
    kept = results_folder.diagnostics()
    shown = label.removeprefix("patches kept by ")
    called = Names(results_folder.SETTINGS)
    (setting,) = [row for row in kept["row"].unique() if called.setting(row) == shown]
    line = kept[(kept["cluster"] == f"gqa {doc // 2}") & (kept["setting"] == setting)].iloc[0]
    card = f"{buttons}[0].closest('article')"
    assert browser.run(f"{card}.querySelector('svg').getAttribute('viewBox')") == "0 0 60 60"
    veil = browser.run(f"{card}.querySelector('[data-overlay]').getAttribute('d')")
    dropped = {(float(x) // 15, float(y) // 15) for x, y in re.findall(r"M(\S+) (\S+?)h", veil)}
    assert dropped == {(i % 4, i // 4) for i in range(16) if i not in set(line["kept"])}
    picture = f"{card}.querySelector('image')"
    assert browser.run(f"{picture}.getAttribute('y')") == "10"  # padded to a square
    said = browser.run(f"{card}.querySelector('.says').textContent")
    assert said == f"{shown} keeps {len(line['kept'])} of 16 patches."
    browser.run(f"{buttons}[1].click()")
    assert browser.run(f"{card}.querySelectorAll('[aria-pressed=true]').length") == 1
    browser.run(f"{buttons}[1].click()")
    assert browser.run(f"{card}.querySelectorAll('[data-overlay]').length") == 0


@opened
def test_tables_sort_and_empty_cells_stay_last(page, browser):
    browser.open(page)
    table = "document.querySelector('#statistics table')"
    cells = f"Array.from({table}.tBodies[0].rows, row => row.cells[{{0}}].dataset.value)"
    head = f"{table}.tHead.rows[0].cells[3]"
    assert browser.run(f"{head}.textContent") == "a − b"
    for sort, descending in (("descending", True), ("ascending", False)):
        browser.run(f"{head}.querySelector('button').click()")
        values = [float(one) for one in browser.run(cells.format(3))]
        assert values == sorted(values, reverse=descending)
        assert len(set(values)) > 1
        assert browser.run(f"{head}.getAttribute('aria-sort')") == sort


@opened
def test_what_models_say_runs_nowhere_and_is_shown_letter_by_letter(evil, browser):
    browser.open(evil)
    data = data_of(evil.read_text())
    assert browser.run("typeof window.pwned") == "undefined"
    assert browser.run("document.title.startsWith('</script><script>')") is True
    shown = browser.run(
        "Array.from(document.querySelectorAll('.sample dd.text'), e => e.textContent)"
    )
    assert set(shown) == {EVIL}
    answers = browser.run(
        "Array.from(document.querySelectorAll('.sample .answer div'), e => e.textContent)"
    )
    # Of many settings a card shows some; pages hold ten cards.
    assert set(answers) == {one for one in data["texts"] if one.startswith(EVIL + "x")}
    assert choose(browser, text=EVIL) == len(data["samples"])
    assert browser.run("document.querySelectorAll('.sample script, .sample img').length") == 0
    assert browser.run("typeof window.pwned") == "undefined"
    assert browser.complaints() == []
    wide = browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert wide is True


@opened
def test_the_page_asks_for_nothing(page, browser):
    browser.open(page)
    choose(browser)
    asked = [url for url in browser.requested() if not url.startswith("data:")]
    assert asked == [page.resolve().as_uri()]


@opened
def test_without_scripts_the_tables_are_there(page, browser):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        assert browser.run(VISIBLE.format("table.scores")) >= 3
        assert browser.run(VISIBLE.format("#filters, #more")) == 0
        assert "needs JavaScript" in browser.run("document.querySelector('noscript').textContent")
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


@opened
def test_everything_to_press_has_a_name(page, browser):
    browser.open(page)
    choose(browser)
    browser.call("Accessibility.enable")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "combobox", "checkbox", "searchbox", "link", "textbox", "image"}
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored") and node.get("role", {}).get("value") in roles
    ]
    assert len(named) > 20
    assert [one for one in named if not one[1].strip()] == []
    assert {role for role, _ in named} >= {"button", "combobox", "checkbox", "searchbox", "image"}


@opened
@pytest.mark.parametrize(("theme", "light"), [("light", True), ("dark", False)])
def test_it_is_drawn_in_light_and_dark(page, browser, tmp_path, theme, light):
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.call("Emulation.setEmulatedMedia", features=features)
    try:
        browser.open(page)
        choose(browser)
        browser.screenshot(tmp_path / "page.png")
    finally:
        browser.call("Emulation.setEmulatedMedia", features=[])
    with Image.open(tmp_path / "page.png") as picture:
        colours = picture.convert("L").getcolors()
    most = max(colours)[1]
    assert most > 240 if light else most < 40
    assert len(colours) > 50


@opened
def test_figures_grow_and_shrink(page, browser):
    browser.open(page)
    assert browser.run("document.querySelector('figure img').naturalWidth") == 300
    button = "document.querySelector('figure button')"
    for pressed in (True, False):
        browser.run(f"{button}.click()")
        wide = "document.querySelector('figure').classList.contains('wide')"
        assert browser.run(wide) is pressed
        assert browser.run(f"{button}.getAttribute('aria-pressed')") == str(pressed).lower()


METHODS = ("otprune", "divprune", "dpp", "herding", "kmedoids", "grid", "first_k", "last_k",
           "fastervlm", "vispruner", "scope", "holov", "mmtok", "visionzip", "tome", "pooling",
           "downsample", "fastv", "pyramiddrop", "transprune", "sparsevlm", "dart", "tops", "vtw",
           "random", "uniform")  # fmt: skip


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A page of 79 settings, three of them with kept patches, and 4875 paired differences."""
    folder = tmp_path_factory.mktemp("many") / "results"
    configs = [PruningConfig.make(name, ratio) for name in METHODS for ratio in (0.3, 0.4, 0.5)]
    settings = [PruningConfig().columns(), *(one.columns() for one in configs)]
    results_folder.write_folder(folder, settings, title="A title of one long word: " + "x" * 90)
    rows = [one.row for one in configs]
    pairs = [
        {"model": "tiny", "budget": "0.3", "task": task, "a": a, "b": b, "difference": place,
         "low": -1.0, "high": 2.0, "test": "bootstrap", "p": 0.5, "p_holm": 0.5, "documents": 8,
         "discordant": 3}
        for task in (*results_folder.METRICS, "all")
        for place, (a, b) in enumerate(itertools.combinations(rows[::3], 2))
    ]  # fmt: skip
    pd.DataFrame(pairs).to_csv(folder / "pairs.csv", index=False)
    kept = pd.read_parquet(folder / "diagnostics.parquet")
    # The first image of each task has none.
    kept = kept[kept["row"].isin(rows[:3]) & ~kept["cluster"].str.endswith(" 0")]
    kept.to_parquet(folder / "diagnostics.parquet", index=False)
    return write_report(folder, images=results_folder.images, per_task=6)


def nodes(browser):
    return browser.run("document.querySelectorAll('*').length")


def test_the_first_screen_is_what_was_found(folder, page):
    text = page.read_text()
    place = {one: text.index(f'<section id="{one}"') for one in ("finding", "tables", "run")}
    assert place["finding"] < place["tables"] < place["run"]
    first = text[place["finding"] : place["tables"]]
    averages = pd.read_csv(folder / "averages.csv").set_index("row")
    for row in ("otprune-0.5", "divprune-0.125", "random-0.25"):
        value, low, high = averages.loc[row, ["value", "low", "high"]]
        assert f"{value:.1f} [{low:.1f}, {high:.1f}]" in first
    assert "Controls, which a method must beat at equal tokens: random" in first
    # Methods by the score at the first budget.
    order = re.findall(r'<th scope="row" data-value="([^"]+)"', first)
    budget = first[first.index("<thead>") :].split("<span>")[0]
    assert sorted(order) == ["DivPrune", "OTPrune", "Random"], budget


def test_of_many_methods_the_first_screen_has_the_best_and_the_controls(many):
    text = many.read_text()
    first = text[text.index('<section id="finding"') : text.index('<section id="tables"')]
    assert re.search(r"\d+ of 26 rows: the best, OTPrune", first)
    assert len(re.findall(r'<th scope="row"', first)) < 15


@opened
@pytest.mark.parametrize("which", ["many", "page", "evil"])
def test_a_phone_shows_all_of_its_width_and_no_more(which, request, browser, tmp_path):
    opened_page = request.getfixturevalue(which)
    phone = {"width": 375, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.call("Emulation.setDeviceMetricsOverride", **phone)
    try:
        for path in (opened_page, opened_page.with_name("table.html")):
            if path.is_file():
                browser.open(path)
                assert browser.run("innerWidth") == 375
                assert browser.run("document.documentElement.scrollWidth") == 375
        browser.open(opened_page)
        card = "document.querySelector('.sample')"
        assert browser.run(f"{card}.querySelector('svg, .says').getBoundingClientRect().top") < (
            browser.run(f"{card}.querySelector('table').getBoundingClientRect().top")
        )
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")


@opened
def test_of_many_settings_a_page_builds_a_few_thousand_nodes_at_a_time(many, browser):
    browser.open(many)
    assert nodes(browser) < 5000
    # The samples with patches come first.
    data = data_of(many.read_text())
    known = [any(one is not None for one in sample["kept"]) for sample in data["samples"]]
    assert known == sorted(known, reverse=True)
    assert 0 < sum(known) < len(known)
    rows = "document.querySelectorAll('.sample tbody')[{}].rows.length"
    button = "document.querySelectorAll('.sample button.all')[{}]"
    assert browser.run(rows.format(0)) == 8
    for place in (0, 1):
        assert browser.run(f"{button.format(place)}.textContent") == "all 79 answers"
        browser.run(f"{button.format(place)}.click()")
        assert browser.run(rows.format(place)) == 79
    assert browser.run(rows.format(0)) == 8, "the other is folded again"
    browser.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    browser.run("new Promise(done => setTimeout(done, 100))")
    assert nodes(browser) < 8000
    sheet = "document.querySelector('#statistics .sheet')"
    shown = f"Array.from({sheet}.querySelectorAll('tbody tr'), row => row.cells[3].textContent)"
    pairs = len(METHODS) * (len(METHODS) - 1) // 2
    said = f"{sheet}.querySelector('.turn span').textContent"
    assert browser.run(said) == f"rows 1 to 25 of {pairs}"
    browser.run(f"{sheet}.querySelectorAll('thead button')[3].click()")
    assert [float(one) for one in browser.run(shown)] == list(range(pairs - 1, pairs - 26, -1))
    browser.run(f"{sheet}.querySelectorAll('.turn button')[1].click()")
    assert [float(one) for one in browser.run(shown)] == list(range(pairs - 26, pairs - 51, -1))
    assert browser.run(said) == f"rows 26 to 50 of {pairs}"
    assert browser.complaints() == []


@opened
def test_long_tables_say_where_their_rows_are_without_scripts(many, browser):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(many)
        said = browser.run("document.querySelector('#statistics noscript').textContent")
        assert "325 rows of this table need JavaScript; pairs.csv has them too" in said
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
