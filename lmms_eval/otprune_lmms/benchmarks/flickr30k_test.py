"""Flickr30k: captions of photographs."""

from otprune_lmms.benchmarks.captions import caption_benchmark

BENCHMARK = caption_benchmark(
    "flickr30k_test",
    folder="flickr30k",
    metric="flickr_CIDEr",
    column="Flickr",
    title="Flickr30k",
    captions="caption",
)
