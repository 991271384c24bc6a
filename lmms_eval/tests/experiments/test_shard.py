"""Shards: every document and every config falls to exactly one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otprune_lmms.experiments.shard import Shard

few = st.integers(1, 7)


@given(worlds=st.lists(few, min_size=1, max_size=7), documents=st.integers(0, 60))
def test_every_document_falls_to_one_rank_of_one_shard(worlds, documents):
    """Also where shards have different numbers of processes."""
    count = len(worlds)
    taken = [
        document
        for index, world in enumerate(worlds, 1)
        for rank in range(world)
        for document in range(documents)[slice(*start_and_step(Shard(index, count), rank, world))]
    ]
    assert sorted(taken) == list(range(documents))


def start_and_step(shard, rank, world):
    first, step = shard.place(rank, world)
    return first, None, step


@given(count=few, world=few, documents=st.integers(0, 60))
def test_a_shard_has_the_same_documents_whatever_the_number_of_its_processes(
    count, world, documents
):
    shard = Shard(count, count)
    taken = [
        document
        for rank in range(world)
        for document in range(documents)[slice(*start_and_step(shard, rank, world))]
    ]
    assert sorted(taken) == list(range(count - 1, documents, count))


def test_ranks_share_the_documents_of_a_shard():
    assert Shard(1, 3).place(0, 2) == (0, 6)
    assert Shard(2, 3).place(1, 2) == (4, 6)
    assert Shard(3, 3).place(1, 2) == (5, 6)
    assert Shard(2, 3, "configs").place(1, 2) == (1, 2), "all documents, shared by the ranks alone"


@given(count=few, configs=st.lists(st.integers(), unique=True))
def test_every_config_falls_to_one_shard(count, configs):
    shards = [Shard(index + 1, count, "configs").configs(configs) for index in range(count)]
    assert sorted(config for own in shards for config in own) == sorted(configs)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert Shard(count, count).configs(configs) == configs


def test_a_shard_is_written_i_of_n_counted_from_1():
    assert Shard.parse("2/3") == Shard(2, 3, "documents")
    assert Shard.parse(" 3/3 ", "configs") == Shard(3, 3, "configs")
    assert str(Shard.parse("02/10")) == "2/10"


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "0/0"])
def test_a_part_that_is_not_there_is_refused(text):
    with pytest.raises(ValueError, match=rf"1 <= i <= N, as 1/3, 2/3, 3/3; got {text}"):
        Shard.parse(text)


@pytest.mark.parametrize("text", ["", "3", "1/", "/3", "-1/3", "1/3/5", "1.5/3", "a/b", "¹/3"])
def test_another_form_is_refused(text):
    with pytest.raises(ValueError, match="shard must be i/N .* got"):
        Shard.parse(text)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((1.0, 3), "index of a shard must be an integer, got 1.0"),
        ((True, 3), "index of a shard must be an integer, got True"),
        ((1, "3"), "count of a shard must be an integer, got '3'"),
        ((1, 3, "tasks"), "by documents or configs, got 'tasks'"),
    ],
)
def test_impossible_values_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        Shard(*given)
