"""What stays of each prompt at the input of a layer, and what every position stands for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from llava.model.text import question_signals
from llava.pruning.probe import Layers, PromptProbe
from otprune import Kept, LayerPruner, LayerView, Selector
from otprune.pruning.choose import Candidates, choose
from otprune.signals import NO_SIGNALS

if TYPE_CHECKING:
    from llava.pruning.prefill import LayerPlan


@dataclass(frozen=True)
class Decision:
    """What stays at a layer.

    Attributes:
        picks: for each prompt the positions that stay, in order; those of merged tokens follow the
            positions of the batch. On the CPU, as all but ``merged`` and ``scores``.
        kept: for each image the numbers of its tokens that stay, merged ones after the others.
        merged: new tokens of each prompt, padded with 0 at the end; [b c d].
        merged_of: for each prompt the images of its merged tokens, in order.
        scores: for each image what was ranked.
    """

    picks: list[Int64[Tensor, " t"]]
    kept: dict[int, Int64[Tensor, " k"]]
    merged: Float[Tensor, "b c d"] | None = None
    merged_of: list[list[int]] = field(default_factory=list)
    scores: dict[int, Tensor] = field(default_factory=dict)


@dataclass
class Alive:
    """The prompts as the layers since the last point see them; on the CPU.

    Attributes:
        origin: number of each position in the batch as it entered layer 0, -1 at padding and at
            merged tokens; [b t].
        image_of: image of each position, -1 elsewhere.
        token_of: number of the visual token within its image; merged tokens go on from the last.
        question: which positions are the question.
        padding: which positions are padding; from ``origin`` if not given.
    """

    origin: Int64[Tensor, "b t"]
    image_of: Int64[Tensor, "b t"]
    token_of: Int64[Tensor, "b t"]
    question: Bool[Tensor, "b t"]
    padding: Bool[Tensor, "b t"] | None = None

    @property
    def valid(self) -> Bool[Tensor, "b t"]:
        """Which positions are no padding."""
        return self.origin >= 0 if self.padding is None else ~self.padding

    @property
    def lengths(self) -> list[int]:
        """Positions of each prompt that are no padding."""
        return self.valid.sum(1).tolist()

    def at(self, marks: Bool[Tensor, "b u"]) -> Bool[Tensor, "b t"]:
        """Return what is marked of the batch as it entered layer 0; no merged tokens."""
        return marks.gather(1, self.origin.clamp(min=0)) & (self.origin >= 0)

    def images_of(self, row: int) -> list[int]:
        """Images of a prompt that have tokens left."""
        found = self.image_of[row]
        return found[found >= 0].unique().tolist()

    def views(
        self,
        plan: LayerPlan,
        layers: Layers,
        before: Layers | None,
        started: Mapping[int, Any],
        total: Float[Tensor, "b t"] | None,
    ) -> Iterator[tuple[int, int, LayerView]]:
        """Yield row, image and what a layer pruner sees of it."""
        repeats = len(layers.hidden) // len(self.origin)
        device = layers.hidden.device
        for row, valid in enumerate(self.valid):
            places = valid.nonzero()[:, 0]
            here = places.to(device)
            probe = PromptProbe(layers, before, row * repeats, places)
            for image in self.images_of(row):
                visual = (self.image_of[row, places] == image).nonzero()[:, 0]
                alive = self.token_of[row, places[visual]]
                n = len(plan.images[image])
                known = NO_SIGNALS
                if int(alive.max()) < n and plan.wants_signals:
                    known = plan.images[image].signals.take(alive).to(device)
                yield (
                    row,
                    image,
                    LayerView(
                        layer=layers.number,
                        hidden=layers.hidden[row * repeats, here],
                        visual=visual.to(device),
                        alive=alive.to(device),
                        n=n,
                        question=self.question[row, places].nonzero()[:, 0].to(device),
                        positions=layers.positions[row * repeats, here],
                        probe=probe,
                        accumulated=None if total is None else total[row, here],
                        started=started.get(image),
                        signals=known,
                    ),
                )

    def gather(
        self, index: Int64[Tensor, "b t"], valid: Bool[Tensor, "b t"], decision: Decision
    ) -> Alive:
        """Return what is left at the positions ``index``."""
        more = 0 if decision.merged is None else decision.merged.shape[1]

        def taken(values: Tensor, fill: int, new: Tensor | None = None) -> Tensor:
            extra = values.new_full((len(values), more), fill) if new is None else new
            whole = torch.cat([values, extra], dim=1)
            return whole.gather(1, index).masked_fill(~valid, fill)

        image_of = torch.full((len(self.origin), more), -1)
        token_of = torch.full((len(self.origin), more), -1)
        for row, images in enumerate(decision.merged_of):
            image_of[row, : len(images)] = torch.tensor(images, dtype=torch.long)
            for image in set(images):
                mine = (image_of[row] == image).nonzero()[:, 0]
                token_of[row, mine] = decision.kept[image][-len(mine) :]
        return Alive(
            origin=taken(self.origin, -1),
            image_of=taken(self.image_of, -1, image_of),
            token_of=taken(self.token_of, -1, token_of),
            question=taken(self.question, 0),
            padding=~valid,
        )


def decide(
    plan: LayerPlan,
    alive: Alive,
    layers: Layers,
    before: Layers | None,
    started: Mapping[int, Any],
    total: Float[Tensor, "b t"] | None,
) -> Decision:
    """Return what stays at the input of a layer."""
    method = plan.pruning.method_at(layers.number)
    if isinstance(method, LayerPruner):
        return _by_pruner(method, plan, alive, layers, before, started, total)
    if method is None:
        raise ValueError(f"nothing prunes at layer {layers.number}")
    return _by_selector(method, plan, alive, layers)


def _by_pruner(
    method: LayerPruner,
    plan: LayerPlan,
    alive: Alive,
    layers: Layers,
    before: Layers | None,
    started: Mapping[int, Any],
    total: Float[Tensor, "b t"] | None,
) -> Decision:
    kept, scores, found = {}, {}, {}
    for row, image, view in alive.views(plan, layers, before, started, total):
        budget = plan.budgets[image].get(layers.number, len(view.visual))
        numbers = view.alive.cpu()
        kept[image] = numbers
        if budget >= len(view.visual):
            continue
        one = method.prune(view, budget)
        index = one.index.cpu().sort().values
        found[row, image] = one
        kept[image] = numbers[index]
        if one.merged is not None:
            first = max(view.n, int(numbers.max()) + 1)
            new = torch.arange(len(one.merged)) + first
            kept[image] = torch.cat([kept[image], new])
        if one.scores is not None:
            scores[image] = one.scores.float().cpu()
    return _decision(plan, alive, layers, kept, scores, found)


def _decision(
    plan: LayerPlan,
    alive: Alive,
    layers: Layers,
    kept: dict[int, Tensor],
    scores: dict[int, Tensor],
    found: Mapping[tuple[int, int], Kept],
) -> Decision:
    """Return the decision in which merged tokens follow what their image keeps."""
    width = alive.origin.shape[1]
    picks, merged, merged_of = [], [], []
    for row, valid in enumerate(alive.valid):
        stays, new, images = valid.clone(), [], []
        order = torch.arange(width, dtype=torch.float64)
        after = []
        for image in alive.images_of(row):
            place = (alive.image_of[row] == image).nonzero()[:, 0]
            one = found.get((row, image))
            if one is None:
                continue
            # By place, not by number: a merger may let two tokens stand in the same one's place.
            stays[place] = False
            stays[place[one.index.cpu()]] = True
            if one.merged is None:
                continue
            # Behind the last of the image's places, in front of what follows.
            after += [float(place[-1]) + 0.5] * len(one.merged)
            new.append(one.merged)
            images += [image] * len(one.merged)
        old = stays.nonzero()[:, 0]
        position = torch.cat([order[old], torch.tensor(after, dtype=torch.float64)])
        numbers = torch.cat([old, torch.arange(len(images)) + width])
        picks.append(numbers[position.argsort(stable=True)])
        empty = layers.hidden.new_zeros(0, layers.hidden.shape[2])
        merged.append(torch.cat([empty, *(one.to(empty) for one in new)]))
        merged_of.append(images)
    if not any(merged_of):
        return Decision(picks, kept, scores=scores)
    padded = torch.nn.utils.rnn.pad_sequence(merged, batch_first=True)
    return Decision(picks, kept, padded, merged_of, scores)


def _by_selector(method: Selector, plan: LayerPlan, alive: Alive, layers: Layers) -> Decision:
    repeats = len(layers.hidden) // len(alive.origin)
    device = layers.hidden.device
    candidates, places, kept = [], [], {}
    needs = plan.pruning.needs
    for row in range(len(alive.origin)):
        hidden = layers.hidden[row * repeats]
        asked = alive.question[row].nonzero()[:, 0]
        question = plan.questions[row].inside(hidden[asked.to(device)])
        for image in alive.images_of(row):
            place = (alive.image_of[row] == image).nonzero()[:, 0]
            numbers = alive.token_of[row, place]
            tokens = hidden[place.to(device)]
            about = plan.images[image].signals if plan.wants_signals else NO_SIGNALS
            known = question_signals(about, needs, question, plan.image_ids[image])
            budget = plan.budgets[image].get(layers.number, len(place))
            candidates.append(Candidates(plan.images[image], numbers, tokens, budget, known))
            places.append((row, image, place))
    chosen = choose(method, candidates, plan.pruning.keep_newlines) if candidates else []
    stays = alive.valid.clone()
    for (row, image, place), one, keep in zip(places, candidates, chosen, strict=True):
        stays[row, place] = False
        stays[row, place[keep]] = True
        kept[image] = one.alive[keep.sort().values]
    return Decision([row.nonzero()[:, 0] for row in stays], kept)
