"""What a part needs that is not there, in a sentence."""

from importlib.metadata import PackageNotFoundError, version

from packaging.requirements import Requirement

CORE = ("torch>=2.6", "jaxtyping>=0.3")
HF = (*CORE, "transformers>=5.18,<6")
LLAVA = (*CORE, "transformers>=5.23,<5.24", "sentencepiece", "pillow")
HARNESS = (*LLAVA, "pydantic>=2", "pyyaml")
TESTS = (*CORE, "pytest>=8.3", "hypothesis")

NEEDS = {"tests": TESTS, "selection": CORE, "answers": HF, "prefill": HF, "flash": HF}
NEEDS["harness"] = HARNESS


def missing(requirements: tuple[str, ...]) -> list[str]:
    """Return what is not there, as ``transformers>=5.18,<6 (5.17.0 is here)``."""
    found = []
    for text in requirements:
        requirement = Requirement(text)
        try:
            here = version(requirement.name)
        except PackageNotFoundError:
            found.append(f"{text} (none is here)")
            continue
        if not requirement.specifier.contains(here, prereleases=True):
            found.append(f"{text} ({here} is here)")
    return found


def runnable() -> list[str]:
    """Return the parts whose needs are met."""
    return [name for name, requirements in NEEDS.items() if not missing(requirements)]
