"""The tokens of each prompt that remain at a layer, and the choice among them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from otprune.hf.layers.plan import BatchLayout, LayerPlan
from otprune.hf.layers.probe import LayerInput, PromptProbe
from otprune.layer_pruner import Kept, LayerPruner, LayerView
from otprune.pruning.choose import Candidates, choose
from otprune.pruning.questions import question_signals
from otprune.selector import Selector
from otprune.signals import NO_SIGNALS


@dataclass(frozen=True)
class KeptPositions:
    """What is kept of a batch at the input of a layer; on the CPU but ``merged`` and ``scores``.

    Attributes:
        picks: for each prompt its kept positions, in order; merged tokens have positions after the
            batch's.
        kept: for each image the numbers of its kept tokens, merged ones after the others.
        merged: new tokens of each prompt, padded with 0 at the end; [b c d].
        merged_of: for each prompt the images of its merged tokens, in order.
        scores: for each image the scores that its tokens were ranked by.
    """

    picks: list[Int64[Tensor, " t"]]
    kept: dict[int, Int64[Tensor, " k"]]
    merged: Float[Tensor, "b c d"] | None = None
    merged_of: list[list[int]] = field(default_factory=list)
    scores: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class RemainingTokens:
    """A batch as the layers since the last stage see it; on the CPU.

    Attributes:
        origin: position in the batch as it entered the decoder, -1 at padding and merged tokens;
            [b t].
        image_of: image of each position, -1 elsewhere; [b t].
        token_of: number of each visual token among its image's tokens; merged tokens are numbered
            after them. [b t].
        question: which positions are the question; [b t].
        positions: rotary positions, [b t] or [m b t].
        padding: which positions are padding; [b t].
    """

    origin: Int64[Tensor, "b t"]
    image_of: Int64[Tensor, "b t"]
    token_of: Int64[Tensor, "b t"]
    question: Bool[Tensor, "b t"]
    positions: Int64[Tensor, "*m b t"]
    padding: Bool[Tensor, "b t"]

    @classmethod
    def at_first(cls, batch: BatchLayout) -> "RemainingTokens":
        """Return a batch as it enters the decoder."""
        rows, length = batch.image_of.shape
        padding = batch.attention_mask.cpu() == 0
        return cls(
            origin=torch.arange(length).expand(rows, -1).masked_fill(padding, -1),
            image_of=batch.image_of.masked_fill(padding, -1),
            token_of=batch.token_of,
            question=batch.question & ~padding,
            positions=batch.position_ids.cpu(),
            padding=padding,
        )

    @property
    def valid(self) -> Bool[Tensor, "b t"]:
        """Which positions are no padding."""
        return ~self.padding

    @property
    def lengths(self) -> list[int]:
        """Positions of each prompt, without padding."""
        return self.valid.sum(1).tolist()

    def marked(self, marks: Bool[Tensor, "b u"]) -> Bool[Tensor, "b t"]:
        """Return the remaining positions among those marked in the batch that entered the decoder.

        Merged tokens are never marked.
        """
        return marks.gather(1, self.origin.clamp(min=0)) & (self.origin >= 0)

    def images_of(self, row: int) -> list[int]:
        """Return the images of a prompt that have tokens left."""
        found = self.image_of[row]
        return found[found >= 0].unique().tolist()

    def gather(
        self,
        index: Int64[Tensor, "b u"],
        valid: Bool[Tensor, "b u"],
        kept: KeptPositions,
        positions: Int64[Tensor, "*m b u"],
    ) -> "RemainingTokens":
        """Return what remains after a stage.

        Args:
            index: ``kept.picks`` as a padded matrix.
            valid: which entries of ``index`` are no padding.
            kept: the choice.
            positions: rotary positions of what is kept.
        """
        merged = 0 if kept.merged is None else kept.merged.shape[1]

        def taken(values: Tensor, fill: int, of_merged: Tensor | None = None) -> Tensor:
            if of_merged is None:
                of_merged = values.new_full((len(values), merged), fill)
            whole = torch.cat([values, of_merged], dim=1)
            return whole.gather(1, index).masked_fill(~valid, fill)

        image_of = torch.full((len(self.origin), merged), -1)
        token_of = torch.full((len(self.origin), merged), -1)
        for row, images in enumerate(kept.merged_of):
            image_of[row, : len(images)] = torch.tensor(images, dtype=torch.long)
            for image in set(images):
                columns = (image_of[row] == image).nonzero()[:, 0]
                token_of[row, columns] = kept.kept[image][-len(columns) :]
        return RemainingTokens(
            origin=taken(self.origin, -1),
            image_of=taken(self.image_of, -1, image_of),
            token_of=taken(self.token_of, -1, token_of),
            question=taken(self.question, 0),
            positions=positions,
            padding=~valid,
        )


@dataclass(frozen=True)
class StageInput:
    """A batch at the input of a layer that prunes, and what the layer's method may use.

    Attributes:
        plan: the plan of the prefill.
        remaining: the tokens that entered this layer.
        inputs: the layer's input. With beams, each prompt has several equal rows there.
        before: the input of the layer before it, if the method looks back.
        started: for each image, the result of `LayerPruner.start`.
        observed: sums of `LayerPruner.observe`, [b t].
    """

    plan: LayerPlan
    remaining: RemainingTokens
    inputs: LayerInput
    before: LayerInput | None = None
    started: Mapping[int, Any] = field(default_factory=dict)
    observed: Float[Tensor, "b t"] | None = None

    @property
    def repeats(self) -> int:
        """Equal rows of each prompt in ``inputs``; the first of them is looked at."""
        return len(self.inputs.hidden) // len(self.remaining.origin)

    def views(self) -> Iterator[tuple[int, int, LayerView]]:
        """Yield row, image and what a layer pruner sees of the image."""
        plan, remaining, inputs = self.plan, self.remaining, self.inputs
        device = inputs.hidden.device
        for row, valid in enumerate(remaining.valid):
            places = valid.nonzero()[:, 0]
            on_device = places.to(device)
            first = row * self.repeats
            probe = PromptProbe(inputs, self.before, first, places)
            for image in remaining.images_of(row):
                visual = (remaining.image_of[row, places] == image).nonzero()[:, 0]
                numbers = remaining.token_of[row, places[visual]]
                n = len(plan.images[image])
                known = NO_SIGNALS
                if int(numbers.max()) < n and plan.wants_signals:
                    known = plan.images[image].signals.take(numbers).to(device)
                question = remaining.question[row, places].nonzero()[:, 0]
                observed = None if self.observed is None else self.observed[row, on_device]
                yield (
                    row,
                    image,
                    LayerView(
                        layer=inputs.number,
                        hidden=inputs.hidden[first, on_device],
                        visual=visual.to(device),
                        numbers=numbers.to(device),
                        n=n,
                        question=question.to(device),
                        positions=remaining.positions[..., row, places].to(device),
                        probe=probe,
                        accumulated=observed,
                        started=self.started.get(image),
                        signals=known,
                    ),
                )

    def choose(self) -> KeptPositions:
        """Return what the method of this layer keeps.

        Raises:
            ValueError: the plan has no method for the layer.
        """
        method = self.plan.pruning.method_at(self.inputs.number)
        if isinstance(method, LayerPruner):
            return self._by_layer_pruner(method)
        if method is None:
            raise ValueError(f"nothing prunes at layer {self.inputs.number}")
        return self._by_selector(method)

    def _by_layer_pruner(self, method: LayerPruner) -> KeptPositions:
        numbers_of, scores, chosen = {}, {}, {}
        for row, image, view in self.views():
            budget = self.plan.budgets[image].get(view.layer, len(view.visual))
            numbers = view.numbers.cpu()
            numbers_of[image] = numbers
            if budget >= len(view.visual):
                continue
            kept = method.prune(view, budget)
            chosen[row, image] = kept
            numbers_of[image] = numbers[kept.index.cpu().sort().values]
            if kept.merged is not None:
                first = max(view.n, int(numbers.max()) + 1)
                new = torch.arange(len(kept.merged)) + first
                numbers_of[image] = torch.cat([numbers_of[image], new])
            if kept.scores is not None:
                scores[image] = kept.scores.float().cpu()
        return self._with_merged(numbers_of, scores, chosen)

    def _with_merged(
        self,
        numbers_of: dict[int, Tensor],
        scores: dict[int, Tensor],
        chosen: Mapping[tuple[int, int], Kept],
    ) -> KeptPositions:
        """Return the choice, with merged tokens behind the last of their image's old positions."""
        remaining, hidden = self.remaining, self.inputs.hidden
        width = remaining.origin.shape[1]
        picks, merged, merged_of = [], [], []
        for row, valid in enumerate(remaining.valid):
            is_kept, new, images = valid.clone(), [], []
            order = torch.arange(width, dtype=torch.float64)
            order_of_merged = []
            for image in remaining.images_of(row):
                kept = chosen.get((row, image))
                if kept is None:
                    continue
                # By position, not by number: two of a merger's tokens may have the same number.
                positions = (remaining.image_of[row] == image).nonzero()[:, 0]
                is_kept[positions] = False
                is_kept[positions[kept.index.cpu()]] = True
                if kept.merged is None:
                    continue
                order_of_merged += [float(positions[-1]) + 0.5] * len(kept.merged)
                new.append(kept.merged)
                images += [image] * len(kept.merged)
            old = is_kept.nonzero()[:, 0]
            keys = torch.cat([order[old], torch.tensor(order_of_merged, dtype=torch.float64)])
            numbers = torch.cat([old, torch.arange(len(images)) + width])
            picks.append(numbers[keys.argsort(stable=True)])
            empty = hidden.new_zeros(0, hidden.shape[2])
            merged.append(torch.cat([empty, *(one.to(empty) for one in new)]))
            merged_of.append(images)
        if not any(merged_of):
            return KeptPositions(picks, numbers_of, scores=scores)
        padded = torch.nn.utils.rnn.pad_sequence(merged, batch_first=True)
        return KeptPositions(picks, numbers_of, padded, merged_of, scores)

    def _by_selector(self, method: Selector) -> KeptPositions:
        plan, remaining = self.plan, self.remaining
        device = self.inputs.hidden.device
        candidates, positions_of = [], []
        for row in range(len(remaining.origin)):
            hidden = self.inputs.hidden[row * self.repeats]
            of_question = remaining.question[row].nonzero()[:, 0]
            question = plan.questions[row].inside(hidden[of_question.to(device)])
            for image in remaining.images_of(row):
                positions = (remaining.image_of[row] == image).nonzero()[:, 0]
                about = plan.images[image].signals if plan.wants_signals else NO_SIGNALS
                known = question_signals(about, plan.pruning.needs, question, plan.image_ids[image])
                candidates.append(
                    Candidates(
                        image=plan.images[image],
                        numbers=remaining.token_of[row, positions],
                        tokens=hidden[positions.to(device)],
                        budget=plan.budgets[image].get(self.inputs.number, len(positions)),
                        known=known,
                    )
                )
                positions_of.append((row, image, positions))
        chosen = choose(method, candidates, plan.pruning.keep_newlines) if candidates else []
        is_kept, numbers_of = remaining.valid.clone(), {}
        for (row, image, positions), one, kept in zip(
            positions_of, candidates, chosen, strict=True
        ):
            is_kept[row, positions] = False
            is_kept[row, positions[kept]] = True
            numbers_of[image] = one.numbers[kept.sort().values]
        return KeptPositions([row.nonzero()[:, 0] for row in is_kept], numbers_of)
