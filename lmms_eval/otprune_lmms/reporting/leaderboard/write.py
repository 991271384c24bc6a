"""The leaderboard as files: ``index.html``, and the report of each folder that has one."""

import base64
import hashlib
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jinja2
from markupsafe import Markup

from otprune_lmms.files import atomic_write, write_text
from otprune_lmms.reporting.escape import shown
from otprune_lmms.reporting.leaderboard.entries import BEATS, Line, Number, Source, read_source
from otprune_lmms.reporting.report import REPORT, own_style
from otprune_lmms.reporting.tables.render import html as tables_html
from otprune_lmms.results.names import CONTROLS, method_name
from otprune_lmms.results.submission import check_submission

PAGE = "index.html"

_HERE = Path(__file__).parent


def write_leaderboard(folders: Sequence[Path], target: Path) -> Path:
    """Write the page of some results folders; return its path.

    One file that needs no network: a picture of score against measured time, and a table that
    sorts and filters. Beside it lies the ``report.html`` of each folder that has one, to which the
    lines' names lead.

    Args:
        folders: results folders, or what `otprune submit` made of them.
        target: folder of the page; what it holds of other names stays.

    Raises:
        ValueError: no folder, two of one name, one without records or manifest, or a submission
            whose files are not those that were submitted.
        OutputError: a file cannot be written.
    """
    twice = [name for name, count in Counter(one.name for one in folders).items() if count > 1]
    if twice or not folders:
        got = f"{twice[0]} twice" if twice else "none"
        raise ValueError(f"folders must be at least one and have names of their own, got {got}")
    signatures = {folder.name: check_submission(folder) for folder in folders}
    sources = [read_source(folder) for folder in folders]
    reports = {folder.name for folder in folders if (folder / REPORT).is_file()}
    for folder in folders:
        if folder.name in reports:
            with atomic_write(target / folder.name / REPORT) as place:
                shutil.copyfile(folder / REPORT, place)
    write_text(target / PAGE, _page(sources, reports, signatures))
    return target / PAGE


def _page(sources: Sequence[Source], reports: set[str], signatures: dict[str, str | None]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        finalize=shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = tables_html.script() + _own("page.js")
    digits = {name: count for one in sources for name, count in one.digits.items()}
    lines = [line for one in sources for line in one.lines]
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html.j2").render(
        lines=[_shown(line, digits, reports) for line in lines],
        tasks=list(digits),
        models=list(dict.fromkeys(line.model for line in lines)),
        suites=list(dict.fromkeys(line.suite for line in lines)),
        sources=[_origin(one, one.name in reports, signatures[one.name]) for one in sources],
        controls=[method_name(name) for name in CONTROLS],
        beats=[method_name(name) for name in BEATS],
        style=Markup(tables_html.style() + own_style() + _own("page.css")),
        script=Markup(script),
        script_hash=f"sha256-{hashed}",
    )


def _origin(source: Source, has_report: bool, signature: str | None) -> dict[str, Any]:
    return {
        "name": source.name,
        "title": source.manifest.title,
        "origin": source.manifest.origin,
        "report": f"{source.name}/{REPORT}" if has_report else None,
        "signature": signature,
    }


def _shown(line: Line, digits: dict[str, int], reports: set[str]) -> dict[str, Any]:
    """Return a line's texts and numbers as the template has them."""
    place = urlencode({"setting": line.name, "model": line.model})
    report = f"{quote(line.folder)}/{REPORT}#samples&{place}"
    return {
        "folder": line.folder,
        "suite": line.suite,
        "model": line.model,
        "name": line.name,
        "method": line.method or "",
        "control": line.control,
        "pruned": line.method is not None,
        "report": report if line.folder in reports else None,
        "tokens": _text(line.tokens, 1),
        "share": line.share,
        "macs": _text(line.multiply_adds, 1),
        "average": _cell(line.average, 1),
        "speedup": None if line.speedup is None else _cell(line.speedup, 2),
        "better": [_better(line, name) for name in BEATS],
        "scores": [_cell(line.scores.get(name, Number(None)), digits[name]) for name in digits],
        "seeds": line.seeds,
    }


def _better(line: Line, control: str) -> dict[str, str]:
    """Return what is said of a line against a control: text, value to sort by, and class."""
    if control not in line.better:
        return {"text": "", "value": "", "kind": ""}
    return {
        True: {"text": "better", "value": "1", "kind": "good"},
        False: {"text": "worse", "value": "-1", "kind": "bad"},
        None: {"text": "not separated", "value": "0", "kind": ""},
    }[line.better[control]]


def _cell(number: Number, digits: int) -> dict[str, str]:
    limits = ""
    if number.low is not None and number.high is not None:
        limits = f"[{number.low:.{digits}f}, {number.high:.{digits}f}]"
    return {
        **_text(number.value, digits),
        "low": "" if number.low is None else repr(number.low),
        "high": "" if number.high is None else repr(number.high),
        "limits": limits,
    }


def _text(value: float | None, digits: int) -> dict[str, str]:
    if value is None:
        return {"text": "–", "value": "", "limits": ""}
    return {"text": f"{value:.{digits}f}", "value": repr(value), "limits": ""}


def _own(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
