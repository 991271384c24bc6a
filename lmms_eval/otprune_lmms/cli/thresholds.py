"""``otprune thresholds``: thresholds under which adaptive counts have the budget as their mean."""

import json
from typing import Annotated

import typer

from otprune_lmms.cli.common import fail, log
from otprune_lmms.cli.options import Configs, Json, Quiet
from otprune_lmms.cli.stopping import ends_in_words

Images = Annotated[
    int, typer.Option(min=0, help="images of each task that are used; 0 for all of them")
]

_COLUMNS = (
    *("model", "setting", "threshold", "images"),
    *("budget", "mean", "lowest", "quartiles", "highest"),
)


@ends_in_words
def thresholds(
    configs: Configs, images: Images = 0, as_json: Json = False, quiet: Quiet = False
) -> None:
    """Choose thresholds for methods whose counts may differ between images.

    For each setting of an experiment that can have one: the threshold under which the images of
    its tasks keep the setting's budget on average, with the spread of the counts. Write it into an
    experiment as settings: {adaptive: true, threshold: ...}. No answer is made or read. Choose on
    other documents than those that the comparison is made on.

    Example: otprune thresholds my-development.yaml --images 40
    """
    log(quiet)
    from otprune_lmms.cli.experiments import check_devices, read_sources

    sources = read_sources(configs)
    check_devices(sources)
    from otprune_lmms.cli.terminal import Listing, say
    from otprune_lmms.experiments.thresholds import thresholds_of_experiment

    found = []
    for source in sources:
        try:
            found += thresholds_of_experiment(source, images or None, not quiet)
        except (ValueError, RuntimeError, OSError) as error:
            fail(f"{source.experiment.name}: {error}", 1)
    if as_json:
        say(json.dumps([one.plain() for one in found], indent=1))
        return
    rows = []
    for one in found:
        mean, low, first, middle, third, high = (f"{count:g}" for count in one.counts)
        chosen = (one.model, one.setting, f"{one.threshold:g}", str(one.images), f"{one.budget:g}")
        rows.append((*chosen, mean, low, f"{first} {middle} {third}", high))
    Listing(_COLUMNS, rows, names=2).show()
