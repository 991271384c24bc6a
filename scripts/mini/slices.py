"""The mini slices of the 11 benchmarks, in the schemas that lmms-eval's task code reads.

Every committed scene is of the split "benchmark", which training and its checks never see.
Benchmarks draw their scenes from their own ranges of numbers, so a larger slice of one changes no
other. The same slices of the split "development" are for choosing settings, and are not committed.
"""

from collections.abc import Callable
from pathlib import Path

from datasets import Dataset, Features
from pyarrow.parquet import write_table
from slice_parts import BENCHMARK, Row
from slices_captions import coco, flickr, nocaps
from slices_options import mmbench, mmmu, science, seed
from slices_questions import gqa, mme, ok_vqa, pope

SLICES: dict[tuple[str, str], Callable[[str], tuple[Features, list[Row]]]] = {
    ("coco2017_cap_val", "val"): coco, ("flickr30k_test", "test"): flickr,
    ("nocaps_val", "validation"): nocaps, ("gqa", "testdev"): gqa,
    ("ok_vqa_val2014", "val2014"): ok_vqa, ("pope", "test"): pope, ("mme", "test"): mme,
    ("mmbench_en_dev_static", "dev"): mmbench, ("scienceqa_img", "test"): science,
    ("mmmu_val", "validation"): mmmu, ("seedbench", "test"): seed,
}  # fmt: skip


def write_slices(folder: Path, scenes: str = BENCHMARK) -> dict[str, int]:
    """Write ``<folder>/<task>/<split>-00000-of-00001.parquet`` and return the rows of each task.

    Args:
        folder: to write in.
        scenes: the split of the scenes.
    """
    counts = {}
    for (task, split), build in SLICES.items():
        features, rows = build(scenes)
        file = folder / task / f"{split}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        table = Dataset.from_list(rows, features=features).data.table
        # An image that several rows ask about is stored once, in a dictionary of all images.
        write_table(
            table.replace_schema_metadata(features.arrow_schema.metadata),
            file,
            compression="zstd",
            dictionary_pagesize_limit=2**26,
        )
        counts[task] = len(rows)
    return counts
