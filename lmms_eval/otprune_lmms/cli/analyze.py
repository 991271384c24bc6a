"""``otprune analyze``: does distance explain the score?"""

from pathlib import Path
from typing import Annotated

import typer

from otprune_lmms.cli.common import fail, log

Configs = Annotated[
    list[Path],
    typer.Argument(help="experiment files whose results are there, as configs/mini.yaml"),
]
OutputDir = Annotated[
    Path | None, typer.Option(help="folder of the results; default results/<name>")
]
Images = Annotated[
    int, typer.Option(min=0, help="images of each task that are diagnosed; 0 for all of them")
]
WithoutExact = Annotated[
    bool, typer.Option("--without-exact", help="leave out the exact distance, which needs POT")
]
TablesOnly = Annotated[
    bool, typer.Option("--tables-only", help="take the diagnostics that are there; loads no model")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress")]


def analyze(
    configs: Configs,
    output_dir: OutputDir = None,
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

    Reads what `otprune run` left in results/<name>, and writes diagnostics.parquet, analysis.csv
    and analysis.md there. Settings that prune inside the language model are left out.

    Example: otprune analyze configs/mini.yaml --images 24
    """
    log(quiet)
    from otprune_lmms.cli.run import read

    experiments = read(configs)
    exact = False if without_exact else None
    if output_dir and len(experiments) > 1:
        fail("--output-dir goes with one experiment", 2)
    for path, experiment in zip(configs, experiments, strict=True):
        folder = output_dir or Path("results") / experiment.name
        try:
            analyze_one(path, folder, images or None, exact, tables_only, quiet)
        except (ValueError, RuntimeError, OSError, ImportError) as error:
            fail(f"{path}: {error}", 1)


def analyze_one(
    path: Path,
    folder: Path,
    images: int | None = 24,
    exact: bool | None = None,
    tables_only: bool = False,
    quiet: bool = False,
) -> None:
    """Diagnose one experiment and write its analysis.

    Args:
        path: of the experiment's file.
        folder: its results.
        images: documents with images of their own of each task; None for all.
        exact: whether to solve the exact transport problem too; None: where POT is installed.
        tables_only: whether the diagnostics that are there will do.
        quiet: no progress.

    Raises:
        ValueError: see `diagnose_experiment` and `write_analysis`.
        ImportError: ``exact`` without POT.
    """
    from otprune_lmms.reporting.analysis.write import write_analysis

    if not tables_only:
        import transformers

        from otprune_lmms.experiments.config import load_experiment
        from otprune_lmms.experiments.diagnostics.experiment import diagnose_experiment
        from otprune_lmms.results.diagnostics import write_diagnostics

        transformers.utils.logging.disable_progress_bar()
        found = diagnose_experiment(
            load_experiment(path),
            path.parent,
            folder,
            images=images,
            exact=exact,
            progress=not quiet,
        )
        write_diagnostics(found, folder)
    write_analysis(folder)
