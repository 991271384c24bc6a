"""Prompts about the same images begin alike: their common beginning is read once.

Questions about an image share the system's text, the image and often words around the question.
Where a model sees no later position and pruning does not read the question, the keys and values of
that prefix are the same for all of them. `PrefixRules.shared` says where the prompts of a batch are
cut; `otprune.hf.prefixes` goes on from the prefixes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor

from otprune import Selector
from otprune.adaptive import MOST
from otprune.cost import DecoderShape
from otprune.pruning import Pruning, Trace
from otprune.pruning.choose import budgets_of
from otprune_lmms.models.protocol import ModelInput

_LEAST_SAVED = 128
"""Positions that a batch must be spared, for the one call more that sharing takes."""


@dataclass(frozen=True, slots=True)
class SharedPrefixes:
    """How the prompts of a batch are cut.

    Attributes:
        prefixes: each prefix once, as a prompt that ends at or behind its last image.
        prefix_of: number of each prompt's prefix.
        suffixes: the ids that follow it: one or more, none of an image; [s] each.
    """

    prefixes: tuple[ModelInput, ...]
    prefix_of: tuple[int, ...]
    suffixes: tuple[Int64[Tensor, " s"], ...]

    def fill(self, trace: Trace, read: Trace) -> None:
        """Fill the trace of the whole prompts from that of their prefixes."""
        images, first = [], 0
        for prefix in self.prefixes:
            images.append(range(first, first + len(prefix.visual)))
            first += len(prefix.visual)
        rows = [image for number in self.prefix_of for image in images[number]]
        kept = [read.kept[0][image] for image in rows] if 0 in read.kept else None
        trace.begin([read.visual[image] for image in rows], [0] * len(self.prefix_of), kept)
        cuts = list(zip(self.prefix_of, self.suffixes, strict=True))
        trace.lengths[:] = [
            [entering[number] + len(suffix) for number, suffix in cuts] for entering in read.lengths
        ]


@dataclass(frozen=True, slots=True)
class PrefixRules:
    """Which prompts of a model share prefixes.

    Attributes:
        shape: the model's decoder.
        image_id: id of an image's placeholders.
        positions: the most that the model takes; where a prompt is longer nothing is shared.
    """

    shape: DecoderShape
    image_id: int
    positions: int

    def shared(
        self, inputs: Sequence[ModelInput], pruning: Pruning | None, *, together: bool
    ) -> SharedPrefixes | None:
        """Return how a batch is cut; None where nothing is shared, or too little to pay.

        Prompts with the same images and the same ids up to the last of them share all ids that they
        have in common. Prompts that share none are cut as well, where it costs the least, so that
        the whole batch goes on in one call.

        Args:
            inputs: the prompts; equal images must be the same objects.
            pruning: what is pruned; None for nothing.
            together: whether they would otherwise go through the model in one call, padded.
        """
        if len(inputs) < 2 or not (pruning is None or pruning.decided_by_images):
            return None
        heads = [self._head(one) for one in inputs]
        # What predicts a continuation's first id belongs to the suffix.
        most = [len(one.ids) - (one.answer + 1 if one.answer else 1) for one in inputs]
        if any(end < max(head, 1) for head, end in zip(heads, most, strict=True)):
            return None
        groups = _groups(inputs, heads)
        ends = _common_ends(inputs, groups, most)
        if not ends:
            return None
        longest = max(len(inputs[row].ids) - end for row, end in ends.items())
        for row, one in enumerate(inputs):
            ends.setdefault(row, min(most[row], max(heads[row], len(one.ids) - longest, 1)))
        if not self._pays(inputs, pruning, groups, ends, together):
            return None
        prefix_of = {row: number for number, rows in enumerate(groups) for row in rows}
        firsts = [(inputs[rows[0]], ends[rows[0]]) for rows in groups]
        return SharedPrefixes(
            tuple(ModelInput(one.ids[:end], one.visual, one.image_ids) for one, end in firsts),
            tuple(prefix_of[row] for row in range(len(inputs))),
            tuple(one.ids[ends[row] :] for row, one in enumerate(inputs)),
        )

    def _head(self, one: ModelInput) -> int:
        """Return how many ids of a prompt there are up to its last image."""
        places = (one.ids == self.image_id).nonzero()
        return int(places[-1]) + 1 if len(places) else 0

    def _pays(
        self,
        inputs: Sequence[ModelInput],
        pruning: Pruning | None,
        groups: Sequence[Sequence[int]],
        ends: dict[int, int],
        together: bool,
    ) -> bool:
        """Return whether a cut spares enough positions, and no prompt is too long."""
        lengths = self._lengths(inputs, pruning)
        if max(lengths) > self.positions or max(len(one.ids) for one in inputs) > self.positions:
            return False
        suffixes = [len(one.ids) - ends[row] for row, one in enumerate(inputs)]
        prefixes = [lengths[rows[0]] - suffixes[rows[0]] for rows in groups]
        whole = len(inputs) * max(lengths) if together else sum(lengths)
        cut = len(prefixes) * max(prefixes) + len(suffixes) * max(suffixes)
        return whole - cut >= _LEAST_SAVED

    def _lengths(self, inputs: Sequence[ModelInput], pruning: Pruning | None) -> list[int]:
        """Return how many positions of each prompt enter the language model after pruning."""
        images = {id(image): image for one in inputs for image in one.visual}
        kept = {name: len(image) for name, image in images.items()}
        if pruning is not None and images:
            budgets = budgets_of(pruning, list(images.values()), self.shape)
            method = pruning.before
            adaptive = isinstance(method, Selector) and not method.fixed_count
            for (name, image), budget in zip(images.items(), budgets, strict=True):
                most = budget.get(0, len(image)) * (MOST if adaptive else 1)
                kept[name] = min(most, len(image))
                if pruning.keep_newlines and image.newline is not None:
                    kept[name] += int(image.newline.sum())
        return [
            int((one.ids != self.image_id).sum()) + sum(kept[id(image)] for image in one.visual)
            for one in inputs
        ]


def _groups(inputs: Sequence[ModelInput], heads: Sequence[int]) -> list[list[int]]:
    """Return the rows with the same images and ids up to the last of them, first rows in order."""
    groups: dict[object, list[int]] = {}
    for row, (one, head) in enumerate(zip(inputs, heads, strict=True)):
        # Prompts without images have little in common; each is a group of its own.
        alone = None if one.visual else row
        images = tuple(map(id, one.visual))
        key = (alone, images, one.image_ids, one.ids[:head].numpy().tobytes())
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def _common_ends(
    inputs: Sequence[ModelInput], groups: Sequence[Sequence[int]], most: Sequence[int]
) -> dict[int, int]:
    """Return for each row that shares a prefix where it ends."""
    ends = {}
    for rows in groups:
        if len(rows) > 1:
            first = inputs[rows[0]].ids
            common = min(shared_beginning(first, inputs[row].ids) for row in rows[1:])
            end = min(common, *(most[row] for row in rows))
            ends |= dict.fromkeys(rows, end)
    return ends


def shared_beginning(one: Int64[Tensor, " t"], other: Int64[Tensor, " u"]) -> int:
    """Return how many ids two prompts have in common before the first that differs."""
    length = min(len(one), len(other))
    different = (one[:length] != other[:length]).nonzero()
    return int(different[0]) if len(different) else length
