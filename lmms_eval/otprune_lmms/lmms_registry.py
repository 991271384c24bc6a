"""What lmms-eval finds under the entry point group ``lmms_eval.models``."""

from lmms_eval.models.registry_v2 import ModelManifest

from otprune_lmms.launch import IDS, prepare_command_line


def manifests() -> list[ModelManifest]:
    """Return our model under the id ``llava``, in place of lmms-eval's own wrapper.

    Called while lmms-eval starts, before it reads its command line; in a process that is
    ``python -m lmms_eval`` this is where settings from the environment join ``--model_args``.
    """
    prepare_command_line()
    first, *others = IDS
    return [
        ModelManifest(
            model_id=first,
            simple_class_path="otprune_lmms.lmms_model.PrunedModel",
            aliases=tuple(others),
        )
    ]
