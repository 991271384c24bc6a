"""Prune the visual tokens in a processor's output: inputs of a model in, shorter inputs out.

Everything happens before the language model: images are encoded, tokens are chosen, and ids, masks,
positions and features are gathered. `otprune.hf.pruned` does this inside `forward` and `generate`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from otprune.hf.families import Family, Unit, UnsupportedModelError, family_of
from otprune.hf.layers import BatchLayout, LayerPlan, Side, decoder_shape
from otprune.hf.layers.rows import take_last_axis
from otprune.hf.prompts import Prompts, PrunedRows
from otprune.hf.question import Question
from otprune.hf.visual import ENCODED, PIXELS, Units, modalities, units_of
from otprune.merger import Merger
from otprune.precision import new_tensors_on_cpu
from otprune.pruning import Pruning, Trace, watched
from otprune.pruning.choose import budgets_of, choose_before
from otprune.pruning.image_tokens import check_image_ids
from otprune.pruning.questions import question_signals
from otprune.signals import TEXT_SIGNALS

_GATHERED = {"attention_mask": 0, "token_type_ids": 0, "mm_token_type_ids": 0, "labels": -100}
"""Arguments with an entry for each id, and their value at padding."""

GIVEN_SIGNALS = frozenset({"grid", "tiles", "padding", "image_id"})
"""Signals that need no look into the vision encoder."""


ImageIds = Sequence[int | None] | Callable[[int], Sequence[int | None]]
"""Numbers of images, or a function that is asked for so many of them."""


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How the images of a call are told apart.

    Attributes:
        unit: what one budget is for; None for the family's default.
        tokenizer: for methods that read the question as text.
        image_ids: a number for each unit, by which seeded methods tell images apart.
    """

    unit: Unit | None = None
    tokenizer: Any = None
    image_ids: ImageIds | None = None


@dataclass(frozen=True, slots=True)
class PrunedInputs:
    """The arguments of a call with fewer visual tokens.

    Attributes:
        inputs: arguments for `forward` or `generate`.
        plan: what is to be pruned inside the language model; None if nothing.
        ragged_beams: whether several sequences for each prompt would mix up images.
    """

    inputs: dict[str, Any]
    plan: LayerPlan | None
    ragged_beams: bool


def prune_inputs(
    model: Any,
    inputs: Mapping[str, Any],
    pruning: Pruning,
    *,
    unit: Unit | None = None,
    tokenizer: Any = None,
    image_ids: ImageIds | None = None,
    trace: Trace | None = None,
) -> dict[str, Any]:
    """Return a processor's output with fewer image placeholders and the tokens that are kept.

    The result goes to ``model(**result)`` or ``model.generate(**result)``; what `generate` returns
    then begins with the shortened prompt. Nothing about the model is changed.

    Args:
        model: a ``...ForConditionalGeneration``.
        inputs: ``input_ids``, ``attention_mask``, pixels and what belongs to them; padded on one
            side.
        pruning: what to prune, before the language model only.
        unit: what one budget is for: "image", "tile", or "sample" for all images of a prompt.
        tokenizer: the model's tokenizer or processor, for methods that read the question as text.
        image_ids: a number for each unit, by which seeded methods tell images apart.
        trace: filled if given.

    Raises:
        ValueError: a pruning inside the language model, for which inputs are not enough; inputs
            that do not fit each other; a signal that the family cannot give.
    """
    if pruning.inside:
        raise ValueError(
            "pruning inside the language model needs `with otprune.hf.pruned(model, ...)`, inputs "
            "alone are not enough"
        )
    options = ImageOptions(unit, tokenizer, image_ids)
    family = family_of(model)
    check_pruning(family, pruning, unit)
    return prepare(family, inputs, pruning, options, trace).inputs


def check_pruning(family: Family, pruning: Pruning, unit: Unit | None = None) -> None:
    """Check that a pruning can be carried out in a family, before anything runs.

    Raises:
        UnsupportedModelError: the family cannot do it; the message names method and family.
        ValueError: a layer that the model does not have, a unit that the family does not know.
    """
    if unit is not None and unit not in family.units:
        raise ValueError(
            f"unit must be one of {', '.join(family.units)} for {family.name}, got {unit!r}"
        )
    if pruning.compat is not None:
        raise ValueError("compat is for the llava package, models of transformers have none")
    points = () if pruning.pruner is None else pruning.pruner.points
    layers = {stage.layer for stage in pruning.stages} | {point.layer for point in points}
    inside = layers - {0}
    compact = pruning.positions == "compact"
    compact |= any(pruning.positions_at(layer) == "compact" for layer in inside)
    if family.multimodal_positions and compact:
        raise UnsupportedModelError(
            f"positions must be original for {family.name}, whose positions have several axes; "
            "got 'compact', give positions='original'"
        )
    wanted = pruning.wanted(family.gives)
    missing = sorted(wanted - TEXT_SIGNALS - GIVEN_SIGNALS - family.gives)
    missing += sorted(pruning.needs & {"clip_text"})
    if missing:
        methods = [one for one in pruning.methods if one.wanted(family.gives) & set(missing)]
        raise UnsupportedModelError(
            f"{', '.join(type(one).__name__ for one in methods)} needs {', '.join(missing)}, which "
            f"{family.name} does not give{family.why_not(missing)}"
        )
    before = pruning.before
    if isinstance(before, Merger):
        if before.mixes(family.gives) != "tokens" and not family.projects:
            raise UnsupportedModelError(
                f"{type(before).__name__} mixes the projector's inputs, which {family.name} does "
                "not give"
            )
        if family.side_features is not None:
            raise UnsupportedModelError(
                f"{type(before).__name__} merges tokens; {family.name} has "
                f"{family.side_features} beside its tokens, for which nothing says how"
            )
    if pruning.inside:
        shape = family.adapter().shape
        pruning.check(256, shape)
        if min(inside) < family.first_layer:
            raise UnsupportedModelError(
                f"layer must be 0 or at least {family.first_layer} for {family.name}, which adds "
                f"{family.side_features} to the layers before; got {min(inside)}"
            )


@new_tensors_on_cpu()
def prepare(
    family: Family,
    inputs: Mapping[str, Any],
    pruning: Pruning,
    options: ImageOptions,
    trace: Trace | None = None,
    encoded: Units | None = None,
) -> PrunedInputs:
    """Return the pruned arguments of a call that brings images or videos; see `prune_inputs`.

    Args:
        family: the model.
        inputs: arguments of the call.
        pruning: what to prune.
        options: how images are told apart.
        trace: filled if given.
        encoded: images that were encoded before; the call brings no pixels then.
    """
    _check_inputs(inputs)
    ids = inputs["input_ids"]
    mask = _mask(inputs, ids)
    side = _side(mask)
    found = [encoded] if encoded is not None else []
    if encoded is None:
        unit = options.unit or family.units[0]
        wanted = pruning.wanted(family.gives) & family.gives
        found = [units_of(family, inputs, one, unit, wanted) for one in modalities(inputs)]
    images = [image for units in found for image in units.images]
    places = [place for units in found for place in units.places]
    labels = inputs.get("labels")
    prompts = Prompts(ids.cpu(), mask.cpu(), places, None if labels is None else labels.cpu())
    named = options.image_ids
    image_ids = check_image_ids(named(len(images)) if callable(named) else named, len(images))
    tokenizer = getattr(options.tokenizer, "tokenizer", options.tokenizer)
    embed = family.model.get_input_embeddings()
    questions = [Question(embed, prompts.question(row), tokenizer) for row in range(len(ids))]
    shape = decoder_shape(family.model.config.get_text_config())
    budgets = budgets_of(pruning, images, shape)
    tokens: Sequence[Tensor] = [image.tokens for image in images]
    kept = [torch.arange(len(image)) for image in images]
    chosen = pruning.before is not None and any(0 in budget for budget in budgets)
    if chosen:
        known = [
            question_signals(image.signals, pruning.needs, questions[row], one)
            for image, (row, _), one in zip(images, places, image_ids, strict=True)
        ]
        with watched(trace), torch.no_grad():
            tokens, kept = choose_before(pruning, images, known, budgets, family.project)
    everything = all(
        len(keep) == len(image) and bool((keep == torch.arange(len(image))).all())
        for keep, image in zip(kept, images, strict=True)
    )
    # With all tokens kept the padding is left as it is, so that not a bit of the call changes.
    rows = prompts.unpruned() if everything else prompts.pruned(kept, side)
    new = _rest(inputs, found)
    if not everything:
        new |= _gathered(family, inputs, mask, rows)
    new[ENCODED], first, ragged = {}, 0, False
    for units in found:
        mine = slice(first, first + len(units.images))
        output = units.encoded.output
        if not everything:
            output = units.output(family, tokens[mine], kept[mine])
        counts = None if everything else [len(keep) for keep in kept[mine]]
        ragged |= family.ragged_beams(output, counts, [row for row, _ in units.places])
        new[ENCODED][units.modality] = output
        first = mine.stop
    positions = _positions(family, inputs, mask, rows, pruning)
    if positions is not None and (family.multimodal_positions or not everything):
        new["position_ids"] = positions
    plan = None
    if pruning.inside and images:
        axes = _compact(rows.valid).to(ids.device) if positions is None else positions
        new |= {"position_ids": axes, "attention_mask": rows.valid.to(ids)}
        layout = rows.layout
        batch = BatchLayout(
            attention_mask=rows.valid.to(ids.device),
            position_ids=axes,
            image_of=layout.image_of,
            token_of=layout.token_of,
            question=layout.question,
            answer=layout.answer,
            side=side,
        )
        plan = LayerPlan(pruning, batch, images, image_ids, questions, budgets, trace)
    if trace is not None:
        trace.begin([len(image) for image in images], [0] * len(ids), kept if chosen else None)
        lengths = rows.valid.sum(1).tolist()
        trace.lengths[:] = [list(lengths) for _ in range(0 if plan is not None else shape.layers)]
    return PrunedInputs(new, plan, ragged)


def unpruned(
    family: Family, inputs: Mapping[str, Any], encoded: Units, trace: Trace | None = None
) -> PrunedInputs:
    """Return the arguments of a call about images that were encoded before, all tokens kept.

    Args:
        family: the model.
        inputs: arguments of the call, without pixels.
        encoded: the images.
        trace: filled if given.
    """
    _check_inputs(inputs)
    mask = _mask(inputs, inputs["input_ids"])
    new = _rest(inputs, [encoded])
    new[ENCODED] = {encoded.modality: encoded.encoded.output}
    if family.multimodal_positions:
        new["position_ids"] = _with_text(family.positions(inputs, mask), mask)
    if trace is not None:
        trace.begin([len(image) for image in encoded.images], [0] * len(mask), None)
        layers = decoder_shape(family.model.config.get_text_config()).layers
        trace.lengths[:] = [mask.sum(1).tolist() for _ in range(layers)]
    return PrunedInputs(new, None, False)


def _check_inputs(inputs: Mapping[str, Any]) -> None:
    if inputs.get("inputs_embeds") is not None or inputs.get("input_ids") is None:
        raise ValueError(
            "input_ids must be given with images, and inputs_embeds must not: placeholders tell "
            "where images are"
        )
    if inputs.get("position_ids") is not None:
        raise ValueError("position_ids follow from attention_mask and pruning; leave them out")


def _mask(inputs: Mapping[str, Any], ids: Tensor) -> Bool[Tensor, "b t"]:
    mask = inputs.get("attention_mask")
    if mask is None:
        return torch.ones_like(ids, dtype=torch.bool)
    if mask.shape != ids.shape:
        raise ValueError(
            f"attention_mask must have the shape of input_ids {tuple(ids.shape)}, "
            f"got {tuple(mask.shape)}"
        )
    return mask.to(ids.device).bool()


def _side(mask: Bool[Tensor, "b t"]) -> Side:
    """Return on which side a batch is padded; left if it is not.

    Raises:
        ValueError: on both sides, or in between.
    """
    steps = mask.int().diff(dim=1)
    if bool((steps >= 0).all()):
        return "left"
    if bool((steps <= 0).all()):
        return "right"
    raise ValueError("attention_mask must have its zeros on one side, the same for all rows")


def _rest(inputs: Mapping[str, Any], found: Sequence[Units]) -> dict[str, Any]:
    """Return the arguments that are not about images, and stay as they are."""
    used = {name for units in found for name in units.encoded.taken} | {ENCODED}
    used |= {name for names in PIXELS.values() for name in names}
    if any("grid_thw" in name for name in used):
        # The positions say all that these are for.
        used |= {"mm_token_type_ids", "second_per_grid_ts"}
    return {name: value for name, value in inputs.items() if name not in used}


def _gathered(
    family: Family, inputs: Mapping[str, Any], mask: Bool[Tensor, "b t"], rows: PrunedRows
) -> dict[str, Tensor]:
    """Return the ids that are left, and what has an entry for each id."""
    ids, made = inputs["input_ids"], {}
    for name, fill in (("input_ids", _padding_id(family)), *_GATHERED.items()):
        given = mask.to(ids) if name == "attention_mask" else inputs.get(name)
        if given is not None:
            taken = take_last_axis(given, rows.index)
            made[name] = taken.masked_fill(~rows.valid.to(taken.device), fill)
    return made


def _padding_id(family: Family) -> int:
    configured = getattr(family.model, "generation_config", None)
    found = getattr(configured, "pad_token_id", None)
    return 0 if found is None else int(found)


def _positions(
    family: Family,
    inputs: Mapping[str, Any],
    mask: Bool[Tensor, "b t"],
    rows: PrunedRows,
    pruning: Pruning,
) -> Tensor | None:
    """Return the rotary positions of the pruned batch; None where the model's own are right."""
    if family.multimodal_positions:
        return _with_text(take_last_axis(family.positions(inputs, mask), rows.index), rows.valid)
    if pruning.positions_at(0) == "compact":
        return None
    return take_last_axis(family.positions(inputs, mask), rows.index)


def _with_text(axes: Int64[Tensor, "m b t"], valid: Bool[Tensor, "b t"]) -> Tensor:
    """Return positions of several axes behind a row for masks and the answer's positions."""
    return torch.cat([_compact(valid).to(axes)[None], axes])


def _compact(valid: Bool[Tensor, "b t"]) -> Int64[Tensor, "b t"]:
    return (valid.long().cumsum(-1) - 1).clamp(min=0)
