"""The leaderboard, read as text and opened in a browser."""

import dataclasses
import itertools
import re

import pandas as pd
import pytest

import results_folder
from browser import CHROMIUM, Browser
from otprune_lmms.reporting.leaderboard import write_leaderboard
from otprune_lmms.reporting.leaderboard.entries import Number, read_source
from otprune_lmms.reporting.report import write_report
from otprune_lmms.results.submission import SUBMISSION, write_submission

opened = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
PRUNED, ALL = 9, 10
EVIL = "<script>window.pwned=1</script>\"'&amp;"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("results")
    first = results_folder.write_folder(place / "first")
    write_report(first, images=results_folder.images, per_task=2)
    second = results_folder.write_folder(place / "second one", models=("large",), title=EVIL)
    for name in ("cost.csv", "pairs.csv", "intervals.csv", "averages.csv"):
        (second / name).unlink()
    return [first, second]


@pytest.fixture(scope="module")
def page(folders, tmp_path_factory):
    return write_leaderboard(folders, tmp_path_factory.mktemp("site"))


def test_lines_have_the_numbers_of_the_tables(folders):
    source = read_source(folders[0])
    averages = pd.read_csv(folders[0] / "averages.csv").set_index("row")
    assert len(source.lines) == ALL
    for line in source.lines:
        assert line.average.value == pytest.approx(averages["value"][line.setting])
        assert set(line.scores) == {"GQA", "POPE", "MME-P", "COCO"}
        if line.method is not None:
            assert line.average.low == pytest.approx(averages["low"][line.setting])
            assert line.share == pytest.approx(100 * float(line.setting.rpartition("-")[2]))
        assert line.control == (line.method == "random")
        assert line.suite == "mini"


def test_times_are_those_of_one_request_and_of_the_whole_answer(folders):
    cost = pd.read_csv(folders[0] / "cost.csv")
    cost = cost[cost["batch"] == 1].set_index("row")
    found = {line.setting: line.speedup for line in read_source(folders[0]).lines}
    measured = {row: speed for row, speed in found.items() if speed is not None}
    assert measured
    for row, speed in measured.items():
        assert speed.value == pytest.approx(cost["answer_speedup"][row])
        assert speed.low == pytest.approx(cost["answer_speedup_low"][row])
    assert all(line.speedup is None for line in read_source(folders[1]).lines)


@pytest.mark.parametrize(
    ("difference", "p", "expected"), [(4.0, 0.01, True), (-4.0, 0.01, False), (4.0, 0.06, None)]
)
@pytest.mark.parametrize("turned", [False, True])
def test_what_a_paired_test_decides(difference, p, expected, turned, folders, tmp_path):
    folder = results_folder.write_folder(tmp_path / "one")
    a, b = ("random-0.25", "otprune-0.25") if turned else ("otprune-0.25", "random-0.25")
    line = {"model": "tiny", "budget": 0.25, "task": "all", "a": a, "b": b}
    line |= {"difference": -difference if turned else difference, "p_holm": p}
    pd.DataFrame([line]).to_csv(folder / "pairs.csv", index=False)
    better = {one.setting: one.better for one in read_source(folder).lines}
    assert better["otprune-0.25"] == {"random": expected}
    opposite = None if expected is None else not expected
    # The control has no control of its own kind; other budgets were not tested.
    assert better["random-0.25"] == {}
    assert better["otprune-0.5"] == better["divprune-0.25"] == {}
    assert opposite is None or opposite != expected


def test_without_statistics_there_are_no_intervals_and_no_tests(folders):
    for line in read_source(folders[1]).lines:
        assert line.average == Number(line.average.value)
        assert line.better == {}


def test_the_page_is_one_file_beside_the_reports_it_leads_to(page, folders):
    text = page.read_text()
    assert sorted(path.name for path in page.parent.iterdir()) == ["first", "index.html"]
    assert (page.parent / "first" / "report.html").read_bytes() == (
        folders[0] / "report.html"
    ).read_bytes()
    links = re.findall(r'href="(first/report.html[^"]*)"', text)
    assert len(links) == ALL + 1
    assert "first/report.html#samples&amp;setting=OTPrune+0.25&amp;model=tiny" in links
    assert "second" in text
    assert 'href="second' not in text
    assert EVIL not in text
    assert "default-src 'none'" in text


def test_folders_need_names_of_their_own(folders, tmp_path):
    with pytest.raises(ValueError, match="got first twice"):
        write_leaderboard([folders[0], folders[0]], tmp_path)
    with pytest.raises(ValueError, match="got none"):
        write_leaderboard([], tmp_path)


def test_a_submission_that_was_changed_is_refused(folders, tmp_path):
    write_submission(folders[0], tmp_path / "sent")
    page = write_leaderboard([tmp_path / "sent"], tmp_path / "site")
    assert re.search(r"<dt>answers</dt><dd>[0-9a-f]{64}</dd>", page.read_text())
    text = (tmp_path / "sent" / "records.csv").read_text()
    (tmp_path / "sent" / "records.csv").write_text(text.replace("0.9", "0.8", 1))
    with pytest.raises(ValueError, match=r"records.csv must be the file that was submitted"):
        write_leaderboard([tmp_path / "sent"], tmp_path / "site")
    assert (tmp_path / "sent" / SUBMISSION).is_file()


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


VISIBLE = "Array.from(document.querySelectorAll('#table tbody tr:not([hidden])'))"
NAMES = f"{VISIBLE}.map(row => row.cells[0].getAttribute('data-value'))"


def choose(browser, name, value):
    browser.run(
        f"(() => {{ const one = document.getElementById('{name}');"
        f" if (one.type === 'checkbox') {{ one.checked = {str(value).lower()}; }}"
        f" else {{ one.value = '{value}'; }}"
        " one.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


@opened
def test_it_opens_alone_and_without_complaint(page, browser):
    browser.open(page)
    assert browser.complaints() == []
    assert browser.requested() == [page.resolve().as_uri()]
    assert browser.run("window.pwned === undefined")
    assert browser.run("document.getElementById('count').textContent") == "20 of 20 settings"
    # Only one folder has measured times, and of it not the others' settings.
    speeds = len(browser.run(f"{VISIBLE}.filter(row => row.dataset.speed).map(row => 1)"))
    assert browser.run("document.querySelectorAll('#plot circle').length") == speeds > 1


@opened
def test_filters_and_the_picture_go_together(page, browser):
    browser.open(page)
    choose(browser, "f-axis", "share")
    circles = "document.querySelectorAll('#plot circle').length"
    assert browser.run(circles) == 20
    choose(browser, "f-model", "large")
    assert browser.run(circles) == len(browser.run(NAMES)) == ALL
    choose(browser, "f-share", "30")
    assert all(name.endswith(("0.125", "0.25")) for name in browser.run(NAMES))
    choose(browser, "f-text", "divprune")
    assert browser.run(NAMES) == ["DivPrune 0.25", "DivPrune 0.125"]
    choose(browser, "f-axis", "speed")
    assert browser.run(circles) == 0
    assert "None of these settings has a measured time" in browser.run(
        "document.getElementById('plot-says').textContent"
    )
    browser.run("document.querySelector('#filters button[type=reset]').click()")
    browser.run("new Promise(done => setTimeout(done, 50))")
    assert len(browser.run(NAMES)) == 20
    assert browser.complaints() == []


@opened
def test_only_what_is_better_than_every_control(folders, browser, tmp_path):
    folder = results_folder.write_folder(tmp_path / "one")
    ahead = {"model": "tiny", "budget": 0.25, "task": "all", "b": "random-0.25", "difference": 4.0}
    tests = [ahead | {"a": "otprune-0.25", "p_holm": 0.01}]
    tests.append(ahead | {"a": "divprune-0.25", "p_holm": 0.3})
    pd.DataFrame(tests).to_csv(folder / "pairs.csv", index=False)
    browser.open(write_leaderboard([folder], tmp_path / "site"))
    choose(browser, "f-better", True)
    assert browser.run(NAMES) == ["OTPrune 0.25"]


@opened
def test_headings_sort_by_keyboard(page, browser):
    browser.open(page)
    heads = browser.run(
        "Array.from(document.querySelectorAll('#table thead button'), one => one.textContent)"
    )
    place = heads.index("score")
    browser.run(f"document.querySelectorAll('#table thead button')[{place}].focus()")
    for key in ("rawKeyDown", "char", "keyUp"):
        browser.call(
            "Input.dispatchKeyEvent", type=key, key="Enter", code="Enter", text="\r",
            windowsVirtualKeyCode=13,
        )  # fmt: skip
    shown = browser.run(f"{VISIBLE}.map(row => Number(row.cells[{place}].dataset.value))")
    assert shown == sorted(shown, reverse=True)


@opened
def test_a_phone_in_the_dark(page, browser):
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.call("Emulation.setDeviceMetricsOverride", **phone)
    browser.call("Emulation.setEmulatedMedia", features=dark)
    try:
        browser.open(page)
        assert browser.run("document.documentElement.scrollWidth") == 390
        ground = browser.run("getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(21, 23, 27)"
        assert browser.run("document.getElementById('plot').viewBox.baseVal.width") <= 390
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")
        browser.call("Emulation.setEmulatedMedia", features=[])


@opened
def test_two_clicks_lead_from_a_number_to_the_answers_behind_it(page, browser):
    browser.open(page)
    link = "document.querySelector('a[href*=\"setting=OTPrune+0.25\"]')"
    browser.open(page.parent / "first" / "report.html")
    assert browser.run("document.getElementById('f-outcome').value") == ""
    browser.open(page)
    target = browser.run(f"{link}.getAttribute('href')").partition("#")[2]
    browser.run(f"{link}.click()")
    browser.run("new Promise(done => setTimeout(done, 500))")
    assert browser.run("location.hash") == f"#{target}"
    assert browser.run("document.getElementById('f-outcome').value") == "wrong"
    chosen = "document.getElementById('f-setting').selectedOptions[0].textContent"
    assert browser.run(chosen) == "OTPrune 0.25"
    assert browser.run("document.querySelectorAll('.sample').length") > 0
    assert browser.run("document.getElementById('samples').getBoundingClientRect().top") < 200


def test_settings_are_told_apart(folders):
    lines = list(itertools.chain.from_iterable(read_source(one).lines for one in folders))
    places = [(line.folder, line.model, line.name) for line in lines]
    assert len(set(places)) == len(places) == 20
    assert {dataclasses.replace(line).method for line in lines} == {
        None, "otprune", "divprune", "random",
    }  # fmt: skip
