"""Keys and values of a layer with room behind them, so that a new position is no copy of all."""

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

_ROOM = 32
"""Positions of room: most answers need fewer, and a longer one moves only so often."""


class GrowingLayer(DynamicLayer):
    """A `DynamicLayer` that holds the same, and writes new positions behind those that it has.

    Its keys and values are the beginning of larger tensors; where these are full, or where others
    were put in the place of ``keys`` and ``values`` (beams, a cut cache), they move to new ones.
    Not for training, since what was cached earlier is changed in place.
    """

    def __init__(self) -> None:
        super().__init__()
        self._whole: tuple[Tensor, Tensor] | None = None
        self._held: tuple[Tensor | None, Tensor | None] = (None, None)

    @classmethod
    def holding(cls, layer: DynamicLayer) -> "GrowingLayer":
        """Return a layer that goes on from what another one holds."""
        made = cls()
        vars(made).update(vars(layer))
        return made

    def update(
        self,
        key_states: Float[Tensor, "b g t c"],
        value_states: Float[Tensor, "b g t d"],
        *args: object,
        **kwargs: object,
    ) -> tuple[Float[Tensor, "b g s c"], Float[Tensor, "b g s d"]]:
        """Append keys and values of new positions; return those of all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        if self._whole is None or not self._fits(self._whole, end):
            self._whole = (
                _moved(self.keys, key_states, begin, end + _ROOM),
                _moved(self.values, value_states, begin, end + _ROOM),
            )
        keys, values = self._whole
        keys[:, :, begin:end] = key_states
        values[:, :, begin:end] = value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        self._held = (self.keys, self.values)
        return self.keys, self.values

    def _fits(self, whole: tuple[Tensor, Tensor], end: int) -> bool:
        """Return whether positions up to ``end`` fit behind what is held."""
        keys, values = self._held
        writable = torch.is_inference_mode_enabled() or not whole[0].is_inference()
        return (
            self.keys is keys
            and self.values is values
            and end <= min(one.shape[2] for one in whole)
            and writable
        )


def _moved(held: Tensor | None, new: Tensor, begin: int, room: int) -> Tensor:
    """Return a tensor with ``room`` positions that begins with what is held."""
    whole = new.new_empty(*new.shape[:2], room, new.shape[3])
    if begin and held is not None:
        whole[:, :, :begin] = held
    return whole


def grow_in_place(cache: Cache) -> bool:
    """Let the layers of a cache write new positions in place; return whether all of them do.

    Caches of other classes, with other layers or offloaded ones, are left as they are.
    """
    plain = type(cache) is DynamicCache and not getattr(cache, "offloading", False)
    if not plain or any(type(one) not in (DynamicLayer, GrowingLayer) for one in cache.layers):
        return False
    for number, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[number] = GrowingLayer.holding(layer)
    return True
