"""Prompts, character for character."""

import pytest

from helpers import V15, cases
from llava.conversation import SeparatorStyle, conv_templates, default_conversation
from llava.mm_utils import get_model_name_from_path, tokenizer_image_token
from llava.tokenizer import LlavaTokenizer

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
TAGGED = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant is able "
    "to understand the visual content that the user provides, and assist the user with a variety "
    "of tasks using natural language.The visual content will be provided with the following "
    "format: <Image>visual content</Image>."
)
HUMAN = SYSTEM.replace("curious user", "curious human").replace("the user's", "the human's")
PROMPTS = {
    "vicuna_v1": f"{SYSTEM} USER: Q ASSISTANT: A</s>USER: R ASSISTANT:",
    "v1": f"{SYSTEM} USER: Q ASSISTANT: A</s>USER: R ASSISTANT:",
    "llava_v1": f"{HUMAN} USER: Q ASSISTANT: A</s>USER: R ASSISTANT:",
    "v1_mmtag": f"{TAGGED} USER: Q ASSISTANT: A</s>USER: R ASSISTANT:",
    "llava_v0": f"{HUMAN}###Human: Q###Assistant: A###Human: R###Assistant:",
    "v0_mmtag": f"{TAGGED}###Human: Q###Assistant: A###Human: R###Assistant:",
    "plain": "Q\nAR\n",
    "v0_plain": "Q\nAR\n",
    "llava_llama_2": (
        "[INST] <<SYS>>\nYou are a helpful language and vision assistant. You are able to "
        "understand the visual content that the user provides, and assist the user with a variety "
        "of tasks using natural language.\n<</SYS>>\n\nQ [/INST] A </s><s>[INST] R [/INST]"
    ),
    "mistral_instruct": "[INST] Q [/INST] A </s>[INST] R [/INST]",
    "chatml_direct": (
        "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\nQ<|im_end|>"
        "<|im_start|>assistant\nA<|im_end|><|im_start|>user\nR<|im_end|><|im_start|>assistant\n"
    ),
    "mistral_direct": (
        "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\nQ<|im_end|>"
        "<|im_start|>assistant\nA<|im_end|><|im_start|>user\nR<|im_end|><|im_start|>assistant\n"
    ),
    "mpt": (
        "<|im_start|>system\nA conversation between a user and an LLM-based AI assistant. The "
        "assistant gives helpful and honest answers.<|im_end|><|im_start|>user\nQ<|im_end|>"
        "<|im_start|>assistant\nA<|im_end|><|im_start|>user\nR<|im_end|><|im_start|>assistant\n"
    ),
}


def test_every_template_is_tested():
    assert set(PROMPTS) == set(conv_templates)
    assert default_conversation is conv_templates["vicuna_v1"]


@pytest.mark.parametrize("name", PROMPTS)
def test_three_turns_make_the_prompt(name):
    conversation = conv_templates[name].copy()
    user, assistant = conversation.roles
    for role, text in ((user, "Q"), (assistant, "A"), (user, "R"), (assistant, None)):
        conversation.append_message(role, text)
    assert conversation.get_prompt() == PROMPTS[name]
    assert conv_templates[name].messages == []


def test_recorded_prompts_come_out():
    recorded = {prompt for entry in cases("full") for prompt in entry["prompts"]}
    question = "<image>\nWhat is in this image? Describe the picture briefly."
    for name in ("vicuna_v1", "llava_llama_2"):
        conversation = conv_templates[name].copy()
        conversation.append_message(conversation.roles[0], question)
        conversation.append_message(conversation.roles[1], None)
        assert conversation.get_prompt() in recorded


def test_35_tokens_stand_before_the_image_of_a_vicuna_prompt():
    conversation = conv_templates["vicuna_v1"].copy()
    conversation.append_message(conversation.roles[0], "<image>\nQ")
    ids = tokenizer_image_token(conversation.get_prompt(), LlavaTokenizer(V15 / "tokenizer.model"))
    assert ids.index(-200) == 35


def test_a_copy_has_turns_of_its_own():
    first = conv_templates["vicuna_v1"].copy()
    first.append_message("USER", "Q")
    second = first.copy()
    second.messages[0][1] = "R"
    assert first.messages == [["USER", "Q"]]
    assert second.sep_style is SeparatorStyle.TWO


@pytest.mark.parametrize("turn", [("USER", None), ("USER", ""), ("ASSISTANT", "hello")])
def test_a_llama_2_prompt_begins_with_the_user(turn):
    conversation = conv_templates["llava_llama_2"].copy()
    conversation.append_message(*turn)
    with pytest.raises(ValueError, match="first message must be USER's and no empty text"):
        conversation.get_prompt()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("liuhaotian/llava-v1.5-7b", "llava-v1.5-7b"),
        ("/models/llava-v1.5-7b/", "llava-v1.5-7b"),
        ("runs/llava-mine/checkpoint-300", "llava-mine_checkpoint-300"),
        ("checkpoint-300", "checkpoint-300"),
        ("llava", "llava"),
    ],
)
def test_a_path_names_its_model(path, name):
    assert get_model_name_from_path(path) == name
