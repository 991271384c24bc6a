"""``otprune analyze``: does distance explain the score?"""

import logging
from pathlib import Path
from typing import Annotated

import typer

from otprune_lmms.cli.common import fail, log, say_removed
from otprune_lmms.cli.options import RESULTS, Quiet, experiment, path
from otprune_lmms.cli.stopping import ends_in_words

logger = logging.getLogger("otprune_lmms")

Configs = Annotated[
    list[Path],
    typer.Argument(
        parser=experiment,
        metavar="CONFIG",
        help="experiment files whose results are there, or embedded ones by name, as mini",
    ),
]
ResultsDir = Annotated[
    Path,
    typer.Option(
        "--output-dir", parser=path, metavar="FOLDER", help="folder of the results folders"
    ),
]
Images = Annotated[
    int, typer.Option(min=0, help="images of each task that are measured; 0 for all of them")
]
WithoutExact = Annotated[
    bool, typer.Option("--without-exact", help="leave out the exact distance, which needs POT")
]
TablesOnly = Annotated[
    bool, typer.Option("--tables-only", help="take the diagnostics that are there; loads no model")
]

_AGAIN = "`otprune plot`, then `otprune report`"


@ends_in_words
def analyze(
    configs: Configs,
    output_dir: ResultsDir = RESULTS,
    images: Images = 24,
    without_exact: WithoutExact = False,
    tables_only: TablesOnly = False,
    quiet: Quiet = False,
) -> None:
    """Measure what each method keeps, and set it beside the scores.

    For images of each task: the distance between kept and all visual tokens (exact and Gaussian
    2-Wasserstein), coverage, effective rank, time of selection. Then, as Fig. 2 of the paper:
    methods ranked by distance against methods ranked by score, with intervals; the same within
    single questions; agreement with the unpruned model's answers.

    Reads what `otprune run` left in a results folder, and writes diagnostics.parquet, analysis.csv
    and analysis.md there. Settings that prune inside the language model are left out.

    Example: otprune analyze configs/mini.yaml --images 24
    """
    log(quiet)
    from otprune_lmms.cli.experiments import check_devices, read_sources

    sources = read_sources(configs, hub=not tables_only)
    if not tables_only:
        check_devices(sources)
    from otprune_lmms.files import check_writable, exclusive
    from otprune_lmms.reporting.analysis.write import write_analysis
    from otprune_lmms.results import ANALYSES, SHOW_ANALYSES
    from otprune_lmms.results.diagnostics import write_diagnostics
    from otprune_lmms.results.stale import remove

    for source in sources:
        folder, found = output_dir / source.experiment.name, None
        try:
            if not tables_only:
                import transformers

                from otprune_lmms.experiments.diagnostics.diagnose import DiagnosticsOptions
                from otprune_lmms.experiments.diagnostics.experiment import diagnose_experiment

                transformers.utils.logging.disable_progress_bar()
                options = DiagnosticsOptions(images or None, False if without_exact else None)
                check_writable(folder)
                found = diagnose_experiment(source, folder, options, not quiet)
            with exclusive(folder, make=False):
                if found is not None:
                    remove(folder, ANALYSES)
                    say_removed(folder, remove(folder, SHOW_ANALYSES), _AGAIN)
                    write_diagnostics(found, folder)
                write_analysis(folder)
            logger.info("open %s", folder / "analysis.md")
        except (ValueError, RuntimeError, OSError, ImportError) as error:
            fail(f"{source.experiment.name}: {error}", 1)
