"""Which rule should set OTPrune's γ? Chosen on development scenes, by answers under a grid of γ.

    .venv/bin/python scripts/study_gamma.py data work
    .venv/bin/otprune run work/grid.yaml --output-dir work/out --journal work/journal
    .venv/bin/python scripts/study_gamma.py choose work --out results/gamma-auto
    .venv/bin/otprune thresholds work/thresholds.yaml

The scenes have seeds of their own: neither those of training nor those of the mini suite. `choose`
reads no scene of the mini suite. A rule gives each image a γ; the nearest of the grid stands for
it, so that all rules and all values of their constants are judged by the same answers.

What was chosen is tested by configs/mini/gamma-auto.yaml, and by configs/mini/adaptive.yaml, whose
thresholds `otprune thresholds` chose on the same scenes.
"""

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from otprune_lmms import provenance
from otprune_lmms.engine.prepare import RequestPreparer
from otprune_lmms.experiments.config import load_experiment
from otprune_lmms.experiments.cost.experiment import requests_for
from otprune_lmms.experiments.plan import Source
from otprune_lmms.images import image_cluster
from otprune_lmms.models import load_model
from otprune_lmms.results.samples import read_samples
from rich.console import Console

from bench_common import ROOT
from otprune import make_pruner
from otprune.greedy import greedy_logdet
from otprune.kernels import squared_gram, unit_rows
from otprune.wasserstein import coverage, effective_rank

GRID = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)
RATIOS = (0.05, 0.098, 0.2, 0.4)
RESAMPLES = 2000
TASKS = {
    "gqa": 80, "pope": 80, "ok_vqa_val2014": 80, "mmbench_en_dev_static": 80, "scienceqa_img": 60,
    "mmmu_val": 50, "coco2017_cap_val": 40,
}  # fmt: skip
"""Documents of each task, from the start."""

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
Work = Annotated[Path, typer.Argument(help="folder for everything that is not committed")]


@dataclass(frozen=True)
class ImageFacts:
    """What rules know of an image; nothing of it depends on a question or an answer.

    Attributes:
        n: visual tokens.
        eigenvalues: of W², W = V̂ V̂ᵀ with channels of unit norm, descending, [min(n, d)].
        pivots: what greedy picks of W² itself, without I, leave: conditional variances, [128].
        gains: of picks under each γ of the grid, in nats.
        coverage: of the kept tokens, by γ and k.
        rank: their effective rank, likewise.
    """

    n: int
    eigenvalues: np.ndarray
    pivots: np.ndarray
    gains: Mapping[float, np.ndarray]
    coverage: Mapping[tuple[float, int], float]
    rank: Mapping[tuple[float, int], float]

    @classmethod
    def of(cls, tokens: torch.Tensor, counts: list[int]) -> "ImageFacts":
        """Return the facts of an image, computed in float64 but for the picks."""
        weights = tokens.double().square().sum(0).reciprocal()
        columns = tokens.double() * weights.sqrt()
        eigenvalues = torch.linalg.eigvalsh(columns.T @ columns).flip(0).clamp(min=0).square()
        bare = squared_gram(tokens.double(), weights, scale=1.0, ridge=0.0)
        units = unit_rows(tokens)
        gains, covers, ranks = {}, {}, {}
        for gamma in GRID:
            order, gain = make_pruner("otprune", gamma=gamma).gains(tokens, -(-max(counts) // 4))
            gains[gamma] = gain.numpy()
            for k in counts:
                covers[gamma, k] = coverage(units, order[:k])
                ranks[gamma, k] = effective_rank(units[order[:k]])
        pivots = greedy_logdet(bare, min(128, len(tokens))).variances
        return cls(len(tokens), eigenvalues.numpy(), pivots.numpy(), gains, covers, ranks)


Rule = Callable[[ImageFacts, int], float]


def mean_diagonal(c: float) -> Rule:
    """γ with which the mean diagonal of γ W² is c."""
    return lambda image, k: c * image.n / float(image.eigenvalues.sum())


def eigenvalue(c: float) -> Rule:
    """γ with which the k-th eigenvalue of γ W² is c."""
    return lambda image, k: c / max(float(image.eigenvalues[k - 1]), 1e-30)


def pivot(c: float) -> Rule:
    """γ with which the k-th pick of γ W² alone would leave c."""
    return lambda image, k: c / max(float(image.pivots[k - 1]), 1e-30)


def discarded(c: float) -> Rule:
    """γ with which the mean of the eigenvalues of γ W² after the k-th is c, as in PPCA."""

    def rule(image: ImageFacts, k: int) -> float:
        return c * (image.n - k) / max(float(image.eigenvalues[k:].sum()), 1e-30)

    return rule


def freedom(c: float) -> Rule:
    """γ with which γ W² has c k degrees of freedom, tr γ W² (I + γ W²)⁻¹."""
    gammas = np.logspace(-4, 8, 400)[:, None]

    def rule(image: ImageFacts, k: int) -> float:
        signal = gammas * image.eigenvalues
        enough = (signal / (1 + signal)).sum(1) >= c * k
        return float(gammas[int(enough.argmax()) if enough.any() else -1, 0])

    return rule


def gain_left(c: float) -> Rule:
    """The smallest γ under which the k-th pick adds c times what the first adds."""

    def rule(image: ImageFacts, k: int) -> float:
        fine = (g for g in GRID if image.gains[g][k - 1] >= c * image.gains[g][0])
        return next(fine, GRID[-1])

    return rule


def best_coverage(_: float) -> Rule:
    """The γ of the grid whose kept tokens cover best."""
    return lambda image, k: min(GRID, key=lambda gamma: image.coverage[gamma, k])


def highest_rank(_: float) -> Rule:
    """The γ of the grid whose kept tokens have the highest effective rank."""
    return lambda image, k: max(GRID, key=lambda gamma: image.rank[gamma, k])


def fixed(gamma: float) -> Rule:
    """One γ for all images."""
    return lambda image, k: gamma


def released_paper(gamma: float) -> Rule:
    """The paper's γ/(nk) on columns of unit variance, in the scale of unit norm."""
    return lambda image, k: gamma * image.n / k


RULES: Mapping[str, tuple[Callable[[float], Rule], tuple[float, ...]]] = {
    "fixed": (fixed, GRID),
    "variant paper": (released_paper, (0.01, 0.1)),
    "mean diagonal": (mean_diagonal, (0.1, 0.3, 1, 3, 10, 30, 100, 1000)),
    "k-th eigenvalue": (eigenvalue, (0.03, 0.1, 0.3, 1, 3, 10)),
    "k-th pivot": (pivot, (0.03, 0.1, 0.3, 1, 3, 10)),
    "discarded mean": (discarded, (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1)),
    "degrees of freedom": (freedom, (0.3, 0.5, 0.75, 1, 1.25)),
    "gain left": (gain_left, (0.1, 0.2, 0.3)),
    "coverage": (best_coverage, (0,)),
    "effective rank": (highest_rank, (0,)),
}


@app.command()
def data(work: Work) -> None:
    """Write the development scenes, their task files, and the experiments on them."""
    sys.path.insert(0, str(ROOT / "scripts" / "mini"))
    from slices import write_slices

    package = ROOT / "lmms_eval" / "otprune_lmms" / "tasks"
    write_slices(work / "mini_data", "development")
    shutil.copytree(package / "mini", work / "mini", dirs_exist_ok=True)
    methods: list[Any] = [{"method": "otprune", "settings": {"gamma": gamma}} for gamma in GRID]
    adaptive = [{"method": "otprune", "settings": {"gamma": "auto"}}, "divprune", "fastervlm"]
    for name, chosen in (("grid", methods), ("thresholds", adaptive)):
        experiment = {
            "name": name, "title": "Development scenes", "suite": "./mini", "java": "optional",
            "models": [{"name": "llava-mini", "pretrained": "llava-mini", "dtype": "float32",
                        "batch_size": 16}],
            "tasks": [{"id": task, "limit": limit} for task, limit in TASKS.items()],
            "pruning": {"keep_ratios": list(RATIOS), "methods": chosen},
        }  # fmt: skip
        # JSON is YAML.
        (work / f"{name}.yaml").write_text(json.dumps(experiment, indent=1) + "\n")


def facts_of(work: Path) -> tuple[dict[str, ImageFacts], list[int]]:
    """Return the facts of the experiment's images by the cluster of their documents, and all k."""
    file = work / "grid.yaml"
    experiment = load_experiment(file)
    model = load_model(experiment.models[0].source(work))
    preparer = RequestPreparer(model, "", experiment.seed_video)
    found: dict[str, ImageFacts] = {}
    counts: list[int] = []
    for request in requests_for(Source(experiment, work), max(TASKS.values())):
        prepared = preparer.prepare(request)
        cluster = image_cluster(prepared.images)
        if request.doc_id >= TASKS[request.task] or cluster in found:
            continue
        pixels = model.preprocess(preparer.images(request)[0], prepared.prompt.image_view)
        with torch.inference_mode():
            (image,) = model.encode([pixels], frozenset())
            counts = counts or [round(ratio * len(image)) for ratio in RATIOS]
            found[cluster] = ImageFacts.of(image.tokens.float(), counts)
    return found, counts


@dataclass(frozen=True)
class Answers:
    """Scores of all documents: values of [document, ratio, γ], those unpruned, and the tasks."""

    values: np.ndarray
    unpruned: np.ndarray
    tasks: np.ndarray
    clusters: list[str]


def read_answers(work: Path) -> Answers:
    """Return the documents' shares of the scores, in the order of task and number."""
    samples = read_samples(work / "out" / "grid")
    samples = samples[samples["value"].notna()]
    gammas = samples["settings"].map(lambda text: json.loads(text).get("gamma"))
    keys = ["task", "doc_id"]
    whole = samples[samples["method"].isna()].sort_values(keys)
    columns = []
    for ratio in RATIOS:
        for gamma in GRID:
            chosen = (samples["keep_ratio"] == ratio) & np.isclose(gammas.astype(float), gamma)
            own = samples[chosen].sort_values(keys)
            if own[keys].to_numpy().tolist() != whole[keys].to_numpy().tolist():
                raise ValueError(f"no answers to all documents at {ratio} with gamma {gamma}")
            columns.append(own["value"].to_numpy(float))
    values = np.stack(columns, 1).reshape(len(whole), len(RATIOS), len(GRID))
    return Answers(
        values, whole["value"].to_numpy(float), whole["task"].to_numpy(str), list(whole["cluster"])
    )


def relative(values: np.ndarray, answers: Answers, rows: np.ndarray) -> np.ndarray:
    """Return percent of the unpruned score, mean over tasks, for each ratio.

    Args:
        values: of documents and ratios.
        answers: their tasks and unpruned values.
        rows: the documents that count.
    """
    found = []
    for task in dict.fromkeys(answers.tasks):
        own = rows[answers.tasks[rows] == task]
        found.append(values[own].mean(0) / answers.unpruned[own].mean())
    return 100 * np.mean(found, 0)


def draws(answers: Answers) -> list[np.ndarray]:
    """Return documents drawn anew within each task, the same for all rules."""
    rng = np.random.default_rng(0)
    parts = [np.flatnonzero(answers.tasks == task) for task in dict.fromkeys(answers.tasks)]
    return [
        np.concatenate([rng.choice(part, len(part)) for part in parts]) for _ in range(RESAMPLES)
    ]


@app.command()
def choose(
    work: Work,
    out: Annotated[Path, typer.Option(help="folder for development.md and .json")] = (
        ROOT / "results" / "gamma-auto"
    ),
) -> None:
    """Judge all rules and all values of their constants by the answers on development scenes."""
    torch.set_num_threads(1)
    answers = read_answers(work)
    facts, counts = facts_of(work)
    log_grid = np.log(GRID)
    everything, drawn = np.arange(len(answers.tasks)), draws(answers)
    best = None
    rows: list[dict[str, Any]] = []
    scores: list[np.ndarray] = []
    for name, (make, constants) in RULES.items():
        for c in constants:
            rule = make(c)
            gammas = np.array([[rule(facts[one], k) for k in counts] for one in answers.clusters])
            nearest = np.abs(np.log(gammas)[:, :, None] - log_grid).argmin(2)
            values = np.take_along_axis(answers.values, nearest[:, :, None], 2)[:, :, 0]
            score = relative(values, answers, everything)
            scores.append(np.array([relative(values, answers, one).mean() for one in drawn]))
            rows.append(
                {"rule": name, "c": c, "mean": float(score.mean()), "by ratio": score.tolist()}
                | {"median γ": np.median(gammas, 0).tolist(), "γ spread": [
                    float(np.quantile(column, 0.9) / np.quantile(column, 0.1))
                    for column in gammas.T]}
            )  # fmt: skip
            if name == "fixed" and (best is None or score.mean() > rows[best]["mean"]):
                best = len(rows) - 1
    for row, own in zip(rows, scores, strict=True):
        low, high = np.quantile(own - scores[best or 0], (0.025, 0.975))
        row |= {"minus best fixed": row["mean"] - rows[best or 0]["mean"], "low": low, "high": high}
    write(out, rows, answers, rows[best or 0], work)


def write(
    out: Path, rows: list[dict[str, Any]], answers: Answers, best: dict[str, Any], work: Path
) -> None:
    """Write the table with its origin."""
    origin = provenance.origin("python scripts/study_gamma.py choose work", "cpu")
    lines = ["# Rules for γ on development scenes", ""]
    lines += [f"{name}: `{value}`  " for name, value in origin.items()]
    head = ["rule", "c", *(f"{ratio:g}" for ratio in RATIOS), "mean", f"minus fixed {best['c']:g}"]
    head += ["median γ at each ratio", "γ, 90 % / 10 % of images"]
    lines += ["", f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for row in rows:
        constant = f"{row['c']:g}" if row["c"] else "–"
        difference = f"{row['minus best fixed']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]"
        cells = [row["rule"], constant, *(f"{one:.1f}" for one in row["by ratio"])]
        cells += [f"{row['mean']:.2f}", difference]
        cells += [" ".join(f"{one:.2g}" for one in row[name]) for name in ("median γ", "γ spread")]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"Percent of the unpruned score of llava-mini, mean over {len(set(answers.tasks))} tasks, "
        f"{len(answers.tasks)} documents of the split `development` of scripts/mini/scenes.py, at "
        f"{', '.join(f'{ratio:g}' for ratio in RATIOS)} of 256 tokens. γ is that of columns of "
        "unit norm; the answers are those under the nearest γ of the row `fixed`. Intervals: 95 %, "
        f"{RESAMPLES} draws of documents within tasks, the same for all rows; not adjusted for "
        "their number.",
        "",
    ]  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    (out / "development.md").write_text("\n".join(lines))
    content = {"origin": origin, "documents": len(answers.tasks), "rules": rows}
    (out / "development.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    Console().print("\n".join(lines), markup=False)


if __name__ == "__main__":
    app()
