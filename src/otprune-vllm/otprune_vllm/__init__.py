"""Image pruning in vLLM: a plug-in, loaded by the entry point ``vllm.general_plugins``.

    LLM(model, hf_overrides={"architectures": ["OTPruneLlavaForConditionalGeneration"],
                             "otprune": {"method": "otprune", "keep_ratio": 0.2}})

Tokens are dropped between the projector and the language model. A request's own ratio is
``mm_processor_kwargs={"otprune_keep_ratio": 0.1}``.
"""

from otprune.serving import ARCHITECTURES, PREFIX

__version__ = "0.1.0"


def register() -> None:
    """Add the pruned architectures to vLLM's registry; in every process, any number of times.

    Nothing else of vLLM is changed, but that its runner for CPUs is told of models that prune. Each
    architecture is imported when a model asks for it, and only then is vLLM checked, so that a vLLM
    that is not known goes on serving all other models.
    """
    from vllm import ModelRegistry

    from otprune_vllm.cpu_runner import mend_cpu_runner

    known = ModelRegistry.get_supported_archs()
    for architecture, module in ARCHITECTURES.items():
        name = PREFIX + architecture
        if name not in known:
            ModelRegistry.register_model(name, f"{__name__}.families.{module}:{name}")
    mend_cpu_runner()
