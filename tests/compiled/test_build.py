"""Building and keeping the compiled loops, where something is in the way."""

import logging
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from otprune import make_pruner
from otprune.compiled import build
from otprune.compiled import loops as module
from otprune.compiled.build import CannotBuildError, load

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, build._COMPILERS)), reason="no C compiler"
)


def libraries(folder):
    return sorted(folder.glob("*.so"))


def counted(monkeypatch):
    """The commands of compilers that are run."""
    commands = []
    run = subprocess.run

    def counting(command, *args, **kwargs):
        commands.append(command)
        return run(command, *args, **kwargs)

    monkeypatch.setattr(build.subprocess, "run", counting)
    return commands


@pytest.fixture
def fresh(monkeypatch):
    """A process in which the loops have not been tried."""
    monkeypatch.setattr(module, "_once", module._Once())
    return module._once


def test_the_library_is_compiled_once_and_kept_for_this_user_alone(tmp_path, monkeypatch):
    commands = counted(monkeypatch)
    folder = tmp_path / "new" / "cache"
    load(folder)
    assert len(commands) == 1
    assert [file.name for file in folder.iterdir()] == [libraries(folder)[0].name]
    assert folder.stat().st_mode & 0o077 == 0
    load(folder)
    assert len(commands) == 1


def test_another_source_compiler_or_processor_is_another_library(tmp_path, monkeypatch):
    compiler = build._compiler()
    before = build._key(compiler)
    monkeypatch.setattr(build, "_processor", lambda: "flags : another")
    changed = build._key(compiler)
    source = tmp_path / "loops.c"
    source.write_text(build.SOURCES[0].read_text() + "\n")
    monkeypatch.setattr(build, "SOURCES", (source, build.SOURCES[1]))
    assert len({before, changed, build._key(compiler), build._key(sys.executable)}) == 4


@pytest.mark.parametrize("damage", [b"", b"not a library", "half", "bit"])
def test_a_damaged_library_is_never_loaded_and_is_replaced(tmp_path, damage):
    load(tmp_path)
    (file,) = libraries(tmp_path)
    content = file.read_bytes()
    flipped = bytes([content[5000] ^ 1])
    bad = {"half": content[: len(content) // 2], "bit": content[:5000] + flipped + content[5001:]}
    # A new file: the library that this process has loaded stays as it is.
    file.unlink()
    file.write_bytes(bad[damage] if isinstance(damage, str) else damage)
    assert load(tmp_path).otprune_loops_version() == build.VERSION
    assert [build._name(build._key(build._compiler()), f.read_bytes()) for f in libraries(tmp_path)]
    for kept in libraries(tmp_path):
        assert kept.name == build._name(build._key(build._compiler()), kept.read_bytes())


def test_a_folder_that_is_a_file_or_cannot_be_written_does_without_keeping(tmp_path, monkeypatch):
    taken = tmp_path / "taken"
    taken.write_text("")
    assert load(taken).otprune_loops_version() == build.VERSION

    # Permissions do not stop the superuser, so the refusal is made.
    def read_only(*args, **kwargs):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    assert load(tmp_path / "new").otprune_loops_version() == build.VERSION
    assert not (tmp_path / "new").exists()


def test_a_folder_that_others_can_write_to_is_not_used(tmp_path):
    tmp_path.chmod(0o777)
    assert load(tmp_path).otprune_loops_version() == build.VERSION
    assert libraries(tmp_path) == []


def test_a_file_that_cannot_be_loaded_from_the_folder_is_loaded_from_elsewhere(
    tmp_path, monkeypatch
):
    # As on a disk from which no program may be run.
    opened = build._opened
    monkeypatch.setattr(
        build, "_opened", lambda file: None if file.parent == tmp_path else opened(file)
    )
    assert load(tmp_path).otprune_loops_version() == build.VERSION


def test_processes_may_build_at_the_same_time(tmp_path):
    program = (
        "import sys, pathlib; from otprune.compiled import build; "
        "print(build.load(pathlib.Path(sys.argv[1])).otprune_loops_version())"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [one.communicate()[0].strip() for one in started] == [str(build.VERSION)] * 2
    assert len(libraries(tmp_path)) >= 1
    assert all(file.suffix == ".so" for file in tmp_path.iterdir())


def test_without_a_compiler_selection_runs_in_torch_and_says_why(fresh, monkeypatch, caplog):
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    with caplog.at_level(logging.INFO, logger="otprune"):
        kept = make_pruner("otprune").select(torch.eye(20)[:, :15] + 1, 5)
        make_pruner("divprune").select(torch.eye(20) + 1, 5)
    assert len(kept) == 5
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "no C compiler: none of cc, gcc, clang is installed" in caplog.text


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("#!/bin/sh\necho 'out of memory' >&2\nexit 1\n", "failed: out of memory"),
        ("#!/bin/sh\nexit 3\n", "failed: exit status 3"),
        ("#!/bin/sh\nwhile [ $# -gt 1 ]; do [ $1 = -o ] && : > $2; shift; done\n", "be loaded"),
        ("not a program", "OSError|PermissionError"),
    ],
)
def test_a_broken_compiler_is_an_error_that_says_so(tmp_path, monkeypatch, program, message):
    compiler = tmp_path / "cc"
    compiler.write_text(program)
    compiler.chmod(0o700)
    monkeypatch.setattr(build.shutil, "which", lambda name: str(compiler))
    with pytest.raises(CannotBuildError, match=message):
        load(tmp_path / "cache")


def test_a_compiler_that_hangs_is_given_up(tmp_path, monkeypatch):
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\nexec sleep 60\n")
    compiler.chmod(0o700)
    monkeypatch.setattr(build.shutil, "which", lambda name: str(compiler))
    monkeypatch.setattr(build, "_SECONDS", 0.2)
    with pytest.raises(CannotBuildError, match="TimeoutExpired"):
        load(tmp_path / "cache")


def test_a_user_without_a_home_does_without(monkeypatch):
    def nowhere(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", nowhere)
    with pytest.raises(CannotBuildError, match="home directory"):
        load()


def test_threads_share_one_library_and_give_the_same_picks(fresh, monkeypatch):
    loaded = []

    def loading():
        loaded.append(threading.get_ident())
        return load()

    monkeypatch.setattr(module, "load", loading)
    images = [torch.randn(300, 40, generator=torch.Generator().manual_seed(i)) for i in range(8)]

    def kept(image):
        return [make_pruner(name).rank(image, 60).tolist() for name in ("otprune", "divprune")]

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(kept, images * 3))
    assert together == [kept(image) for image in images] * 3
    assert len(loaded) == 1


FORKED = """
import os, signal, sys, torch
from otprune import make_pruner
from otprune.compiled import loops, loops_for

torch.set_num_threads(1)
tokens = torch.eye(30) + 1
if sys.argv[1] == "loaded":
    assert loops_for(tokens) is not None
# Held as by another thread that is compiling.
with loops._once.lock:
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        assert loops_for(tokens) is not None
        assert len(make_pruner("otprune").rank(tokens, 5)) == 5
        os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("before", ["loaded", "not loaded"])
def test_a_child_of_a_fork_works_whatever_its_parent_was_doing(before):
    subprocess.run([sys.executable, "-c", FORKED, before], check=True, timeout=120)


def test_importing_otprune_builds_nothing():
    program = (
        "import sys, otprune; from otprune.compiled import loops; "
        "assert not loops._once.tried; import subprocess"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
