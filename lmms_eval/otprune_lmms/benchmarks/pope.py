"""POPE: is an object in the image? The headline is F1 of "yes" over all three categories."""

import numpy as np

from otprune_lmms.benchmarks.aggregation import Aggregation, Frame, HeadlineTerms, details, divided
from otprune_lmms.benchmarks.options import yes_or_no
from otprune_lmms.benchmarks.record import Benchmark, PrintedName
from otprune_lmms.benchmarks.shares import DocumentResults, Share


def shares(given: DocumentResults) -> dict[int, Share]:
    """Return 1 or 0 for each document, with its answer and the true one."""
    found = {}
    for doc_id, value in given.values.items():
        detail = {"prediction": str(value["prediction"]), "truth": str(value["ground_truth"])}
        found[doc_id] = Share(float(value["score"]), detail)
    return found


def f1_terms(samples: Frame, scale: float) -> HeadlineTerms:
    """Return the terms of F1: true "yes", false "yes", false "no", and the number of documents.

    An answer that is neither word is not counted as an error, as in lmms-eval.
    """
    counted = samples["value"].notna().to_numpy()
    detail = details(samples)
    answer = np.array([one.get("prediction") for one in detail], dtype=object)
    truth = np.array([one.get("truth") for one in detail], dtype=object)
    kinds = [(answer == "yes", truth == "yes"), (answer == "yes", truth == "no")]
    kinds += [(answer == "no", truth == "yes")]
    terms = np.stack([a & b & counted for a, b in kinds] + [counted], axis=-1).astype(float)

    def score(sums: np.ndarray) -> np.ndarray:
        true_yes, false_yes, false_no, documents = np.moveaxis(sums, -1, 0)
        f1 = divided(2 * true_yes, 2 * true_yes + false_yes + false_no)
        # As in lmms-eval: 0 without a true "yes".
        f1 = np.where(true_yes > 0, f1, 0.0)
        return scale * np.where(documents > 0, f1, np.nan)

    return HeadlineTerms.alone(terms, counted, score)


BENCHMARK = Benchmark(
    name="pope",
    task="pope",
    metric="pope_f1_score",
    column="POPE",
    folder="pope",
    metric_words="F1, %",
    shares=shares,
    options=yes_or_no,
    aggregation=Aggregation(f1_terms, called="F1", best_share=1.0),
    printed=(PrintedName("pope", "f1"),),
)
