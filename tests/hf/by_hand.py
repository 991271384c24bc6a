"""Pruned models written out by hand: one row at a time, no padding, no cache, nothing of ours."""

import inspect
from typing import Any

import torch
from torch import Tensor

from hf.tiny_vlms import FRAMES, PLACEHOLDER, Tiny, base_of, clone

SIDE = ("deepstack_visual_embeds", "visual_pos_masks")


class Unpruned:
    """What the language model of a tiny model is given for a batch that is not pruned.

    Attributes:
        embeds: vectors, images in their places; [b t d].
        axes: rotary positions, [b t] or [3 b t].
    """

    def __init__(self, tiny: Tiny) -> None:
        self.model, self.inputs = tiny.model, tiny.inputs
        self.base = base_of(self.model)
        self.decoder = getattr(self.base, "language_model", None) or self.base.text_model
        given: dict[str, Any] = {}
        handle = self.decoder.register_forward_pre_hook(
            lambda module, args, kwargs: given.update(kwargs), with_kwargs=True
        )
        self.model(**clone(self.inputs))
        handle.remove()
        self.embeds = given["inputs_embeds"]
        self.deepstack = given.get("deepstack_visual_embeds")
        ids, mask = self.inputs["input_ids"], self.inputs["attention_mask"]
        self.valid = mask.bool()
        self.is_image = (ids == PLACEHOLDER) | (ids == FRAMES)
        self.axes = mask.cumsum(-1) - 1
        self.many_axes = hasattr(self.base, "get_rope_index")
        if self.many_axes:
            known = inspect.signature(self.base.get_rope_index).parameters
            more = {k: self.inputs[k] for k in known if k in self.inputs}
            self.axes = self.base.get_rope_index(**more)[0]
        self.flat = torch.full(ids.shape, -1)
        self.flat[self.is_image] = torch.arange(int(self.is_image.sum()))

    def keeps(self, images: list[int], kept: list[Tensor]) -> Tensor:
        """Return which positions stay, given the kept tokens of each image and video; [b t]."""
        stays = torch.zeros(sum(images), dtype=torch.bool)
        first = 0
        for count, keep in zip(images, kept, strict=True):
            stays[first + keep] = True
            first += count
        keeps, first = self.valid.clone(), 0
        # All images come before all videos.
        for placeholder in (PLACEHOLDER, FRAMES):
            places = self.inputs["input_ids"] == placeholder
            keeps[places] = stays[first : first + int(places.sum())]
            first += int(places.sum())
        return keeps

    def logits(self, keeps: Tensor, answers: Tensor, positions: str) -> Tensor:
        """Return the logits that choose each token of given answers, [b a v]."""
        found = []
        for row, answer in enumerate(answers):
            at = keeps[row].nonzero()[:, 0]
            embeds = self.embeds[row, at]
            more = self.model.get_input_embeddings()(answer[:-1])
            embeds = torch.cat([embeds, more])[None]
            steps = torch.arange(1, len(answer))
            if self.many_axes:
                axes = self.axes[:, row, at]
                axes = torch.cat([axes, axes[:, -1:] + steps], 1)[:, None]
            else:
                own = self.axes[row, at] if positions == "original" else torch.arange(len(at))
                axes = torch.cat([own, own[-1] + steps])[None]
            found.append(self._row(row, at, embeds, axes, len(answer)))
        return torch.stack(found)

    def _row(self, row: int, at: Tensor, embeds: Tensor, axes: Tensor, count: int) -> Tensor:
        length = embeds.shape[1]
        given: dict[str, Any] = {
            "inputs_embeds": embeds,
            "position_ids": axes,
            "attention_mask": torch.ones(1, length, dtype=torch.long),
            "use_cache": False,
        }
        if self.deepstack is not None:
            visual = torch.cat([self.is_image[row, at], torch.zeros(count - 1, dtype=torch.bool)])
            given["visual_pos_masks"] = visual[None]
            rows = self.flat[row, at][self.is_image[row, at]]
            given["deepstack_visual_embeds"] = [layer[rows] for layer in self.deepstack]
        if "token_type_ids" in self.inputs:
            # The model around the decoder lets the tokens of an image see each other.
            kinds = torch.zeros(1, length, dtype=torch.long)
            kinds[0, : len(at)] = self.inputs["token_type_ids"][row, at]
            hidden = self.base(**given, token_type_ids=kinds).last_hidden_state
        else:
            hidden = self.decoder(**given)
            if "logits" in hidden:
                return hidden["logits"][0, -count:]
            hidden = hidden.last_hidden_state
        return self.model.lm_head(hidden[0, -count:])

    def masked(self, row: int, remaining: list[Tensor], answer: Tensor) -> Tensor:
        """Return such logits with dropped tokens hidden instead, layer by layer; [a v].

        Args:
            row: of the batch.
            remaining: for each layer, which positions of the row are left.
            answer: the tokens to choose.
        """
        at = self.valid[row].nonzero()[:, 0]
        more = self.model.get_input_embeddings()(answer[:-1])
        hidden = torch.cat([self.embeds[row, at], more])[None]
        steps = torch.arange(1, len(answer))
        own = self.axes[..., row, at]
        axes = torch.cat([own, own[..., -1:] + steps], -1).unsqueeze(-2)
        config = self.decoder.config
        kinds = getattr(config, "layer_types", None) or ["full_attention"] * 99
        length = hidden.shape[1]
        new = torch.ones(len(steps), dtype=torch.bool)
        causal, alone = torch.ones(length, length).tril().bool(), torch.eye(length).bool()
        away = torch.arange(length)[:, None] - torch.arange(length)
        if "token_type_ids" in self.inputs:
            # The tokens of an image see each other; text stands between two images.
            visual = torch.cat([self.is_image[row, at], ~new])
            block = (visual.long().diff(prepend=torch.tensor([0])) > 0).cumsum(0) * visual
            causal = causal | (block[:, None] == block) & visual
        for number, layer in enumerate(self.decoder.layers):
            left = torch.cat([remaining[number][at], new])
            near = away < config.sliding_window if "slid" in kinds[number] else away < length
            sees = causal & left & near | alone
            told = (kinds[number],) if config.model_type == "gemma3_text" else ()
            angles = self.decoder.rotary_emb(hidden, axes, *told)
            bias = torch.zeros(1, 1, length, length).masked_fill(~sees, -1e30)
            hidden = layer(hidden, attention_mask=bias, position_embeddings=angles)
            if self.deepstack is not None and number < len(self.deepstack):
                visual = torch.cat([self.is_image[row, at], ~new])
                hidden[0, visual] += self.deepstack[number][self.flat[row, at][visual[: len(at)]]]
        return self.model.lm_head(self.decoder.norm(hidden)[0, -len(answer) :])
