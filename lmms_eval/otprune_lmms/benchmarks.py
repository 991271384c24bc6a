"""The 11 benchmarks, and which of a task's metrics goes into the tables."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Headline:
    """The metric that stands for a task.

    Attributes:
        metric: lmms-eval's name of it.
        column: the heading of its column.
        scale: what the table multiplies the stored value with.
        best: largest value as shown; None where there is none (CIDEr).
        digits: decimals shown.
    """

    metric: str
    column: str
    scale: float = 100.0
    best: float | None = 100.0
    digits: int = 1


HEADLINES: dict[str, Headline] = {
    "coco2017_cap_val": Headline("coco_CIDEr", "COCO", best=None),
    "flickr30k_test": Headline("flickr_CIDEr", "Flickr", best=None),
    "gqa": Headline("exact_match", "GQA"),
    "mmbench_en_dev": Headline("gpt_eval_score", "MMB", scale=1.0),
    "mmbench_en_dev_static": Headline("gpt_eval_score", "MMB", scale=1.0),
    "mme": Headline("mme_perception_score", "MME-P", scale=1.0, best=2000.0, digits=0),
    "mmmu_val": Headline("mmmu_acc", "MMMU"),
    "nocaps_val": Headline("nocaps_CIDEr", "NoCaps", best=None),
    "ok_vqa_val2014": Headline("exact_match", "OK-VQA"),
    "pope": Headline("pope_f1_score", "POPE"),
    "scienceqa_img": Headline("exact_match", "SQA-I"),
    "seedbench": Headline("seed_image", "SEED-I"),
}
"""What the tables of OTPrune and DivPrune read."""

OTPRUNE_11: tuple[str, ...] = tuple(task for task in HEADLINES if task != "mmbench_en_dev")
"""The 11 benchmarks of those tables; MMBench matched by rule, which needs no judge."""


def headline(task: str, metrics: list[str]) -> Headline:
    """Return the metric that stands for a task; for an unknown task its first.

    Raises:
        ValueError: the task has no metrics.
    """
    if task in HEADLINES:
        return HEADLINES[task]
    if not metrics:
        raise ValueError(f"task {task} has no metrics")
    return Headline(metrics[0], task, scale=1.0, best=None, digits=3)
