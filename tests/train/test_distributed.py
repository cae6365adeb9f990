"""Several processes train as one with the whole batch: really started, on this machine's processor."""

from __future__ import annotations

from itertools import chain

import pytest
import torch

from train.distributed import ALONE, World, data_parallel, find_world, gather, share_of, sum_over, was_restarted
from zoo.errors import ZooError


def test_without_torchrun_a_process_is_alone() -> None:
    assert find_world({}) == ALONE
    assert ALONE.is_first and ALONE.is_alone
    model, total = torch.nn.Linear(2, 2), torch.ones(2)
    assert data_parallel(model, ALONE, torch.device("cpu")) is model
    sum_over(ALONE, total)
    assert total.tolist() == [1, 1]
    assert gather(ALONE, "mine") == ["mine"]


def test_torchruns_variables_say_where_we_are() -> None:
    world = find_world({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"})
    assert world == World(rank=5, size=8, local_rank=1)
    assert not world.is_first and not world.is_alone
    assert was_restarted({"TORCHELASTIC_RESTART_COUNT": "2"})
    assert not was_restarted({})


@pytest.mark.parametrize(
    "environment",
    [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": "two", "RANK": "0"}, {"WORLD_SIZE": "2", "RANK": "2"}],
)
def test_half_an_environment_is_an_error(environment: dict[str, str]) -> None:
    with pytest.raises(ZooError) as failure:
        find_world(environment)
    assert "torchrun" in failure.value.hint


def test_shares_of_a_batch_make_the_batch() -> None:
    batch = list(range(12))
    for size in (1, 2, 3, 4):
        shares = [share_of(batch, World(rank=rank, size=size)) for rank in range(size)]
        assert list(chain.from_iterable(shares)) == batch
        assert len({len(share) for share in shares}) == 1
    assert share_of(list(range(7)), World(rank=1, size=2)) == [3, 4, 5]
