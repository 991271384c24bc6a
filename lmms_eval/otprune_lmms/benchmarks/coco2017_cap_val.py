"""COCO captions: five references for each of the 5000 images of the 2017 validation split."""

from otprune_lmms.benchmarks.captions import caption_benchmark

BENCHMARK = caption_benchmark(
    "coco2017_cap_val",
    folder="coco_cap",
    metric="coco_CIDEr",
    column="COCO",
    title="COCO",
    captions="answer",
)
