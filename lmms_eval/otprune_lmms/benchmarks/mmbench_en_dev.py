"""MMBench, English, split dev, where a judge (OpenAI's API) reads answers that are no letter."""

from dataclasses import replace

from otprune_lmms.benchmarks import mmbench_en_dev_static

BENCHMARK = replace(
    mmbench_en_dev_static.BENCHMARK,
    name="mmbench_en_dev",
    task="mmbench_en_dev",
    related=(),
    # What papers print under this name was matched by rule or not, they do not say; the rule's
    # record has it.
    printed=(),
)
