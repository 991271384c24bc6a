"""The generation settings of a checkpoint."""

from transformers import GenerationConfig

from llava.checkpoint.checked import checked
from llava.checkpoint.errors import CheckpointError
from llava.checkpoint.files import CheckpointFiles
from llava.checkpoint.schema import GenerationSettings, check_token_ids
from llava.configuration import LlavaConfig
from llava.tokenizer import LlavaTokenizer

_FILE = "generation_config.json"
_IDS = ("bos_token_id", "eos_token_id")
_DRAWING = ("temperature", "top_p", "top_k")


def read_generation(
    files: CheckpointFiles, config: LlavaConfig, tokenizer: LlavaTokenizer
) -> GenerationConfig:
    """Return the checkpoint's own generation settings, without its limit of total length.

    The limit (4096 in LLaVA-1.5) would apply to the new tokens alone here. Rows that end early are
    filled with the tokenizer's padding, since llava-hf's is not in the vocabulary.

    Raises:
        CheckpointError: a setting of another kind or beyond its bounds.
    """
    where = f"{_FILE} of {files.name}"
    stored = checked(GenerationSettings, files.json(_FILE) or {}, where)
    known = {name: getattr(config, name) for name in _IDS}
    for name in _IDS:
        value = getattr(stored, name)
        try:
            check_token_ids(name, value, config.vocab_size)
        except ValueError as error:
            raise CheckpointError(f"{where}: {error}") from None
        known |= {} if value is None else {name: value}
    # Some checkpoints have sampling settings that contradict do_sample.
    if stored.do_sample:
        drawing = {name: getattr(stored, name) for name in _DRAWING}
        known |= {"do_sample": True} | {n: v for n, v in drawing.items() if v is not None}
    return GenerationConfig(**known, pad_token_id=tokenizer.pad_token_id)
