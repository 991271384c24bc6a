"""NoCaps: captions of images with objects that COCO's captions do not name."""

from otprune_lmms.benchmarks.captions import caption_benchmark

BENCHMARK = caption_benchmark(
    "nocaps_val",
    folder="nocaps",
    metric="nocaps_CIDEr",
    column="NoCaps",
    title="NoCaps",
    captions="annotations_captions",
)
