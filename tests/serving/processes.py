"""Processes with vLLM: their interpreter, their environment, the scripts of this folder."""

import os
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
PYTHON = os.environ.get("OTPRUNE_VLLM_PYTHON")
"""An interpreter that has vLLM and the plug-in; scripts/test_serving.sh makes one and names it."""


def environment(*, separate: bool) -> dict[str, str]:
    """Return the environment of a process with vLLM.

    Args:
        separate: whether the engine has processes of its own.
    """
    return {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": str(int(separate)),
    }


def run(script: str, *arguments: object, separate: bool = False) -> None:
    """Run a script of this folder with vLLM's interpreter.

    Raises:
        RuntimeError: it failed; what it said last.
    """
    done = subprocess.run(
        [str(PYTHON), HERE / script, *map(str, arguments)],
        env=environment(separate=separate), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr)[-4000:])
