"""lmms-eval's process around our model: its command line, exit codes, messages."""

from otprune_lmms.launch.command_line import IDS, prepare_command_line, translated
from otprune_lmms.launch.guard import end_in_words, end_on_failure
from otprune_lmms.launch.messages import forward_messages

__all__ = [
    "IDS",
    "end_in_words",
    "end_on_failure",
    "forward_messages",
    "prepare_command_line",
    "translated",
]
