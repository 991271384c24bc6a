"""Prune an image with two methods and look at what they keep.

    .venv/bin/python examples/prune_and_look.py [IMAGE] [FIGURE]

Without an image it takes one of the embedded scenes. The figure is kept.png unless you name it.
"""

import io
import sys
from pathlib import Path

import pyarrow.parquet as pq
from otprune_lmms.embedded import MINI_TASKS
from otprune_lmms.experiments.diagnostics.one_image import measure_image
from otprune_lmms.models import ModelSource, load_model
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.reporting.figures.kept_image import draw_panels, panels_of
from PIL import Image

# An image file of yours, or a scene that comes with the harness.
if len(sys.argv) > 1:
    image = Image.open(sys.argv[1])
else:
    (scenes,) = (MINI_TASKS.parent / "mini_data" / "gqa").glob("*.parquet")
    row = pq.read_table(scenes, columns=["image"]).slice(4, 1).to_pylist()[0]
    image = Image.open(io.BytesIO(row["image"]["bytes"]))
figure = Path(sys.argv[2] if len(sys.argv) > 2 else "kept.png")

# Any method and any settings; "llava-mini" may be a checkpoint's folder or hub id.
configs = [PruningConfig.make(method, keep_ratio=0.1) for method in ("otprune", "divprune")]
measured = measure_image(load_model(ModelSource("llava-mini")), image, configs, exact=False)

for line in measured.lines:
    print(f"{line['method']}: {len(line['kept'])} of {line['n']} tokens, {line['kept'][:8]}...")
    print(f"  distance of a token to its nearest kept one: {line['coverage']:.3f}")
draw_panels(panels_of(measured.views, measured.lines), figure)
print(f"drawn: {figure}")
