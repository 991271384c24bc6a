"""The entry point of the group ``lmms_eval.models``."""

from lmms_eval.models.registry_v2 import ModelManifest

from otprune_lmms.launch import IDS, prepare_command_line


def manifests() -> list[ModelManifest]:
    """Return our model under the id ``llava``, in place of lmms-eval's own wrapper.

    lmms-eval calls this at its start, before it reads its command line. In a process of lmms-eval's
    command, settings from the environment are added to ``--model_args`` here.
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
