"""The statistics of a results folder, as files."""

from pathlib import Path

from otprune_lmms.files import write_text
from otprune_lmms.reporting.statistics.answers import answer_quantities, answers_section
from otprune_lmms.reporting.statistics.averages import headline_scores, mean_of_ratios
from otprune_lmms.reporting.statistics.compare import PAIR_COLUMNS, Findings, find
from otprune_lmms.reporting.statistics.cut import cut_section
from otprune_lmms.reporting.statistics.kept import kept_counts
from otprune_lmms.reporting.statistics.page import page, seed_lines
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.manifest import MANIFEST, Manifest, read_manifest
from otprune_lmms.results.names import Names, names_of
from otprune_lmms.results.records import RECORDS, UNPRUNED, read_records
from otprune_lmms.results.samples import read_samples

AVERAGES, INTERVALS, PAIR_LINES, KEPT, ANSWERS, PAGE = (
    "averages.csv",
    "intervals.csv",
    "pairs.csv",
    "kept.csv",
    "answers.csv",
    "statistics.md",
)

_READ = (
    *("model", "setting", "row", "task", "doc_id", "cluster", "value", "detail"),
    *("kept", "candidates", "method", "answer", "target", "keep_ratio", "k", "match"),
    *("unfinished", "probabilities", "right_option"),
)
_MINI = " (mini suite: embedded data, not the paper's benchmarks)"


def write_statistics(folder: Path) -> None:
    """Write ``statistics.md`` and its numbers.

    They are ``averages.csv``, ``intervals.csv``, ``pairs.csv``, ``kept.csv`` and ``answers.csv``.

    Raises:
        ValueError: no records or samples in the folder, or of another format.
    """
    records = read_records(folder / RECORDS)
    manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else None
    names = names_of(records, () if manifest is None else manifest.configs)
    samples = read_samples(folder, _READ)
    found = find(records, samples, names=names)
    write_text(folder / AVERAGES, found.averages.to_csv(index=False))
    write_text(folder / INTERVALS, found.intervals.to_csv(index=False))
    write_text(folder / PAIR_LINES, found.pairs[list(PAIR_COLUMNS)].to_csv(index=False))
    write_text(folder / KEPT, kept_counts(samples).to_csv(index=False))
    answers = answer_quantities(samples)
    write_text(folder / ANSWERS, answers.to_csv(index=False))
    more = answers_section(answers, names) + cut_section(records, names)
    write_text(folder / PAGE, _page(manifest, records, found) + more)


def _page(manifest: Manifest | None, records: Frame, found: Findings) -> str:
    title, origin = str(records["experiment"].iloc[0]), {}
    if manifest is not None:
        title, origin = manifest.title, manifest.origin
    if (records["suite"] == "mini").all():
        title += _MINI
    return page(found, title, origin, _seeds(records, found.names))


def _seeds(records: Frame, names: Names) -> dict[str, list[str]]:
    """Return, by model, lines about rows with several seeds."""
    single = headline_scores(records.assign(row=records["setting"]))
    rows = headline_scores(records)
    lines = {}
    for model, some in records.groupby("model", sort=False):
        if (model, UNPRUNED) not in single.index:
            continue
        base = single.loc[(model, UNPRUNED)]
        seeds = {
            str(row): [mean_of_ratios(single.loc[(model, one)], base) for one in group.unique()]
            for row, group in some.groupby("row", sort=False)["setting"]
        }
        lines[str(model)] = seed_lines(rows.loc[model], seeds, names)
    return lines
