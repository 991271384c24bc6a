"""Which words of a question MMTok covers."""

import re

_LISTED = """
a an the
am is are was were be been being
do does did have has had
can could will would shall should may might must
what which who whom whose when where why how
i me my we us our you your he him his she her it its they them their
and or but if so than then
question answer
"""
_STOP_WORDS = frozenset(_LISTED.split())
"""Words that say nothing about a picture. Prepositions (in, of, on) and what points at something
(this, there) stay: where things are is part of a question."""

_FORMAT_PROMPTS = (
    "Answer the question using a single word or phrase",
    "Answer with the option's letter from the given choices directly",
    "Please answer yes or no",
    "When the provided information is insufficient, respond with 'Unanswerable'",
)
"""Sentences by which benchmarks ask LLaVA for a form of answer."""

_FORMAT = re.compile(
    "|".join(r"\s+".join(map(re.escape, prompt.split())) + r"\.?" for prompt in _FORMAT_PROMPTS),
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")


def coverage_words(question: str) -> list[str]:
    """Return the words of a question that are to be covered, in order, as they are written.

    Answer-format prompts are cut out and stop words left out; a word is a run of letters, digits
    and underscores. If nothing remains, the question's own words are returned, punctuation and all:
    those without the format prompts or, where there is nothing else, with them. Empty for a
    question without a word.
    """
    asked = _FORMAT.sub(" ", question)
    words = [word for word in _WORD.findall(asked) if word.lower() not in _STOP_WORDS]
    return words or asked.split() or question.split()
