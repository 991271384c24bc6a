"""The model with tokens masked instead of dropped, written out layer by layer."""

import torch

from helpers import loaded, padded, visual_of
from llava.constants import IMAGE_TOKEN_INDEX
from otprune import make_pruner
from otprune.pruning import Stage

CKPT = "checkpoints/tiny-llava-v1.5"
LAYERS = 4
IMAGE = IMAGE_TOKEN_INDEX
ROWS = [
    [1, 20, 21, 22, IMAGE, 30, 31, 32, 33],
    [1, IMAGE, 40, 41, IMAGE, 42],
    [1, 50, 51, 52, 53, 54],
    [1, 60, 61, 62, 63, 64, 65, IMAGE],
]
STAGES = {
    "one": (Stage(make_pruner("otprune"), k=40, layer=2),),
    "first layer": (Stage(make_pruner("divprune"), keep_ratio=0.05, layer=1),),
    "last layer": (Stage(make_pruner("uniform"), k=7, layer=3),),
    "three": (
        Stage(make_pruner("herding"), keep_ratio=0.5, layer=1),
        Stage(make_pruner("otprune"), keep_ratio=0.1, layer=2),
        Stage(make_pruner("random"), k=9, layer=3),
    ),
    "before and inside": (
        Stage(make_pruner("otprune"), k=100),
        Stage(make_pruner("divprune"), k=20, layer=2),
    ),
}


def images(count: int):
    names = ("images/land.png", "images/port.png")
    return [visual_of(CKPT, names[i % 2]) for i in range(count)]


def request(rows=ROWS, side="left"):
    count = sum(row.count(IMAGE) for row in rows)
    return padded([torch.tensor(row) for row in rows], side) | {
        "visual": images(count),
        "image_ids": list(range(count)),
    }


def model_of(attention: str = "sdpa"):
    model = loaded(CKPT)[1]
    model.set_attn_implementation(attention)
    return model


class Masked:
    """One prompt with nothing dropped: at each layer, dropped tokens are hidden from all others."""

    def __init__(self, model, row, visual, kept_by_layer, positions_at):
        self.model = model
        batch = model.prepare(
            torch.tensor([row]), None, None, visual, pruning=None, side="left"
        ).batch
        self.embeds = batch.embeds
        image_of, token_of = batch.image_of[0], batch.token_of[0]
        remaining = torch.ones(len(image_of), dtype=torch.bool)
        self.remaining, self.places = [], []
        place = torch.arange(len(remaining))
        for layer in range(LAYERS):
            if layer in kept_by_layer:
                for image, kept in enumerate(kept_by_layer[layer]):
                    mine = image_of == image
                    remaining &= ~mine | torch.isin(token_of, kept)
                if positions_at(layer) == "compact":
                    place = (remaining.cumsum(0) - 1).clamp(min=0)
            self.remaining.append(remaining.clone())
            self.places.append(place)

    @torch.no_grad()
    def logits(self, new=()):
        """[1 + len(new), vocabulary]: at the last position that is left, and at decoded tokens."""
        embed = self.model.model.embed_tokens
        h = self.embeds
        if len(new):
            h = torch.cat([h, embed(torch.tensor([list(new)]))], 1)
        n = h.shape[1]
        for layer, block in enumerate(self.model.model.layers):
            more = torch.arange(1, len(new) + 1)
            # Of a prompt that ends with an image, what goes on is the last token that entered.
            end = self.places[layer][self.remaining[0]].max()
            place = torch.cat([self.places[layer], end + more])
            seen = torch.cat([self.remaining[layer], torch.ones(len(new), dtype=torch.bool)])
            see = torch.ones(n, n, dtype=torch.bool).tril() & seen | torch.eye(n, dtype=torch.bool)
            bias = torch.zeros(1, 1, n, n).masked_fill(~see, torch.finfo(torch.float32).min)
            rope = self.model.model.rotary_emb(h, place[None])
            h = block(h, attention_mask=bias, position_embeddings=rope)
        last = int(self.remaining[-1].nonzero()[-1])
        steps = [last, *range(n - len(new), n)]
        return self.model.lm_head(self.model.model.norm(h[0, steps]))

    def chooses(self, tokens: list[int]) -> bool:
        """Whether each of the tokens is the one with the largest logit after those before it."""
        return self.logits(tokens[:-1]).argmax(-1).tolist() == tokens


def masked_rows(model, pruning, trace, rows=ROWS, visual=None):
    """The masked reference of each row, hiding what the trace says was dropped."""
    references, first = [], 0
    visual = request(rows)["visual"] if visual is None else visual
    for row in rows:
        count = row.count(IMAGE)
        mine = {layer: kept[first : first + count] for layer, kept in trace.kept.items()}
        own = visual[first : first + count]
        references.append(Masked(model, row, own, mine, pruning.positions_at))
        first += count
    return references
