"""Layer pruners carried out with plain loops: no hooks, no batches, attention written out."""

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from llava.constants import IMAGE_TOKEN_INDEX
from otprune import LayerView, Modules
from otprune.cost import DecoderShape
from otprune.pruning import Pruning


def shape_of(model) -> DecoderShape:
    config = model.config
    return DecoderShape(
        config.hidden_size,
        config.intermediate_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.num_key_value_heads,
    )


def halves(x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([-second, first], -1)


@dataclass
class PlainProbe:
    """Answers by computing a layer's attention of all positions to all."""

    model: object
    inputs: dict[int, tuple[Tensor, Tensor]]

    def _angles(self, layer: int):
        hidden, places = self.inputs[layer]
        cos, sin = self.model.model.rotary_emb(hidden[None], places[None])
        return cos[0], sin[0]

    def _heads(self, layer: int, name: str) -> Tensor:
        block = self.model.model.layers[layer]
        width = block.self_attn.head_dim
        found = getattr(block.self_attn, name)(block.input_layernorm(self.inputs[layer][0]))
        cos, sin = self._angles(layer)
        found = found.view(len(found), -1, width).transpose(0, 1)
        return found * cos + halves(found) * sin

    def attention(self, layer: int, rows: Tensor) -> Tensor:
        query, keys = self._heads(layer, "q_proj"), self._heads(layer, "k_proj")
        each = len(query) // len(keys)
        found = []
        for head in range(len(query)):
            scores = query[head] @ keys[head // each].T / query.shape[-1] ** 0.5
            see = torch.ones_like(scores).tril().bool()
            found.append(scores.masked_fill(~see, -torch.inf).softmax(-1)[rows])
        return torch.stack(found)

    def keys(self, layer: int) -> Tensor:
        return self._heads(layer, "k_proj")

    def rotary(self, layer: int):
        return self._angles(layer)

    def final_norm(self, hidden: Tensor) -> Tensor:
        return self.model.model.norm(hidden)


@dataclass
class Recomputed:
    """One prompt through a layer pruner.

    Attributes:
        kept: by layer, numbers of each image's tokens.
        inputs: what entered each layer, and at which rotary positions.
        end: rotary position of the next token at each layer.
    """

    kept: dict[int, list[list[int]]] = field(default_factory=dict)
    inputs: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    end: dict[int, int] = field(default_factory=dict)
    logits: Tensor | None = None
    model: object = None

    @torch.no_grad()
    def decode(self, new: list[int]) -> Tensor:
        """Logits after some more tokens."""
        h = self.model.model.embed_tokens(torch.tensor(new))
        for layer, block in enumerate(self.model.model.layers):
            before, places = self.inputs[layer]
            more = torch.arange(len(new)) + self.end[layer]
            h = run(self.model, block, torch.cat([before, h]), torch.cat([places, more]))[0]
            h = h[-len(new) :]
        return self.model.lm_head(self.model.model.norm(h))[-1]

    @torch.no_grad()
    def greedy(self, count: int) -> list[int]:
        new = [int(self.logits[-1].argmax())]
        while len(new) < count:
            new.append(int(self.decode(new).argmax()))
        return new


def run(model, block, hidden: Tensor, places: Tensor):
    """A layer over one sequence, and what went in and out of its halves."""
    t = len(hidden)
    see = torch.ones(t, t).tril().bool()[None, None]
    bias = torch.zeros(1, 1, t, t).masked_fill(~see, torch.finfo(hidden.dtype).min)
    rope = model.model.rotary_emb(hidden[None], places[None])
    normed = block.input_layernorm(hidden[None])
    attended = block.self_attn(normed, attention_mask=bias, position_embeddings=rope)[0]
    middle = hidden[None] + attended
    again = block.post_attention_layernorm(middle)
    fed = block.mlp(again)
    return (middle + fed)[0], (normed, attended, again, fed)


def look(image, *, layer, hidden, places, kinds, visual, probe, total, started) -> LayerView:
    """What a layer pruner is shown of an image."""
    mine = [i for i, kind in enumerate(kinds) if kind[0] == image]
    question = [i for i, kind in enumerate(kinds) if kind[2]]
    return LayerView(
        layer,
        hidden,
        torch.tensor(mine, dtype=torch.long),
        torch.tensor([kinds[i][1] for i in mine], dtype=torch.long),
        len(visual[image]),
        torch.tensor(question, dtype=torch.long),
        places,
        probe,
        total,
        started.get(image),
    )


@torch.no_grad()
def recompute(
    model, pruning: Pruning, row: list[int], visual, batch, answer: int = 0
) -> Recomputed:
    """Carry out a pruning's layer pruner on one prompt.

    Args:
        model: the model.
        pruning: with a layer pruner.
        row: ids.
        visual: images before any pruning.
        batch: the prompt as it enters layer 0, see `LlavaMetaForCausalLM.prepare`.
        answer: ids at the end that nothing may be chosen by.
    """
    pruner, layers = pruning.pruner, model.config.num_hidden_layers
    out = Recomputed(model=model)
    hidden, places = batch.embeds[0], batch.position_ids[0]
    # Of each position: its image or None, its number, whether it is of the question, of the answer.
    last = max(i for i, token in enumerate(row) if token == IMAGE_TOKEN_INDEX)
    after = len(row) - 1 - last
    kinds = []
    for i in range(len(hidden)):
        image, left = int(batch.image_of[0, i]), len(hidden) - i
        number = int(batch.token_of[0, i])
        kinds.append((image, number, image < 0 and answer < left <= after, left <= answer))
    total = torch.zeros(len(hidden)) if pruner.observes else None
    plans = [pruning.plan(len(image), shape_of(model)) for image in visual]
    points = sorted({layer for plan in plans for layer in plan if layer})
    started, observed = {}, False
    unpruned_end = int(places.max()) + 1
    for layer, block in enumerate(model.model.layers):
        probe = PlainProbe(model, {**out.inputs, layer: (hidden, places)})

        view = partial(
            look,
            layer=layer,
            hidden=hidden,
            places=places,
            kinds=kinds,
            visual=visual,
            probe=probe,
            total=total if observed else None,
            started=started,
        )
        images = sorted({kind[0] for kind in kinds} - {-1})
        if layer == 0 and pruner.starts:
            for image in images:
                started[image] = pruner.start(view(image))
        if layer in points:
            out.kept[layer] = [[] for _ in visual]
            sequence = list(range(len(hidden)))
            vectors, new_kinds = list(hidden), list(kinds)
            for image in images:
                seen = view(image)
                mine = seen.visual.tolist()
                k = plans[image].get(layer, len(mine))
                if k < len(mine):
                    kept = pruner.prune(seen, k)
                    stays = {mine[i] for i in kept.index.tolist()}
                    behind = sequence.index(mine[-1]) + 1
                    number = max(len(visual[image]), *(kinds[i][1] + 1 for i in mine))
                    for merged in [] if kept.merged is None else kept.merged:
                        sequence.insert(behind, len(vectors))
                        vectors.append(merged)
                        new_kinds.append((image, number, False, False))
                        behind, number = behind + 1, number + 1
                    sequence = [i for i in sequence if i not in set(mine) - stays]
                out.kept[layer][image] = [
                    new_kinds[i][1] for i in sequence if new_kinds[i][0] == image
                ]
            at = []
            for i in sequence:
                at.append(int(places[i]) if i < len(places) else (at[-1] if at else 0))
            if total is not None:
                more = torch.zeros(len(vectors) - len(total))
                total = torch.cat([total, more])[sequence]
            hidden = torch.stack([vectors[i] for i in sequence])
            kinds = [new_kinds[i] for i in sequence]
            places = torch.tensor(at)
            if pruning.positions_at(layer) == "compact":
                places = torch.arange(len(hidden))
                unpruned_end = len(hidden)
        out.inputs[layer] = (hidden, places)
        out.end[layer] = unpruned_end
        hidden, parts = run(model, block, hidden, places)
        if layer in pruner.observes and layer < max(points):
            valid = torch.tensor([[not kind[3] for kind in kinds]])
            total = total + pruner.observe(Modules(layer, *parts, valid))[0]
            observed = True
    assert layers == len(out.inputs)
    out.logits = model.lm_head(model.model.norm(hidden))
    return out
