"""LLaVA of our own: original checkpoints on today's transformers, with a seam for pruning.

The parts that lmms-eval and LLaVA's users import keep their names: `llava.constants`,
`llava.conversation`, `llava.mm_utils`, `llava.model.builder`, `llava.model.llava_arch`. Nothing
heavy is imported here.
"""

__version__ = "0.1.0"
