"""The measured cost of an experiment's settings: ``cost.json``, ``cost.csv``, ``cost.md``.

`write_cost` writes the files; `rendered` gives the same tables for a terminal.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from otprune_lmms.files import write_text
from otprune_lmms.reporting.escape import markdown, markdown_code
from otprune_lmms.results.costs import (
    COST_TABLE,
    MeasuredCost,
    Speedup,
    Spread,
    cost_frame,
)
from otprune_lmms.results.names import Names

COST_RECORDS, PAGE = "cost.json", "cost.md"

_NOTHING = "–"
_MIB = 2**20

Rendered = tuple[str, list[str], list[list[str]]]
"""Heading, columns, rows."""

NOTES = (
    "Times are milliseconds of one sample: a call's time divided by its samples. Each batch's "
    "median over the rounds, in brackets its quartiles; then the mean over all samples. The spread "
    "is the machine's, not the samples'.",
    "Settings take turns within every batch, in an order drawn anew, after rounds that do not "
    "count; ratios are to the unpruned model of the same run.",
    "Prefill: from token ids and visual tokens to the first logits, without select, the selection "
    "of the tokens. Of the saving: select / (unpruned prefill - prefill), the part of the saved "
    "time that the selection takes away again; above 100 % it costs more than it saves.",
    "Against unpruned: how many times as fast prefill and selection together are, and the whole "
    'answer, with 95 % intervals over samples and rounds (bootstrap); "slower" or "faster" where '
    "the interval leaves out 1.",
    "Multiply-adds: of the decoder's prefill, each layer with the tokens that entered it; 4nd² + "
    "2n²d + 2ndm a layer by 2ndm, 3ndm instead of 2ndm at the end by 3ndm. Counted: "
    "floating-point operations as torch counts them, two a multiply-add, output head, padding and "
    "selection included; what else selection does is not counted.",
    "Preprocess: reading and decoding images, pixel values, token ids. Vision: encoder and "
    "projector. Decode: everything after the first logits; a token: a step, divided by the rows "
    "that share it. Answers are as long as the setting makes them.",
    "KV: keys and values after the prefill. Peak: largest memory while a batch was encoded and "
    "answered, weights included, of the whole batch; on a CPU the process's resident memory, "
    "libraries included. Added: what of it the batch added.",
)


def write_cost(
    folder: Path, records: Sequence[MeasuredCost], origin: Mapping[str, str], names: Names
) -> None:
    """Write the cost of settings, each file whole or not at all.

    Args:
        folder: results of an experiment; made if it is not there.
        records: from `experiments.cost.measuring.measure`, for one or more models and batch sizes.
        origin: see `provenance.origin`; has "hardware".
        names: of the settings.

    Raises:
        ValueError: no records.
        OutputError: a file could not be written.
    """
    if not records:
        raise ValueError("records must hold at least one setting, got none")
    lines = [record.plain() for record in records]
    content = {"origin": dict(origin), "records": lines}
    write_text(folder / COST_RECORDS, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    write_text(folder / COST_TABLE, cost_frame(lines).to_csv(index=False))
    write_text(folder / PAGE, page(records, origin, names))


def page(records: Sequence[MeasuredCost], origin: Mapping[str, str], names: Names) -> str:
    """Return ``cost.md``: where the numbers come from, the tables, what they mean."""
    lines = [f"# What an answer costs, on {markdown(origin['hardware'])}", ""]
    lines += [f"{markdown(name)}: {markdown_code(value)}  " for name, value in origin.items()]
    for heading, columns, rows in rendered(records, names):
        lines += ["", f"## {markdown(heading)}", ""]
        lines += [f"| {' | '.join(columns)} |", f"|---{'|--:' * (len(columns) - 1)}|"]
        lines += [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in NOTES), ""])


def _cell(text: str) -> str:
    """Return a cell; the warning stands out."""
    escaped = markdown(text)
    return escaped.replace("slower", "**slower**", 1) if text.startswith("slower ×") else escaped


def rendered(records: Sequence[MeasuredCost], names: Names) -> Iterator[Rendered]:
    """Yield two tables for each model and batch size: the prefill, and the whole answer.

    Args:
        records: of the settings.
        names: of the settings.
    """
    for (model, batch), group in groupby(records, key=lambda one: (one.model, one.batch)):
        some = list(group)
        first = some[0]
        once = "1 sample" if batch == 1 else f"{batch} samples"
        what = (
            f"{once} at once, {first.dtype}, attention {first.attention}; "
            f"{first.samples} samples, {first.repeats} rounds"
        )
        prefill = _prefill_columns(first.convention)
        for name, columns in (("prefill and selection", prefill), ("whole answer", _ANSWER)):
            rows = [
                [names.whole(one.config["row"]), *(text(one) for text in columns.values())]
                for one in some
            ]
            yield f"{model}, {name}: {what}", ["setting", *columns], rows


Columns = dict[str, Callable[[MeasuredCost], str]]


def _prefill_columns(convention: str) -> Columns:
    return {
        "visual tokens": lambda one: f"{_short(one.kept_tokens)} of {_short(one.visual_tokens)}",
        "text tokens": lambda one: _short(one.text_tokens),
        "prefill ms": lambda one: _time(one.prefill),
        "prefill ratio": lambda one: _number(one.prefill_ratio),
        f"G multiply-adds, {convention}": lambda one: _short(one.multiply_adds / 1e9),
        "multiply-add ratio": lambda one: _number(one.multiply_adds_ratio),
        "counted GFLOPs": lambda one: _short(one.counted_flops / 1e9),
        "counted ratio": lambda one: _number(one.counted_ratio),
        "select ms": lambda one: _time(one.select) if one.select.middle else _NOTHING,
        "of the saving": lambda one: _percent(one.select_share),
        "against unpruned": lambda one: _verdict(one, one.prefill_speedup),
    }


_ANSWER: Columns = {
    "preprocess ms": lambda one: _time(one.preprocess),
    "vision ms": lambda one: _time(one.vision),
    "select ms": lambda one: _time(one.select) if one.select.middle else _NOTHING,
    "prefill ms": lambda one: _time(one.prefill),
    "decode ms": lambda one: _time(one.decode),
    "ms a token": lambda one: _time(one.decode_per_token),
    "new tokens": lambda one: _short(one.new_tokens),
    "total ms": lambda one: _time(one.total),
    "total ratio": lambda one: _number(one.total_ratio),
    "vision GFLOPs": lambda one: _short(one.vision_flops / 1e9),
    "KV MiB": lambda one: _bytes(one.kv_bytes),
    "peak MiB": lambda one: _bytes(one.peak_bytes),
    "added MiB": lambda one: _bytes(one.added_bytes),
    "against unpruned": lambda one: _verdict(one, one.answer_speedup),
}


def _verdict(one: MeasuredCost, speedup: Speedup) -> str:
    """Return "faster ×1.83 [1.71, 1.95]"; for the unpruned model itself nothing."""
    word = speedup.verdict
    if word is None or one.config["method"] is None:
        return _NOTHING
    return f"{word} ×{speedup.times:.2f} [{speedup.low:.2f}, {speedup.high:.2f}]"


def _time(spread: Spread) -> str:
    if spread.middle is None or spread.low is None or spread.high is None:
        return _NOTHING
    return f"{_short(spread.middle)} ({_short(spread.low)}–{_short(spread.high)})"


def _short(value: float) -> str:
    """Return a number with three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _bytes(value: float | None) -> str:
    return _NOTHING if value is None else _short(value / _MIB)


def _number(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return _NOTHING if value is None else f"{100 * value:.0f} %"
