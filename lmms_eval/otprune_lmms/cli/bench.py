"""``otprune bench``: what an answer costs."""

import logging
from pathlib import Path
from typing import Annotated, Literal

import typer

from otprune_lmms.cli.common import command_line, fail, log, say_removed
from otprune_lmms.cli.options import RESULTS, Quiet, experiment, path
from otprune_lmms.cli.stopping import ends_in_words
from otprune_lmms.cli.terminal import Listing, say
from otprune_lmms.limits import LARGEST_BATCH

logger = logging.getLogger("otprune_lmms")

Config = Annotated[
    Path,
    typer.Argument(
        parser=experiment,
        metavar="CONFIG",
        help="an experiment file, or the name of an embedded one, as mini",
    ),
]
Samples = Annotated[int, typer.Option(min=1, help="documents of each task, in whole batches")]
Repeats = Annotated[int, typer.Option(min=1, help="timed rounds over all of them")]
Warmup = Annotated[int, typer.Option(min=0, help="rounds before that do not count")]
BatchSizes = Annotated[
    list[int] | None,
    typer.Option(
        "--batch-size",
        min=1,
        max=LARGEST_BATCH,
        help="samples at once; may be repeated"
        " [default: 1 and the experiment's, halved until it fits]",
    ),
]
Formula = Annotated[
    Literal["2ndm", "3ndm"],
    typer.Option(
        "--convention", help="of the multiply-adds; 2ndm: the paper's, 3ndm: gated, as LLaMA"
    ),
]
ResultsDir = Annotated[
    Path,
    typer.Option(
        "--output-dir", parser=path, metavar="FOLDER", help="folder of the results folders"
    ),
]


@ends_in_words
def bench(
    config: Config,
    samples: Samples = 2,
    repeats: Repeats = 5,
    warmup: Warmup = 1,
    batch_size: BatchSizes = None,
    convention: Formula = "3ndm",
    output_dir: ResultsDir = RESULTS,
    quiet: Quiet = False,
) -> None:
    """Measure what an answer costs under each setting of an experiment.

    Milliseconds of preprocessing, vision, selection, prefill and decoding, apart, with quartiles;
    peak memory, bytes of keys and values; multiply-adds by formula and FLOPs as counted; and what
    part of the prefill that a method saves its selection takes away again. Every row ends with how
    many times as fast as unpruned it is, with an interval: faster, slower, or no difference. Each
    model on documents of the experiment's own tasks; all settings take turns, and ratios are to the
    unpruned model of the same run. Nothing is scored and no answer is kept.

    Writes cost.csv, cost.json and cost.md into the experiment's results folder.

    Example: otprune bench configs/mini.yaml --batch-size 1 --batch-size 16
    """
    log(quiet)
    from otprune_lmms.cli.experiments import check_devices, read_sources

    (source,) = read_sources([config])
    check_devices([source])
    import transformers

    transformers.utils.logging.disable_progress_bar()
    from otprune_lmms.experiments.cost.experiment import measure_experiment
    from otprune_lmms.experiments.cost.measuring import CostOptions
    from otprune_lmms.files import check_writable, exclusive
    from otprune_lmms.provenance import origin
    from otprune_lmms.reporting.cost import rendered, write_cost
    from otprune_lmms.results import SHOW_COSTS
    from otprune_lmms.results.stale import remove

    folder, names = output_dir / source.experiment.name, source.experiment.pruning.names
    try:
        check_writable(folder)
        records = measure_experiment(
            source,
            samples=samples,
            batch_sizes=tuple(dict.fromkeys(batch_size)) if batch_size else None,
            options=CostOptions(repeats=repeats, warmup=warmup, convention=convention),
            progress=not quiet,
        )
        with exclusive(folder):
            again = "`otprune plot`, then `otprune report`"
            say_removed(folder, remove(folder, SHOW_COSTS), again)
            write_cost(folder, records, origin(command_line()), names)
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        fail(f"{config}: {error}", 1)
    for title, heads, rows in rendered(records, names):
        say("")
        Listing(heads, rows, title=title).show()
    logger.info("%s: cost.md, .csv, .json", folder)
