"""Pruning the visual tokens of a trained image-to-LaTeX model that is not ours, on drawn formulas.

    .venv/bin/python scripts/study_latex.py read --package work/latex-ocr
    .venv/bin/python scripts/study_latex.py distances
    .venv/bin/python scripts/study_latex.py page --out results/latex

`read` installs latex-ocr-junia 0.1.3 (87 MB, PyPI) into the folder of ``--package``, draws the
formulas of a seeded generator, reads each with all 1024 visual tokens and then with what every
setting keeps of them before the decoder's cross-attention. `distances` measures how far kept tokens
are from all tokens. Both go on where they were interrupted, and ``--part 0/2`` and ``1/2`` share
the settings between two processes. `page` writes formulas.csv, distances.csv and the tables, which
follow from these two files alone. docs/documents.md says what the tables mean.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from otprune_lmms import provenance
from otprune_lmms.experiments.diagnostics.measures import FullSet

from bench_common import ROOT, write_tables
from latex.formulas import draw, make_formulas
from latex.measures import content, edit_distance
from latex.reader import Reader, fit, install, load_reader, repeats
from latex.settings import Kernel, Picture, Setting, all_settings, kept_shares
from latex.tables import NOTES, all_tables
from otprune import resolve_budget

LONGEST = 160
"""Characters of a reading; one that goes on is cut, the unpruned one too."""

DISTANCES = {
    "exact W2": "exact_w2",
    "Gaussian W2, zero mean": "gaussian_w2_zero_mean",
    "coverage": "coverage",
    "effective rank": "effective_rank",
}
"""Quantities as in docs/analysis.md, by the fields of `Measures`."""

_NUMBERS_AT_ONCE = 8192
"""Visual tokens of the images that are read together: their keys stay in the cache."""

app = typer.Typer(add_completion=False, no_args_is_help=True)

Work = Annotated[Path, typer.Option(help="folder of intermediate files")]
Part = Annotated[str, typer.Option(help="which share of the settings, such as 0/2")]


@app.command()
def read(
    package: Annotated[Path, typer.Option(help="folder to install the package into")],
    work: Work = ROOT / "outputs" / "latex",
    count: Annotated[int, typer.Option(min=1, help="formulas")] = 200,
    seed: Annotated[int, typer.Option(help="of the formulas; 1 was looked at beforehand")] = 0,
    part: Part = "0/1",
) -> None:
    """Read all formulas under every setting."""
    torch.set_num_threads(1)
    install(package)
    reader = load_reader(package)
    pictures, whole = look(reader, work, count, seed)
    (work / "readings").mkdir(exist_ok=True)
    for setting in share(all_settings(), part):
        file = work / "readings" / f"{setting.label}.json"
        if file.exists():
            continue
        found = read_pruned(reader, pictures, whole, setting)
        same = np.mean(
            [content(a) == content(b) for a, b in zip(found["texts"], whole, strict=True)]
        )
        print(f"{setting.label}: the same drawing {same:.3f}", flush=True)
        _store(file, found)


def look(reader: Reader, work: Path, count: int, seed: int) -> tuple[list[Picture], list[str]]:
    """Return all images, encoded, and what the unpruned model reads in them; made once."""
    file = work / f"unpruned-{count}-{seed}.pt"
    if not file.exists():
        work.mkdir(parents=True, exist_ok=True)
        formulas = make_formulas(count, seed)
        fitted = [fit(draw(formula), reader.height, reader.width) for formula in formulas]
        tokens = torch.cat([reader.encode([canvas]) for canvas, _ in fitted])
        texts = [text for some in tokens.split(8) for text in reader.read(some, LONGEST)]
        attention = [
            reader.attention(image, text) for image, text in zip(tokens, texts, strict=True)
        ]
        whole = {
            "formulas": formulas,
            "tokens": tokens,
            "kinds": torch.tensor(np.stack([kinds for _, kinds in fitted])),
            "attention": torch.stack(attention),
            "texts": texts,
        }
        part = file.with_suffix(f".{torch.randint(10**9, ()).item()}")
        torch.save(whole, part)
        part.rename(file)
    stored = torch.load(file, weights_only=True)
    each = zip(stored["tokens"], stored["kinds"], stored["attention"], strict=True)
    pictures = [Picture(i, reader.grid, *parts) for i, parts in enumerate(each)]
    _store(work / "formulas.json", {"formulas": stored["formulas"], "texts": stored["texts"]})
    return pictures, stored["texts"]


def read_pruned(
    reader: Reader, pictures: list[Picture], whole: list[str], setting: Setting
) -> dict[str, Any]:
    """Return a setting's readings, and what shares of which tokens it kept, image by image."""
    k = resolve_budget(len(pictures[0].tokens), keep_ratio=setting.ratio)
    kept = [setting.rule(picture, k).sort().values for picture in pictures]
    # Images whose readings end together are read together.
    order = sorted(range(len(pictures)), key=lambda i: len(whole[i]))
    size = max(8, _NUMBERS_AT_ONCE // k)
    texts = dict.fromkeys(order, "")
    for start in range(0, len(order), size):
        some = order[start : start + size]
        left = torch.stack([pictures[i].tokens[kept[i]] for i in some])
        texts.update(zip(some, reader.read(left, LONGEST), strict=True))
    return {
        "texts": [texts[i] for i in range(len(pictures))],
        "shares": [kept_shares(*pair) for pair in zip(pictures, kept, strict=True)],
    }


@app.command()
def distances(
    work: Work = ROOT / "outputs" / "latex",
    count: Annotated[int, typer.Option(help="formulas that were read")] = 200,
    seed: Annotated[int, typer.Option(help="of the formulas")] = 0,
    images: Annotated[int, typer.Option(min=1, help="formulas measured: the first so many")] = 40,
    part: Part = "0/1",
) -> None:
    """Measure how far the kept tokens of every method are from all tokens."""
    torch.set_num_threads(1)
    stored = torch.load(work / f"unpruned-{count}-{seed}.pt", weights_only=True)
    each = list(zip(stored["tokens"], stored["kinds"], stored["attention"], strict=True))
    pictures = [Picture(i, (16, 64), *parts) for i, parts in enumerate(each[:images])]
    full = [FullSet(picture.tokens) for picture in pictures]
    (work / "distances").mkdir(exist_ok=True)
    methods = [setting for setting in all_settings() if setting.part == "methods"]
    for setting in share(methods, part):
        file = work / "distances" / f"{setting.label}.json"
        if file.exists():
            continue
        k = resolve_budget(len(pictures[0].tokens), keep_ratio=setting.ratio)
        rows = []
        for picture, everything in zip(pictures, full, strict=True):
            found = everything.measure(setting.rule(picture, k).sort().values)
            rows.append({name: getattr(found, field) for name, field in DISTANCES.items()})
        print(setting.label, flush=True)
        _store(file, {"rows": rows})


@app.command()
def page(
    work: Work = ROOT / "outputs" / "latex",
    count: Annotated[int, typer.Option(help="formulas that were read")] = 200,
    seed: Annotated[int, typer.Option(help="of the formulas")] = 0,
    out: Annotated[Path, typer.Option(help="folder of the tables")] = ROOT / "results" / "latex",
) -> None:
    """Write the tables, and the two files that they follow from."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    commits, missing = gather(work, out)
    stored = torch.load(work / f"unpruned-{count}-{seed}.pt", weights_only=True)
    (out / "images.csv").write_text(_images(stored).to_csv(index=False, float_format="%.4g"))
    words = [f"python scripts/study_latex.py {step}" for step in ("read", "distances", "page")]
    origin = provenance.origin(" && ".join(words), "cpu") | {"commit": ", ".join(commits)}
    tables = all_tables(out)
    title = "A trained image-to-LaTeX model, pruned,"
    notes = [*NOTES, "", f"Not read: {', '.join(missing)}."] if missing else NOTES
    print(write_tables(out / "latex", title, origin, tables, notes))


def gather(work: Path, out: Path) -> tuple[list[str], list[str]]:
    """Write formulas.csv and distances.csv from the readings.

    Returns:
        The commits that made them, and the settings that were not read.
    """
    missing: list[str] = []
    whole = json.loads((work / "formulas.json").read_text())
    rows: list[dict] = []
    far: list[dict] = []
    commits: dict[str, None] = {}
    for setting in all_settings():
        file = work / "readings" / f"{setting.label}.json"
        if not file.exists():
            missing.append(setting.label)
            continue
        found = json.loads(file.read_text())
        commits[found["commit"]] = None
        about = {
            "part": setting.part,
            "setting": setting.name,
            "ratio": setting.ratio,
            "seed": setting.seed,
        }
        for i, (text, shares) in enumerate(zip(found["texts"], found["shares"], strict=True)):
            rows.append(about | _reading(i, text, whole) | shares)
        measured = work / "distances" / f"{setting.label}.json"
        if measured.exists():
            some = json.loads(measured.read_text())["rows"]
            far += [about | {"formula": i} | row for i, row in enumerate(some)]
    for name, table in (("formulas", rows), ("distances", far)):
        (out / f"{name}.csv").write_text(
            pd.DataFrame(table).to_csv(index=False, float_format="%.4g")
        )
    return list(commits), missing


def _reading(i: int, text: str, whole: dict) -> dict[str, float]:
    ours, theirs = content(text), content(whole["texts"][i])
    return {
        "formula": i,
        "exact": int(text == whole["texts"][i]),
        "same": int(ours == theirs),
        "edit": edit_distance(ours, theirs),
        "right": int(ours == content(whole["formulas"][i])),
        "looped": int(repeats(list(map(ord, text)))),
    }


def _images(stored: dict) -> pd.DataFrame:
    """Return what the most attended tokens of each unpruned image are like."""
    rows = []
    for i, (tokens, kinds, attention) in enumerate(
        zip(stored["tokens"], stored["kinds"], stored["attention"], strict=True)
    ):
        picture = Picture(i, (16, 64), tokens, kinds, attention)
        right = content(stored["texts"][i]) == content(stored["formulas"][i])
        rows.append({"formula": i, "right": int(right)} | describe(picture))
    return pd.DataFrame(rows)


def describe(picture: Picture) -> dict[str, float]:
    """Return shares and ranks of the most attended tokens of one image.

    Ranks are between 0 (least) and 1: of the length, of the cosine with the mean token, and of M_ii
    in the released kernel. Cosines are means over pairs.
    """
    top, tokens = picture.attended, picture.tokens.double()
    units = torch.nn.functional.normalize(tokens, dim=1)
    cosines = units @ units.T
    n = len(tokens)
    rows, columns = picture.grid
    row, column = top // columns, top % columns
    edge = (row == 0) | (row == rows - 1) | (column == 0) | (column == columns - 1)

    def rank(values: torch.Tensor) -> float:
        return float(values.argsort().argsort()[top].double().mean() / (n - 1))

    found = {
        f"{name} tokens": float((picture.kinds == kind).double().mean())
        for kind, name in enumerate(("black", "paper", "ink"))
    }
    found |= {
        f"attention of {name}": float(picture.attention[picture.kinds == kind].sum())
        for kind, name in enumerate(("black", "paper", "ink"))
    }
    return found | {
        "attention of attended": float(picture.attention[top].sum()),
        "attended with ink": float((picture.kinds[top] == 2).double().mean()),
        "attended at the edge": float(edge.double().mean()),
        "length": rank(tokens.norm(dim=1)),
        "cosine with mean": rank(units @ units.mean(0)),
        "M_ii": rank(Kernel().moments(picture.tokens).diagonal()),
        "cosine among attended": float(cosines[top][:, top].mean()),
        "cosine among all": float(cosines.mean()),
    }


def share(settings: list[Setting], part: str) -> list[Setting]:
    """Return every n-th setting from the i-th on, for the part "i/n".

    Raises:
        BadParameter: no such part.
    """
    first, _, of = part.partition("/")
    if not (first.isdecimal() and of.isdecimal() and int(first) < int(of)):
        raise typer.BadParameter(f"part must be i/n with i < n, got {part}")
    return settings[int(first) :: int(of)]


def _store(file: Path, found: dict) -> None:
    """Write a file that is either whole or not there."""
    content = json.dumps({"commit": provenance.commit()} | found, ensure_ascii=False)
    part = file.with_suffix(".part" + str(id(found)))
    part.write_text(content)
    part.rename(file)


if __name__ == "__main__":
    app()
