"""Prune the visual tokens in a processor's output: inputs of a model in, shorter inputs out.

Everything happens before the language model: images are encoded, tokens are chosen, and ids, masks,
positions and features are gathered. `otprune.hf.pruned` does this inside `forward` and `generate`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from otprune.hf.families import (
    EncodedImages,
    Family,
    Unit,
    UnsupportedModelError,
    family_of,
)
from otprune.hf.layers import BatchLayout, LayerPlan, Side, decoder_shape
from otprune.hf.layers.rows import stacked, take_last_axis
from otprune.hf.question import Question
from otprune.merger import Merger
from otprune.pruning import ImageTokens, Pruning, Trace, watched
from otprune.pruning.choose import budgets_of, choose_before
from otprune.pruning.image_tokens import check_image_ids
from otprune.pruning.questions import question_signals
from otprune.signals import TEXT_SIGNALS, TOKEN_AXIS

IMAGE_INPUTS = ("pixel_values", "pixel_values_images", "image_patches")
"""Arguments by which a call brings the pixels of images."""

ENCODED = "mm_encoder_outputs"
"""The argument by which it brings images that are encoded already."""

_VIDEO_INPUTS = ("pixel_values_videos",)
_GATHERED = {"attention_mask": 0, "token_type_ids": 0, "mm_token_type_ids": 0, "labels": -100}
"""Arguments with an entry for each id, and their value at padding."""

GIVEN_SIGNALS = frozenset({"grid", "tiles", "padding", "image_id"})
"""Signals that need no look into the vision encoder."""


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
    image_ids: Sequence[int | None] | None = None


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
    image_ids: Sequence[int | None] | None = None,
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
    missing = sorted(pruning.needs - TEXT_SIGNALS - GIVEN_SIGNALS - family.gives)
    missing += sorted(pruning.needs & {"clip_text"})
    methods = [type(stage.method).__name__ for stage in pruning.stages]
    methods += [] if pruning.pruner is None else [type(pruning.pruner).__name__]
    if missing:
        raise UnsupportedModelError(
            f"{', '.join(methods)} needs {', '.join(missing)}, which {family.name} does not give"
        )
    before = pruning.before
    if isinstance(before, Merger):
        if before.space != "tokens" and not family.projects:
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


def prepare(
    family: Family,
    inputs: Mapping[str, Any],
    pruning: Pruning,
    options: ImageOptions,
    trace: Trace | None = None,
) -> PrunedInputs:
    """Return the pruned arguments of a call that brings images; see `prune_inputs`."""
    ids = _ids(inputs)
    mask = _mask(inputs, ids)
    side = _side(mask)
    with torch.no_grad():
        encoded = family.encode(inputs, pruning.needs & family.gives)
    is_image = (ids == family.image_token_id).cpu()
    _check_count(encoded, is_image, family)
    units = _units(family, encoded, is_image, options.unit or family.units[0])
    images = [family.image(encoded, parts, inputs) for parts in units]
    if encoded.signals:
        images = _with_signals(images, encoded.signals, units)
    prompts = _Prompts(ids.cpu(), mask.cpu(), is_image, [len(one) for one in images], inputs)
    image_ids = check_image_ids(options.image_ids, len(images))
    embed = family.model.get_input_embeddings()
    tokenizer = getattr(options.tokenizer, "tokenizer", options.tokenizer)
    questions = [
        Question(embed, prompts.ids[row][prompts.question[row]], tokenizer)
        for row in range(len(ids))
    ]
    shape = decoder_shape(family.model.config.get_text_config())
    budgets = budgets_of(pruning, images, shape)
    tokens: Sequence[Tensor] = [image.tokens for image in images]
    kept = [torch.arange(len(image)) for image in images]
    chosen = pruning.before is not None and any(0 in budget for budget in budgets)
    if chosen:
        known = [
            question_signals(image.signals, pruning.needs, questions[row], one)
            for image, row, one in zip(images, prompts.row_of, image_ids, strict=True)
        ]
        with watched(trace), torch.no_grad():
            tokens, kept = choose_before(pruning, images, known, budgets, family.project)
    if trace is not None:
        trace.begin([len(image) for image in images], [0] * len(ids), kept if chosen else None)
    everything = all(
        len(keep) == len(image) and bool((keep == torch.arange(len(image))).all())
        for keep, image in zip(kept, images, strict=True)
    )
    new = {
        name: value
        for name, value in inputs.items()
        if name not in encoded.taken and name not in (*IMAGE_INPUTS, ENCODED)
    }
    output = encoded.output
    if everything:
        # The padding is left as it is, so that not a bit of the unpruned call changes.
        layout = prompts.unpruned
        index = torch.arange(ids.shape[1]).expand(len(ids), -1)
        valid = mask.cpu()
    else:
        output = family.with_tokens(output, tokens)
        output = family.take(output, units, kept)
        index, valid, layout = prompts.pruned(kept, side)
        for name, fill in _GATHERED.items():
            given = mask.to(ids) if name == "attention_mask" else inputs.get(name)
            if given is not None:
                taken = take_last_axis(given, index)
                new[name] = taken.masked_fill(~valid.to(taken.device), fill)
        new["input_ids"] = take_last_axis(ids, index).masked_fill(
            ~valid.to(ids.device), _padding_id(family)
        )
    new[ENCODED] = {"image": output}
    positions = _positions(family, inputs, mask, index, valid, pruning)
    if positions is not None and not (everything and not family.multimodal_positions):
        new["position_ids"] = positions
    if family.multimodal_positions:
        # The positions say all that these are for.
        for name in ("mm_token_type_ids", "image_grid_thw"):
            new.pop(name, None)
    plan = None
    if pruning.inside and images:
        axes = positions if positions is not None else _compact(valid)
        batch = BatchLayout(
            attention_mask=valid.to(ids.device),
            position_ids=axes,
            image_of=layout.image_of,
            token_of=layout.token_of,
            question=layout.question,
            answer=layout.answer,
            side=side,
        )
        new["position_ids"] = axes
        new["attention_mask"] = valid.to(ids)
        plan = LayerPlan(pruning, batch, images, image_ids, questions, budgets, trace)
    if trace is not None:
        lengths = valid.sum(1).tolist()
        trace.lengths[:] = [list(lengths) for _ in range(0 if plan is not None else shape.layers)]
    ragged = not everything and family.ragged_beams(output) and len({len(k) for k in kept}) > 1
    return PrunedInputs(new, plan, ragged)


def _with_signals(
    images: Sequence[ImageTokens], found: Sequence[Mapping[str, Tensor]], units: Sequence[range]
) -> list[ImageTokens]:
    """Return the images with signals of their pieces, put together."""
    made = []
    for image, unit in zip(images, units, strict=True):
        pieces = [found[number] for number in unit]
        # Those about a whole tile have one row a tile, which adds up on their first axis, too.
        joined = {
            name: torch.cat([piece[name] for piece in pieces], TOKEN_AXIS.get(name, 0))
            for name in pieces[0]
        }
        made.append(replace(image, signals=replace(image.signals, **joined)))
    return made


@dataclass(frozen=True, slots=True)
class _Layout:
    """What each position is, see `BatchLayout`; [b t] each, on the CPU."""

    image_of: Int64[Tensor, "b t"]
    token_of: Int64[Tensor, "b t"]
    question: Bool[Tensor, "b t"]
    answer: Bool[Tensor, "b t"]


class _Prompts:
    """The unpruned prompts of a batch, on the CPU.

    Args:
        ids: token ids, [b t].
        mask: which are no padding.
        is_image: which are image placeholders.
        sizes: tokens of each unit, in the order of the placeholders.
        inputs: of the call; ``labels`` say which ids are a given answer.
    """

    def __init__(
        self,
        ids: Int64[Tensor, "b t"],
        mask: Bool[Tensor, "b t"],
        is_image: Bool[Tensor, "b t"],
        sizes: Sequence[int],
        inputs: Mapping[str, Any],
    ) -> None:
        self.ids, self.mask, self.sizes = ids, mask, list(sizes)
        rows, columns = is_image.nonzero().unbind(1)
        self.columns = list(columns.split(self.sizes))
        self.row_of = [int(one[0]) for one in rows.split(self.sizes)]
        numbers = torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes))
        self.image_of = torch.full_like(ids, -1)
        self.image_of[is_image] = numbers
        self.token_of = torch.full_like(ids, -1)
        self.token_of[is_image] = torch.cat([torch.arange(size) for size in self.sizes])
        last = torch.where(is_image, torch.arange(ids.shape[1]), -1).amax(1, keepdim=True)
        after = (torch.arange(ids.shape[1]) > last) & mask
        self.question = after
        labels = inputs.get("labels")
        if labels is not None:
            unlabelled = labels.cpu() == -100
            # If all text is labelled, labels do not tell an answer from a question.
            if bool((unlabelled & mask & ~is_image).any()):
                self.question = after & unlabelled
        self.answer = after & ~self.question

    @property
    def unpruned(self) -> _Layout:
        """What each position of the unpruned batch is."""
        return _Layout(self.image_of, self.token_of, self.question, self.answer)

    def pruned(
        self, kept: Sequence[Int64[Tensor, " k"]], side: Side
    ) -> tuple[Int64[Tensor, "b u"], Bool[Tensor, "b u"], _Layout]:
        """Return the pruned batch: where each position comes from, which are no padding, and what.

        Tokens of a unit stand in the order that its method returns, at the places of those that are
        kept. A new token that takes no single token's place stands at the unit's first place.

        Args:
            kept: for each unit the numbers of its tokens that stay, -1 for a new token.
            side: where shorter rows are padded.
        """
        width = self.ids.shape[1]
        source: list[list[Tensor]] = [[] for _ in self.ids]
        order: list[list[Tensor]] = [[] for _ in self.ids]
        number: list[list[Tensor]] = [[] for _ in self.ids]
        for row, mask in enumerate(self.mask):
            text = (mask & (self.image_of[row] < 0)).nonzero()[:, 0]
            source[row].append(text)
            order[row].append(text)
            number[row].append(torch.full_like(text, -1))
        for unit, (keep, columns, row) in enumerate(
            zip(kept, self.columns, self.row_of, strict=True)
        ):
            places = keep.clamp(min=0)
            source[row].append(columns[places])
            order[row].append(columns[places.sort().values])
            new = torch.arange(len(keep)) + self.sizes[unit]
            number[row].append(torch.where(keep < 0, new, keep))
        picks, numbers = [], []
        for row in range(len(self.ids)):
            # Text and each unit are ascending already; a stable sort keeps a unit's own order.
            sorted_to = torch.cat(order[row]).argsort(stable=True)
            picks.append(torch.cat(source[row])[sorted_to])
            numbers.append(torch.cat(number[row])[sorted_to])
        index, valid = stacked(picks, side)
        token_of, _ = stacked(numbers, side)
        taken = index.clamp(max=width - 1)
        layout = _Layout(
            self.image_of.gather(1, taken).masked_fill(~valid, -1),
            token_of.masked_fill(~valid, -1),
            self.question.gather(1, taken) & valid,
            self.answer.gather(1, taken) & valid,
        )
        return index, valid, layout


def _ids(inputs: Mapping[str, Any]) -> Int64[Tensor, "b t"]:
    for name in _VIDEO_INPUTS:
        if inputs.get(name) is not None:
            raise UnsupportedModelError(f"videos cannot be pruned, got {name}")
    if inputs.get("inputs_embeds") is not None or inputs.get("input_ids") is None:
        raise ValueError(
            "input_ids must be given with images, and inputs_embeds must not: placeholders tell "
            "where images are"
        )
    if inputs.get("position_ids") is not None:
        raise ValueError("position_ids follow from attention_mask and pruning; leave them out")
    return inputs["input_ids"]


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


def _check_count(encoded: EncodedImages, is_image: Tensor, family: Family) -> None:
    there, given = int(is_image.sum()), sum(encoded.sizes)
    if there != given:
        raise ValueError(
            f"input_ids must have one placeholder (id {family.image_token_id}) for each of the "
            f"{given} visual tokens of the images, got {there}"
        )


def _units(
    family: Family, encoded: EncodedImages, is_image: Bool[Tensor, "b t"], unit: Unit
) -> list[range]:
    """Return for each unit which pieces of the encoder's output it has.

    Raises:
        ValueError: a piece whose placeholders are in two prompts.
    """
    sizes = encoded.sizes
    if unit == family.parts_are or (unit == "image" and family.parts_are == "image"):
        ends = list(range(1, len(sizes) + 1))
    else:
        # Pieces end where a run of placeholders, or a prompt, ends.
        rows, columns = is_image.nonzero().unbind(1)
        breaks = rows.diff() != 0
        if unit == "image":
            breaks |= columns.diff() != 1
        at = set((breaks.nonzero()[:, 0] + 1).tolist()) | {len(rows)}
        seen, ends = 0, []
        for number, size in enumerate(sizes, 1):
            seen += size
            if seen in at:
                ends.append(number)
    units = [range(first, end) for first, end in zip([0, *ends[:-1]], ends, strict=True)]
    rows = is_image.nonzero()[:, 0]
    for number, one in enumerate(rows.split(sizes)):
        if len(one) and int(one[0]) != int(one[-1]):
            raise ValueError(
                f"placeholders of {family.parts_are} {number} must be in one prompt, got some in "
                f"row {int(one[0])} and some in row {int(one[-1])} of input_ids"
            )
    return units


def _padding_id(family: Family) -> int:
    configured = getattr(family.model, "generation_config", None)
    found = getattr(configured, "pad_token_id", None)
    return 0 if found is None else int(found)


def _positions(
    family: Family,
    inputs: Mapping[str, Any],
    mask: Bool[Tensor, "b t"],
    index: Int64[Tensor, "b u"],
    valid: Bool[Tensor, "b u"],
    pruning: Pruning,
) -> Tensor | None:
    """Return the rotary positions of the pruned batch; None where the model's own are right."""
    if family.multimodal_positions:
        axes = take_last_axis(family.positions(inputs, mask), index)
        # The first row is for masks and the answer's positions in text, the others are rotary.
        return torch.cat([_compact(valid).to(axes)[None], axes])
    if pruning.positions_at(0) == "compact":
        return None
    return take_last_axis(family.positions(inputs, mask), index)


def _compact(valid: Bool[Tensor, "b t"]) -> Int64[Tensor, "b t"]:
    return (valid.long().cumsum(-1) - 1).clamp(min=0)
