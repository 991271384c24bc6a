"""MMBench, English, split dev, where a judge (OpenAI's API) reads answers that are no letter."""

from dataclasses import replace

from otprune_lmms.benchmarks import mmbench_en_dev_static

BENCHMARK = replace(
    mmbench_en_dev_static.BENCHMARK,
    name="mmbench_en_dev",
    task="mmbench_en_dev",
    related=(),
    # Papers do not say whether they matched answers by rule; their numbers are assigned to
    # mmbench_en_dev_static.
    printed=(),
)
