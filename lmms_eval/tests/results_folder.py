"""A small results folder, hand-made: every file that figures and the report read."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.reporting.statistics import averages
from otprune_lmms.results.columns import SETTING
from otprune_lmms.results.diagnostics import diagnostics_frame
from otprune_lmms.results.records import records_frame
from otprune_lmms.results.samples import COLUMNS as SAMPLE_COLUMNS
from otprune_lmms.results.samples import SAMPLES, write_samples

METRICS = {
    "gqa": "exact_match",
    "pope": "pope_f1_score",
    "mme": "mme_perception_score",
    "coco2017_cap_val": "coco_CIDEr",
}
TARGETS = {"gqa": "red", "pope": "yes", "mme": "Yes", "coco2017_cap_val": "['A dog.', 'One dog.']"}
DOCUMENTS = 8
GRID = (4, 4)


SETTINGS = tuple(
    config.columns()
    for config in (
        PruningConfig(),
        *(
            PruningConfig.make(method, ratio)
            for method in ("otprune", "divprune", "random")
            for ratio in (0.125, 0.25, 0.5)
        ),
    )
)
"""Columns of settings, see `results.columns`."""


def records(
    settings: Sequence[Mapping[str, Any]] = SETTINGS, models: Sequence[str] = ("tiny",)
) -> pd.DataFrame:
    """Records: a value for each setting and task, between 0.2 and 0.9 of the best."""
    best = {"gqa": 1.0, "pope": 1.0, "mme": 2000.0, "coco2017_cap_val": 1.5}
    draw = np.random.default_rng(0)
    lines = []
    for model in models:
        for setting in settings:
            kept = 16.0 if setting["method"] is None else 16 * setting["keep_ratio"]
            for task, metric in METRICS.items():
                level = 0.9 if setting["method"] is None else draw.uniform(0.2, 0.8)
                lines.append(
                    {"experiment": "try", "suite": "mini", "model": model, **setting, "task": task}
                    | {"metric": metric, "value": best[task] * level, "missing": None}
                    | {"documents": DOCUMENTS, "kept_tokens": kept, "visual_tokens": 16.0}
                    | {"layer_tokens": kept, "multiply_adds_2ndm": 1e9 * kept}
                    | {"multiply_adds_3ndm": 1.5e9 * kept}
                )
    return records_frame(lines)


def samples(
    settings: Sequence[Mapping[str, Any]] = SETTINGS,
    models: Sequence[str] = ("tiny",),
    **texts: str,
) -> pd.DataFrame:
    """Two documents an image; ``texts`` (prompt, target, answer) stand in for the usual ones."""
    draw = np.random.default_rng(1)
    lines = []
    for model in models:
        for setting in settings:
            kept = 16 if setting["method"] is None else round(16 * setting["keep_ratio"])
            for task in METRICS:
                for doc in range(DOCUMENTS):
                    right = setting["method"] is None or draw.uniform() < 0.5
                    value = 2.5 * draw.uniform() if task == "coco2017_cap_val" else float(right)
                    answer = texts.get("answer", "red" if right else "blue")
                    lines.append(
                        {"model": model, **setting, "task": task, "doc_id": doc}
                        | {"cluster": f"{task} {doc // 2}", "requests": ["r"], "value": value}
                        | {"prompt": texts.get("prompt", f"What of {doc}?"), "detail": "{}"}
                        | {"target": texts.get("target", f"{TARGETS[task]}{doc % 2 or ''}")}
                        | {"answers": [answer], "answer": answer, "kept": kept, "candidates": 16}
                        | {"new_tokens": 1, "truncated": 0, "unfinished": False}
                        | {"options": ["A", "B"], "probabilities": [0.25, 0.75], "right_option": 1}
                    )
    return pd.DataFrame(lines)[list(SAMPLE_COLUMNS)]


def diagnostics(
    settings: Sequence[Mapping[str, Any]] = SETTINGS, models: Sequence[str] = ("tiny",)
) -> pd.DataFrame:
    """The first two images of each task; patches drawn at random, distances that fall with k."""
    draw = np.random.default_rng(2)
    lines = []
    for model in models:
        for setting in settings:
            for task in METRICS if setting["method"] is not None else ():
                for image in range(2):
                    k = round(16 * setting["keep_ratio"])
                    far = 1 / k + 0.02 * draw.uniform()
                    lines.append(
                        {"model": model, **setting, "cluster": f"{task} {image}", "task": task}
                        | {"doc_id": 2 * image, "image": 0, "height": GRID[0], "width": GRID[1]}
                        | {"kept": sorted(draw.choice(16, k, replace=False).tolist()), "n": 16}
                        | dict.fromkeys(("gaussian_w2", "exact_w2", "coverage"), far)
                        | {"effective_rank": k / 16, "seconds": 0.001}
                    )
    return diagnostics_frame(lines)


def images(places: Sequence[tuple[str, int]]) -> dict[tuple[str, int], list[Image.Image]]:
    """A wide image for each two documents, red at its left side."""
    found = {}
    for task, doc in places:
        picture = Image.new("RGB", (60, 40), (10, 30 * (doc // 2), len(task)))
        picture.paste((255, 0, 0), (0, 0, 15, 40))
        found[task, doc] = [picture]
    return found


def manifest(title: str = "A try", suite: str = "mini", **more: Any) -> dict[str, Any]:
    """The manifest of a run."""
    origin = {
        "hardware": "a computer",
        "commit": "abc",
        "torch": "2",
        "python": "3",
        "command": "x",
    }
    experiment = {
        "title": title, "suite": suite, "models": [{"name": "tiny"}], "limit": None,
        "tasks": [{"id": task, "limit": None} for task in METRICS], "published": [],
    }  # fmt: skip
    return {"origin": origin, "experiment": experiment | more, "versions": {"torch": "2"},
            "models": {"tiny": "f00"}, "data": {"gqa": {"documents": 8}}, "runs": []}  # fmt: skip


def write_folder(
    folder: Path,
    settings: Sequence[Mapping[str, Any]] = SETTINGS,
    models: Sequence[str] = ("tiny",),
    title: str = "A try",
    **texts: str,
) -> Path:
    """Write all files of a results folder; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    own = records(settings, models)
    own.to_csv(folder / "records.csv", index=False)
    (folder / "manifest.json").write_text(json.dumps(manifest(title)))
    some = samples(settings, models, **texts)
    plain = some.astype(object).where(some.notna(), None)
    write_samples(folder / SAMPLES, [plain.to_dict("list")])
    diagnostics(settings, models).to_parquet(folder / "diagnostics.parquet", index=False)
    _statistics(folder, own)
    _cost(folder, own)
    return folder


def _statistics(folder: Path, own: pd.DataFrame) -> None:
    scores = averages.headline_scores(own)
    long = scores.stack().rename("value").reset_index()
    around = {"low": 0.9 * long["value"], "high": 1.1 * long["value"]}
    long.assign(**around, documents=8, clusters=4).to_csv(folder / "intervals.csv", index=False)
    lines, pairs, rho = [], [], []
    for model, row in scores.index:
        base = scores.loc[(model, "unpruned")]
        value = averages.mean_of_ratios(scores.loc[(model, row)], base)
        lines.append({"model": model, "row": row, "rule": "mean_of_ratios", "value": value})
    for model in dict.fromkeys(own["model"]):
        for budget in (0.125, 0.25, 0.5):
            for other, sign in (("divprune", 1), ("random", -1)):
                for task in (*METRICS, "all"):
                    pairs.append(
                        {"model": model, "budget": budget, "task": task, "a": f"otprune-{budget:g}"}
                        | {
                            "b": f"{other}-{budget:g}",
                            "difference": 4.0 * sign,
                            "low": 4 * sign - 1,
                        }
                        | {"high": 4 * sign + 1, "test": "bootstrap", "p": 0.01}
                        | {"p_holm": 0.02 if sign > 0 else 0.2, "documents": 8, "discordant": 3}
                    )
            for task in (*METRICS, "all"):
                rho.append(
                    {"analysis": "spearman", "model": model, "budget": budget, "subjects": "all"}
                    | {"task": task, "quantity": "exact_w2", "value": -0.5, "low": -1.0}
                    | {"high": 0.25, "p": 0.3, "methods": 3, "row": None}
                )
    known = pd.DataFrame(lines)
    known = known.assign(low=known["value"] - 3, high=known["value"] + 3, tasks=" ".join(METRICS))
    known.to_csv(folder / "averages.csv", index=False)
    pd.DataFrame(pairs).to_csv(folder / "pairs.csv", index=False)
    pd.DataFrame(rho).to_csv(folder / "analysis.csv", index=False)


def _cost(folder: Path, own: pd.DataFrame) -> None:
    once = own.drop_duplicates(["model", "setting"])
    found = once[["model", *SETTING, "kept_tokens"]]
    times = {"vision_ms": 50.0, "select_ms": 1.0, "decode_ms": 9.0}
    found = found.assign(batch=1, prefill_ms=found["kept_tokens"], **times)
    speed = 76 / (60 + found["kept_tokens"])
    ends = {"answer_speedup_low": speed - 0.02, "answer_speedup_high": speed + 0.03}
    found = found.assign(answer_speedup=speed, **ends)
    found.to_csv(folder / "cost.csv", index=False)
