"""vLLM's runner for CPUs, told of models that move positions; other runners find out themselves."""

import functools
from typing import Any


def mend_cpu_runner() -> None:
    """Have ``CPUModelRunner.load_model`` set ``is_multimodal_pruning_enabled``.

    It replaces the function of the runner for GPUs, which sets that attribute, and does not set it.
    Nothing happens on other platforms, or a second time.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.model_executor.models.interfaces import supports_multimodal_pruning
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    load = CPUModelRunner.load_model
    if hasattr(load, "__wrapped_by_otprune__"):
        return

    @functools.wraps(load)
    def load_model(self: Any, *args: Any, **kwargs: Any) -> None:
        load(self, *args, **kwargs)
        config = self.model_config.multimodal_config
        self.is_multimodal_pruning_enabled = (
            config is not None
            and config.is_multimodal_pruning_enabled()
            and supports_multimodal_pruning(self.get_model())
        )

    load_model.__dict__["__wrapped_by_otprune__"] = True
    CPUModelRunner.load_model = load_model
