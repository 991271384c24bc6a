"""Copies of the tiny checkpoints that a test may spoil."""

import shutil

import pytest

from helpers import CLIP, V15, V16


@pytest.fixture
def v15(tmp_path):
    """A copy of the tiny v1.5 checkpoint and its tower that a test may spoil."""
    shutil.copytree(CLIP, tmp_path / "tiny-clip")
    shutil.copytree(V15, tmp_path / "llava")
    return tmp_path / "llava"


@pytest.fixture
def v16(tmp_path):
    shutil.copytree(V16, tmp_path / "llava")
    shutil.copytree(CLIP, tmp_path / "tiny-clip")
    return tmp_path / "llava"
