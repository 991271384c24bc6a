"""Conversation templates: the exact prompts that LLaVA's checkpoints were trained on.

The texts belong to the checkpoints: one character more or less changes every answer. Templates of
other projects' language models that the original also lists are left out (``v0`` and ``default``, a
few-shot text; ``llama_2``), since no LLaVA checkpoint was trained with them.
"""

from dataclasses import dataclass, field
from enum import Enum, auto


class SeparatorStyle(Enum):
    """How turns are joined."""

    SINGLE = auto()
    """One separator after every turn."""
    TWO = auto()
    """``sep`` after the user's turns, ``sep2`` after the assistant's."""
    MPT = auto()
    """Role and message without a colon, ``sep`` after every turn (ChatML)."""
    PLAIN = auto()
    """Messages and separators, no roles."""
    LLAMA_2 = auto()
    """``[INST] ... [/INST]``, the system text inside the first turn."""


@dataclass
class Conversation:
    """A chat template, and the turns that were appended to it.

    Attributes:
        system: text before the first turn.
        roles: names of user and assistant.
        messages: [role, text] pairs; None as text ends the prompt with the role, for its reply.
        sep_style: how turns are joined.
        sep: separator after a turn.
        sep2: separator after the assistant's turn, where the style has two.
        version: name of the template's family.
        offset: number of leading messages that belong to the template.
    """

    system: str
    roles: tuple[str, str]
    sep_style: SeparatorStyle
    sep: str
    sep2: str = ""
    version: str = "Unknown"
    messages: list[list[str | None]] = field(default_factory=list)
    offset: int = 0

    def append_message(self, role: str, message: str | None) -> None:
        """Append a turn; None as message ends the prompt with the role, for its reply."""
        self.messages.append([role, message])

    def copy(self) -> "Conversation":
        """Return an independent conversation with the same turns."""
        turns = [list(turn) for turn in self.messages]
        return Conversation(
            self.system,
            self.roles,
            self.sep_style,
            self.sep,
            self.sep2,
            self.version,
            turns,
            self.offset,
        )

    def get_prompt(self) -> str:
        """Return the turns as the prompt of a language model.

        Raises:
            ValueError: under ``LLAMA_2``, a first turn that is empty or not the user's.
        """
        if self.sep_style is SeparatorStyle.LLAMA_2:
            return self._llama_2()
        prompt = self.system + ("" if self.sep_style is SeparatorStyle.PLAIN else self.sep)
        for turn, (role, message) in enumerate(self.messages):
            prompt += self._turn(turn, role or "", message)
        return prompt

    def _turn(self, turn: int, role: str, message: str | None) -> str:
        two = self.sep_style in (SeparatorStyle.TWO, SeparatorStyle.PLAIN)
        separator = self.sep2 if two and turn % 2 else self.sep
        name = {SeparatorStyle.MPT: role, SeparatorStyle.PLAIN: ""}.get(self.sep_style, role + ":")
        if not message:
            return name
        colon = " " if name.endswith(":") else ""
        return name + colon + message + separator

    def _llama_2(self) -> str:
        if self.messages and (not self.messages[0][1] or self.messages[0][0] != self.roles[0]):
            raise ValueError(
                f"the first message must be {self.roles[0]}'s and no empty text, "
                f"got {self.messages[0]!r}"
            )
        prompt = ""
        for turn, (_, message) in enumerate(self.messages):
            if not message:
                continue
            if turn == 0 and self.system:
                message = f"<<SYS>>\n{self.system}\n<</SYS>>\n\n{message}"
            if turn % 2 == 0:
                prompt += f"{self.sep}[INST] {message} [/INST]"
            else:
                prompt += f" {message} {self.sep2}"
        return prompt.removeprefix(self.sep)


_CURIOUS_USER = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_CURIOUS_HUMAN = _CURIOUS_USER.replace("curious user", "curious human").replace(
    "the user's", "the human's"
)
# The missing space after "language." is in the text that the checkpoints were trained with.
_TAGGED = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant is able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
    "The visual content will be provided with the following format: <Image>visual content</Image>."
)
_VISION_ASSISTANT = (
    "You are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
)
_CHATML_ROLES = ("<|im_start|>user\n", "<|im_start|>assistant\n")
_UPPER, _CAPITAL = ("USER", "ASSISTANT"), ("Human", "Assistant")
_S = SeparatorStyle

conv_vicuna_v1 = Conversation(_CURIOUS_USER, _UPPER, _S.TWO, " ", "</s>", "v1")
conv_llava_v1 = Conversation(_CURIOUS_HUMAN, _UPPER, _S.TWO, " ", "</s>", "v1")
conv_llava_v1_mmtag = Conversation(_TAGGED, _UPPER, _S.TWO, " ", "</s>", "v1_mmtag")
conv_llava_v0 = Conversation(_CURIOUS_HUMAN, _CAPITAL, _S.SINGLE, "###")
conv_llava_v0_mmtag = Conversation(_TAGGED, _CAPITAL, _S.SINGLE, "###", version="v0_mmtag")
conv_llava_plain = Conversation("", ("", ""), _S.PLAIN, "\n")
conv_llava_llama_2 = Conversation(
    _VISION_ASSISTANT, _UPPER, _S.LLAMA_2, "<s>", "</s>", version="llama_v2"
)
conv_mistral_instruct = Conversation("", _UPPER, _S.LLAMA_2, "", "</s>", version="llama_v2")
conv_chatml_direct = Conversation(
    "<|im_start|>system\nAnswer the questions.", _CHATML_ROLES, _S.MPT, "<|im_end|>", version="mpt"
)
conv_mpt = Conversation(
    "<|im_start|>system\nA conversation between a user and an LLM-based AI assistant. "
    "The assistant gives helpful and honest answers.",
    _CHATML_ROLES,
    _S.MPT,
    "<|im_end|>",
    version="mpt",
)

default_conversation = conv_vicuna_v1
conv_templates: dict[str, Conversation] = {
    "v1": conv_vicuna_v1,
    "vicuna_v1": conv_vicuna_v1,
    "llava_v0": conv_llava_v0,
    "llava_v1": conv_llava_v1,
    "v0_mmtag": conv_llava_v0_mmtag,
    "v1_mmtag": conv_llava_v1_mmtag,
    "llava_llama_2": conv_llava_llama_2,
    "mistral_instruct": conv_mistral_instruct,
    "chatml_direct": conv_chatml_direct,
    "mistral_direct": conv_chatml_direct,
    "plain": conv_llava_plain,
    "v0_plain": conv_llava_plain,
    "mpt": conv_mpt,
}
