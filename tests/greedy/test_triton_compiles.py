"""The GPU programs compiled ahead for some GPUs, none of which is needed; scripts/test_triton.sh.

Triton's interpreter knows no types of variables and no registers; its compiler does.
"""

import importlib.util
import os
import re
import subprocess

import pytest

# TID251: Triton reads it when it is imported, and so must its tests.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # noqa: TID251
pytestmark = pytest.mark.skipif(
    INTERPRETED or importlib.util.find_spec("triton") is None, reason="no triton, or interpreted"
)

NUMBERS = dict.fromkeys(("n", "r", "steps"), "i32") | {"least": "fp32"}
LOGDET = ("full", "variance", "floor", "rows", "order:i64", "variances", "n", "steps")
MAX_MIN = ("distances", "first:i64", "sizes:i32", "order:i64", "n", "steps")
COVERAGE = (
    "rows", "scales", "weights:fp32", "turns:i32", "free:i32", "changed:i32", "old", "new",
    "order:i64", "r", "n", "steps",
)  # fmt: skip

CONDITIONAL = (
    "similarity", "variance", "weight", "spent", "rows", "order:i64", "n", "steps", "least",
)  # fmt: skip


def compiled(function, names, dtype, constants, warps, capability):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from otprune.greedy.triton_program import OPTIONS

    signature = {}
    for named in names:
        name, _, kind = named.partition(":")
        signature[name] = NUMBERS.get(name, f"*{kind or dtype}")
    signature |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=function, signature=signature, constexprs=constants)
    target = GPUTarget("cuda", capability, 32)
    return compile(source, target=target, options={"num_warps": warps} | OPTIONS)


def spilled(program, folder) -> int:
    """Return the bytes of each thread's registers that are kept in memory."""
    from triton import knobs

    file = folder / "program.cubin"
    file.write_bytes(program.asm["cubin"])
    command = [knobs.nvidia.cuobjdump.path, "-res-usage", str(file)]
    usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(re.search(r"STACK:(\d+)", usage)[1]) + int(re.search(r"LOCAL:(\d+)", usage)[1])


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
@pytest.mark.parametrize("n", [576, 2340, 4096])
def test_every_program_compiles_and_fits_into_registers(n, dtype, capability, tmp_path):
    import triton

    from otprune.greedy import (
        triton_conditional,
        triton_coverage,
        triton_max_min,
        triton_program,
    )

    block = triton.next_power_of_2(n)
    constants = {
        LOGDET: {"BLOCK": block, "ROWS": triton_program.rows_together(block)},
        MAX_MIN: {"BLOCK": block},
        COVERAGE: {"BLOCK": block, "COVERED": block, "ROWS": triton_coverage.rows_together(block)},
    }
    if dtype == "fp32":
        constants[CONDITIONAL] = constants[LOGDET]
    functions = {
        CONDITIONAL: triton_conditional._pick_conditional,
        LOGDET: triton_program._pick_all,
        MAX_MIN: triton_max_min._pick_farthest,
        COVERAGE: triton_coverage._cover_all,
    }
    for names in constants:
        function = functions[names]
        warps = triton_program.warps(block)
        program = compiled(function, names, dtype, constants[names], warps, capability)
        # A block of an A100 has 164 KiB, of older cards 48.
        assert program.metadata.shared <= 48 * 1024
        assert spilled(program, tmp_path) <= 64
