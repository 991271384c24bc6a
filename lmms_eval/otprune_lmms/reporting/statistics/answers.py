"""What the answers tell beside their scores: agreement, bias to "yes", calibration, degeneration.

Two settings of one score may differ in these: a model that loses the image tends to say "yes" to
every question about it, which benchmarks of yes and no were made to show, or to repeat itself.
"""

import re
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from otprune_lmms.benchmarks import benchmark
from otprune_lmms.reporting.escape import markdown
from otprune_lmms.reporting.statistics.bootstrap import DRAWS, Redraws, redraws_of, task_seed
from otprune_lmms.reporting.statistics.calibration import (
    BINS,
    brier_score,
    calibration_errors,
    confidence_of,
)
from otprune_lmms.results.frames import Frame, PandasSeries
from otprune_lmms.results.names import Names

COLUMNS = ["model", "row", "task", "quantity", "value", "low", "high", "documents", "clusters"]

QUANTITIES: Mapping[str, str] = {
    "agreement": "answers that are those of the unpruned model, letter by letter, of questions",
    "yes_bias": 'answers "yes" less true "yes", of tasks whose answers are yes and no',
    "empty": "answers without a letter or digit",
    "unfinished": "answers that ended because they had the most tokens allowed",
    "hard": "right answers among the documents that the down-sampled image of the same budget gets "
    "wrong, of questions; needs rows of the method downsample",
    "repeated": "answers in which up to eight words stand four times or more in a row",
    "ece": "calibration error: distance of confidence (the largest of the options' probabilities) "
    f"from the share of right answers, mean over {BINS} bins, of tasks with options",
    "ece_by_chance": "what a perfectly calibrated model of the same confidences would show on as "
    "few documents, and the range of 95 % of such models",
    "overconfidence": "mean confidence less the share of right answers",
    "brier": "Brier score: squared distance of the options' probabilities from certainty of the "
    "right one, summed over options, times 100; 0 is best, 200 worst",
}
"""What each is, in percent of the answers (differences: points)."""

NEEDED = (
    *("model", "setting", "row", "task", "doc_id", "cluster", "method", "answer", "target"),
    *("value", "keep_ratio", "k", "match", "unfinished", "probabilities", "right_option"),
)
"""Columns of the samples."""

ALL = "all"
"""Task of the mean over tasks."""

_SEED = 0
_ENOUGH = 0.95
_PHRASE, _TIMES = 8, 4
_LETTER = re.compile(r"[^\W_]")


def answer_quantities(samples: Frame, draws: int = DRAWS, seed: int = _SEED) -> Frame:
    """Return the quantities of each row, by task and as their mean over tasks.

    Seeds of a row are averaged in each document. Intervals are percentiles of a bootstrap of
    images, the same draws for all rows of a task. A task is left out where a quantity is not
    defined: agreement of captions, which have no single right answer, or bias elsewhere than among
    yes and no. What the down-sampled image answers is easy (as in VTC-Bench, arXiv 2510.07143); the
    other documents are hard. Calibration needs the options' probabilities, which
    ``--calibration`` asks for.

    Args:
        samples: with the columns `NEEDED`.
        draws: bootstrap draws.
        seed: of them.

    Returns:
        `COLUMNS`.
    """
    lines: list[dict[str, object]] = []
    for model, of_model in samples.groupby("model", sort=False):
        drawn: dict[tuple[str, str], dict[str, np.ndarray]] = {}
        sizes: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for task, some in of_model.groupby("task", sort=False):
            first = some.drop_duplicates("doc_id")
            redraws = redraws_of(
                first["doc_id"], first["cluster"], draws, task_seed(str(task), seed)
            )
            found = {
                quantity: _drawn(some.assign(value=values), redraws)
                for quantity, values in _values(str(task), some).items()
            }
            found |= calibration_errors(some, redraws, task_seed(f"{task} by chance", seed))
            size = (len(redraws.documents), redraws.clusters)
            for quantity, rows in found.items():
                for row, each in rows.items():
                    lines.append(_line(model, row, task, quantity, each, *size))
                    drawn.setdefault((row, quantity), {})[str(task)] = each
                    sizes.setdefault((row, quantity), []).append(size)
        for (row, quantity), by_task in drawn.items():
            mean = np.mean(list(by_task.values()), axis=0)
            documents, clusters = np.sum(sizes[row, quantity], axis=0)
            lines.append(_line(model, row, ALL, quantity, mean, int(documents), int(clusters)))
    return pd.DataFrame(lines, columns=COLUMNS)


def answers_section(found: Frame, names: Names) -> str:
    """Return a section of the statistics page; "" without any quantity.

    Args:
        found: of `answer_quantities`.
        names: of the rows.
    """
    if found.empty:
        return ""
    lines = ["", "## Beyond the score", ""]
    told = set(found["quantity"])
    lines += [
        f"- {name.replace('_', ' ')}: {what}" for name, what in QUANTITIES.items() if name in told
    ]
    lines += [
        "- percent, mean over tasks, with 95 % intervals over documents; by task: answers.csv"
    ]
    for model, some in found.groupby("model", sort=False):
        biased = dict.fromkeys(
            some[(some["quantity"] == "yes_bias") & (some["task"] != ALL)]["task"]
        )
        wanted = [("agreement", ALL), *(("yes_bias", str(task)) for task in biased)]
        wanted += [(name, ALL) for name in ("hard", "empty", "unfinished", "repeated")]
        wanted += [(name, ALL) for name in ("ece", "ece_by_chance", "overconfidence", "brier")]
        known = {(line.row, line.quantity, line.task): line for line in some.itertuples()}
        shown = [one for one in wanted if any((row, *one) in known for row in some["row"])]
        heads = [
            name.replace("_", " ") + (f", {benchmark(task).column}" if task != ALL else "")
            for name, task in shown
        ]
        lines += ["", f"{markdown(str(model))}:", ""]
        lines += [
            f"| setting | {' | '.join(map(markdown, heads))} |",
            f"|---{'|--:' * len(heads)}|",
        ]
        for row in dict.fromkeys(some["row"]):
            cells = [_cell(known.get((row, *one))) for one in shown]
            lines.append(f"| {markdown(names.whole(row))} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def repeats(text: str) -> bool:
    """Whether a phrase of one to eight words stands four times or more in a row."""
    words = text.lower().split()
    for size in range(1, min(_PHRASE, len(words) // _TIMES) + 1):
        run = 0
        for place in range(size, len(words)):
            run = run + 1 if words[place] == words[place - size] else 0
            if run == size * (_TIMES - 1):
                return True
    return False


def _cell(line: object) -> str:
    if line is None:
        return "–"
    value, low, high = (float(getattr(line, name)) for name in ("value", "low", "high"))
    if np.isnan(low):
        return f"{value:.1f}"
    return markdown(f"{value:.1f} [{low:.1f}, {high:.1f}]")


def _values(task: str, samples: Frame) -> dict[str, np.ndarray]:
    """Return each quantity that is defined for a task, by sample."""
    answers = samples["answer"]
    tests: dict[str, Callable[[str], bool]] = {
        "empty": lambda text: _LETTER.search(text) is None,
        "repeated": repeats,
    }
    found = {name: answers.map(test).to_numpy(float) for name, test in tests.items()}
    if samples["unfinished"].notna().any():
        found["unfinished"] = samples["unfinished"].to_numpy(float)
    if samples["right_option"].notna().any():
        found |= _about_options(samples)
    truth, said = samples["target"].map(_word), answers.map(_word)
    if truth.isin(("yes", "no")).all():
        found["yes_bias"] = (said == "yes").to_numpy(float) - (truth == "yes").to_numpy(float)
    base = samples[samples["method"].isna()].drop_duplicates("doc_id").set_index("doc_id")["answer"]
    if benchmark(task).kind != "caption" and samples["doc_id"].isin(base.index).all():
        same = answers.to_numpy() == base.loc[samples["doc_id"]].to_numpy()
        found["agreement"] = same.astype(float)
    best = benchmark(task).best_share
    if best is not None:
        found |= _on_hard_documents(samples, samples["value"].astype(float) / best)
    return found


def _about_options(samples: Frame) -> dict[str, np.ndarray]:
    """Return the quantities of single documents with options; NaN for others."""
    found = {name: np.full(len(samples), np.nan) for name in ("overconfidence", "brier")}
    lines = zip(samples["probabilities"], samples["right_option"], strict=True)
    for number, (probabilities, right) in enumerate(lines):
        if not pd.isna(right):
            confidence, share = confidence_of(probabilities, int(right))
            found["overconfidence"][number] = confidence - share
            found["brier"][number] = brier_score(probabilities, int(right))
    return found


def _on_hard_documents(samples: Frame, shares: PandasSeries) -> dict[str, np.ndarray]:
    """Return how right answers are to documents that the down-sampled image gets wrong.

    That of the same budget; a document counts as wrong below half of the best share.

    Args:
        samples: of one task.
        shares: of each sample, 1 for an answer that is entirely right.
    """
    amounts = [samples[name].astype(float).fillna(-1.0) for name in ("keep_ratio", "k")]
    counted = samples["match"].fillna("").astype(str)
    place = pd.MultiIndex.from_arrays([*amounts, counted, samples["doc_id"]])
    control = (samples["method"] == "downsample").to_numpy()
    known = shares.notna().to_numpy()
    wrong = place[control & known & (shares < 0.5).to_numpy()]
    hard = place.isin(wrong) & ~control & known
    return {"hard": np.where(hard, shares.to_numpy(float), np.nan)} if hard.any() else {}


def _word(text: str) -> str:
    """Return the first word of a text, in small letters without punctuation."""
    words = re.findall(r"[^\W_]+", text.lower())
    return words[0] if words else ""


def _drawn(samples: Frame, redraws: Redraws) -> dict[str, np.ndarray]:
    """Return the percent of each row, observed first, then by draw, [1 + B].

    Samples without a value are not counted.
    """
    counted = samples.assign(value=samples["value"].notna().astype(float))
    count = counted.pivot_table(index="doc_id", columns="row", values="value", sort=False)
    # A row that lacks documents is not comparable, and one without any counted has no share.
    whole = [row for row in dict.fromkeys(samples["row"]) if count[row].notna().all()]
    count = count[[row for row in whole if count[row].any()]]
    filled = samples.fillna({"value": 0.0})
    each = filled.pivot_table(index="doc_id", columns="row", values="value", sort=False)
    count, each = count.loc[redraws.documents], each.loc[redraws.documents, count.columns]
    below = redraws.counts @ count.to_numpy(float)
    shares = 100 * (redraws.counts @ each.to_numpy(float)) / np.where(below > 0, below, np.nan)
    return dict(zip(map(str, each.columns), shares.T, strict=True))


def _line(
    model: object,
    row: str,
    task: object,
    quantity: str,
    drawn: np.ndarray,
    documents: int,
    clusters: int,
) -> dict[str, object]:
    known = drawn[1:][~np.isnan(drawn[1:])]
    # Without a value in many draws an interval would be about the others alone.
    enough = clusters > 1 and len(known) >= _ENOUGH * (len(drawn) - 1)
    low, high = np.quantile(known, (0.025, 0.975)) if enough else (np.nan, np.nan)
    return {
        "model": model,
        "row": row,
        "task": task,
        "quantity": quantity,
        "value": float(drawn[0]),
        "low": float(low),
        "high": float(high),
        "documents": documents,
        "clusters": clusters,
    }
