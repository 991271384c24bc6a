"""Visual tokens on disk: the same answers, and nothing that a disk does ends a run."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from helpers import PICTURES, request, tiny
from otprune.pruning.image_tokens import ImageTokens
from otprune_lmms.engine import Engine, VisualFolder, visual_files
from otprune_lmms.engine.visual_files import GIB, VisualFiles
from otprune_lmms.models.llava import Llava
from otprune_lmms.models.stored_images import from_bytes
from otprune_lmms.pruning_config import PruningConfig

CONFIGS = [
    PruningConfig(),
    PruningConfig.make("otprune", 0.098),
    PruningConfig.make("fastervlm", 0.1),
    PruningConfig.make("tome", 0.2),
    PruningConfig.make("fastv", 0.6),
]
NONE = frozenset[str]()


def requests():
    about = [request(i, f"What is number {i}?", [name]) for i, name in enumerate(PICTURES[:2])]
    about.append(request(2, "Are they alike?", PICTURES[:2]))
    return [*about, request(3, "Yes?", PICTURES[1:2], kind="loglikelihood", continuation="no")]


def run(folder, configs=CONFIGS, model=None, **settings):
    given = {"model_name": "tiny", "workers": 2, "progress": False, "batch_size": 2, **settings}
    place = None if folder is None else VisualFolder(folder)
    return Engine(model or tiny(), visual_folder=place, **given).run(requests(), configs)


def told(answers):
    return {
        (config.label, one.doc_id): (answer.text, answer.loss, answer.greedy, answer.kept)
        for (config, one), answer in answers.items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that a run has filled."""
    folder = tmp_path_factory.mktemp("visual")
    answers = run(folder)
    assert (answers.counts.encoded, answers.counts.stored) == (2, 0)
    return folder


def test_a_later_run_encodes_nothing_and_answers_the_same_bit_for_bit(folder, monkeypatch):
    plain = run(None)
    assert plain.counts.stored == 0

    def encode(*_):
        raise AssertionError("an image was encoded that is on the disk")

    monkeypatch.setattr(Llava, "encode", encode)
    answers = run(folder)
    assert (answers.counts.encoded, answers.counts.stored) == (0, 2)
    assert told(answers) == told(plain)
    assert len(told(answers)) == 20


def test_an_image_that_is_missing_is_encoded_beside_those_that_are_there(folder, tmp_path):
    for one in sorted(folder.rglob("*.safetensors"))[:1]:
        (tmp_path / one.parent.name).mkdir()
        (tmp_path / one.parent.name / one.name).write_bytes(one.read_bytes())
    answers = run(tmp_path)
    assert (answers.counts.encoded, answers.counts.stored) == (1, 1)
    assert told(answers) == told(run(folder))
    assert run(tmp_path).counts.stored == 2


def test_times_by_phase_are_taken_of_images_that_are_encoded(folder):
    answers = run(folder, CONFIGS[:1], eval_time=True)
    assert (answers.counts.encoded, answers.counts.stored) == (2, 0)


@pytest.fixture
def files(tmp_path):
    return VisualFiles(VisualFolder(tmp_path), tiny())


KEY = ("0" * 64, None)
TOKENS = ImageTokens(torch.arange(12.0).view(3, 4))


def fresh(place):
    return VisualFiles(VisualFolder(place), tiny())


def test_what_decides_the_tokens_is_in_the_name(files, tmp_path):
    names = [files.name(KEY, NONE), files.name(("1" * 64, None), NONE)]
    names += [files.name((KEY[0], "pad"), NONE), files.name(KEY, {"features"})]
    names += [files.name(KEY, {"cls_attention", "features"})]
    assert files.name(KEY, ["features", "cls_attention"]) == names[-1]
    model = tiny()
    changes = (
        (model, "dtype", torch.float16),
        (model, "devices", (torch.device("meta"),)),
        (model, "_fingerprint", "another"),
        (visual_files, "source_of", lambda _: "other code"),
        (visual_files, "_version", lambda _: "0"),
    )
    for place, name, value in changes:
        with pytest.MonkeyPatch.context() as changed:
            changed.setattr(place, name, value)
            names.append(VisualFiles(VisualFolder(tmp_path), model).name(KEY, NONE))
    assert VisualFiles(VisualFolder(tmp_path), model).name(KEY, NONE) == names[0]
    assert len(set(names)) == len(names) == 10


def only_file(folder):
    (file,) = folder.rglob("*.safetensors")
    return file


@pytest.mark.parametrize("damage", ["truncated", "empty", "a bit", "another's"])
def test_a_damaged_file_is_made_anew_with_one_warning(files, tmp_path, damage, caplog):
    files.put(KEY, NONE, TOKENS)
    file, whole = only_file(tmp_path), only_file(tmp_path).read_bytes()
    if damage == "another's":
        files.put(("1" * 64, None), NONE, TOKENS)
        (other,) = set(tmp_path.rglob("*.safetensors")) - {file}
        other.replace(file)
    else:
        flipped = whole[:-1] + bytes([whole[-1] ^ 1])
        file.write_bytes({"truncated": whole[:-3], "empty": b"", "a bit": flipped}[damage])
    for _ in range(2):
        assert files.get(KEY, NONE) is None
    assert caplog.text.count("has damaged files, which are made anew") == 1
    files.put(KEY, NONE, TOKENS)
    found = files.get(KEY, NONE)
    assert found is not None
    assert torch.equal(found.tokens, TOKENS.tokens)
    assert only_file(tmp_path).read_bytes() == whole


def test_a_full_disk_is_one_warning_and_the_run_goes_on(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    answers = run(tmp_path, CONFIGS[:2])
    assert told(answers) == told(run(None, CONFIGS[:2]))
    assert caplog.text.count("cannot be written (No space left on device)") == 1
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == []


def test_a_folder_that_cannot_be_made_or_read_is_one_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    files = fresh(tmp_path / "file")
    for _ in range(2):
        assert files.get(KEY, NONE) is None
        files.put(KEY, NONE, TOKENS)
    assert caplog.text.count("cannot be read (Not a directory)") == 1
    assert caplog.text.count("cannot be written (Not a directory)") == 1


def test_images_with_a_function_are_encoded_each_time(tmp_path):
    configs = [PruningConfig.make("downsample", 0.25)]
    for _ in range(2):
        assert run(tmp_path, configs).counts.encoded == 2
    assert list(tmp_path.rglob("*.safetensors")) == []


def filled(folder, numbers, gib):
    """Store images one after the other; the number of bytes of each, and what is there then."""
    files = VisualFiles(VisualFolder(folder, gib), tiny())
    for number in numbers:
        files.put((f"{number:064d}", None), NONE, TOKENS)
    return {n for n in range(100) if files.get((f"{n:064d}", None), NONE) is not None}, files


def test_the_files_used_longest_ago_go_and_those_of_this_run_stay(tmp_path, caplog):
    one, _ = filled(tmp_path, [0], 1.0)
    size = only_file(tmp_path).stat().st_size
    _, files = filled(tmp_path, range(1, 20), 1.0)
    for number in range(20):
        age = time.time() - 1000 + number
        path = files._path(files.name((f"{number:064d}", None), NONE))
        os.utime(path, (age, age))
    files.get((f"{0:064d}", None), NONE)
    abandoned = tmp_path / "00" / ".abcdef.safetensors"
    abandoned.parent.mkdir(exist_ok=True)
    abandoned.write_bytes(b"")
    os.utime(abandoned, (1, 1))
    # The measurement is made after the time that files were used: 0 is as if of another process.
    time.sleep(0.01)
    there, _ = filled(tmp_path, range(20, 26), 20 * size / GIB)
    assert there >= {0, *range(20, 26)}
    assert len(there) <= 20
    assert 1 not in there
    assert not abandoned.exists()
    assert "is full" not in caplog.text
    there, _ = filled(tmp_path, range(50, 90), 20 * size / GIB)
    assert 15 <= len(there) <= 22
    assert min(there) >= 50
    assert caplog.text.count("is full of images of this run: no more are stored") == 1


def test_a_size_must_be_one():
    for gib in (0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="visual_store_gib must be above 0"):
            VisualFolder(Path("x"), gib)


WRITING = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, {tests!r})
from helpers import tiny
from otprune.pruning.image_tokens import ImageTokens
from otprune_lmms.engine.visual_files import VisualFiles, VisualFolder
torch.set_num_threads(1)
files = VisualFiles(VisualFolder(Path(sys.argv[1])), tiny())
print("begins", flush=True)
number = 0
while True:
    number = (number + 1) % 8
    tokens = torch.full((500, 200 + number), float(number))
    files.put((f"{{number:064d}}", None), frozenset(), ImageTokens(tokens))
"""


def test_two_processes_that_write_the_same_and_are_killed_leave_whole_files(tmp_path):
    code = WRITING.format(tests=str(Path(__file__).parents[1]))
    command = [sys.executable, "-c", code, str(tmp_path)]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for one in writers:
            assert one.stdout is not None
            assert one.stdout.readline() == b"begins\n"
        files, found = fresh(tmp_path), 0
        until = time.time() + 60
        while found < 200 and time.time() < until:
            for number in range(8):
                tokens = files.get((f"{number:064d}", None), NONE)
                if tokens is not None:
                    found += 1
                    assert bool((tokens.tokens == number).all())
    finally:
        for one in writers:
            one.send_signal(signal.SIGKILL)
            one.communicate()
    assert found >= 200
    for file in tmp_path.rglob("*.safetensors"):
        if not file.name.startswith("."):
            from_bytes(ImageTokens, file.read_bytes(), file.stem)
