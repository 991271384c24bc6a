"""LLaVA on today's transformers: original checkpoints, with visual tokens pruned on request.

Modules that lmms-eval and LLaVA's users import keep their names: `llava.constants`,
`llava.conversation`, `llava.mm_utils`, `llava.model.builder`, `llava.model.llava_arch`. Nothing
is imported here.
"""

__version__ = "0.1.0"
