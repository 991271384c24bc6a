"""The entry point of the group ``lmms_eval.models``."""

from lmms_eval.models.registry_v2 import ModelManifest

from otprune_lmms.launch import IDS, prepare_command_line
from otprune_lmms.stock_wrappers import PREFIX, WRAPPERS


def manifests() -> list[ModelManifest]:
    """Return our model under the id ``llava``, in place of lmms-eval's own wrapper, and the others.

    The others are lmms-eval's wrappers, pruned, each under ``otprune_`` and its id. lmms-eval calls
    this at its start, before it reads its command line. In a process of lmms-eval's command,
    settings from the environment are added to ``--model_args`` here.
    """
    prepare_command_line()
    first, *others = IDS
    llava = ModelManifest(
        model_id=first,
        simple_class_path="otprune_lmms.lmms_model.PrunedModel",
        aliases=tuple(others),
    )
    return [llava, *map(_stock, WRAPPERS)]


def _stock(wrapper: str) -> ModelManifest:
    simple, chat = WRAPPERS[wrapper]
    return ModelManifest(
        model_id=PREFIX + wrapper,
        simple_class_path=f"otprune_lmms.stock.simple.{wrapper}" if simple else None,
        chat_class_path=f"otprune_lmms.stock.chat.{wrapper}" if chat else None,
    )
