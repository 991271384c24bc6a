"""A section of the statistics page: comparisons with rows whose prompts were cut."""

from otprune_lmms.benchmarks import benchmark
from otprune_lmms.reporting.escape import markdown
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.names import Names
from otprune_lmms.results.records import UNPRUNED


def cut_section(records: Frame, names: Names) -> str:
    """Return a section about prompts longer than the model takes; "" if none was cut.

    Args:
        records: of an experiment, with the column ``truncated``.
        names: of the rows.
    """
    known = records.fillna({"truncated": 0}).drop_duplicates(["model", "setting", "task"])
    cut = known[known["truncated"] > 0]
    if cut.empty:
        return ""
    lines = ["", "## Prompts that were cut", ""]
    for line in cut.itertuples():
        column, row = benchmark(str(line.task)).column, str(line.row)
        unfair = ", so comparisons with it are unfair" if row == UNPRUNED else ""
        where = markdown(f"{line.model} {names.whole(row)}, {column}")
        lines.append(
            f"- {where}: {int(line.truncated)} of {int(line.documents)} prompts are longer "
            f"than the model takes and lost their ends{unfair}"
        )
    return "\n".join([*lines, ""])
