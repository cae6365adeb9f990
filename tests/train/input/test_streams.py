"""Every picture's random numbers are its own, whatever was drawn before."""

from __future__ import annotations

import copy
import pickle

import numpy as np

from train.input.streams import Streams


def test_a_stream_is_the_same_whatever_was_drawn_before() -> None:
    streams = Streams(seed=3, epoch=5)
    first = streams.of(7).random(9).tolist()
    streams.of(8).integers(0, 10, dtype=np.uint32)  # leaves half of a 64-bit word behind
    streams.of(2).random(3)
    assert streams.of(7).random(9).tolist() == first
    assert Streams(3, 5).of(7).random(9).tolist() == first


def test_seed_epoch_and_picture_each_give_another_stream() -> None:
    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**63, 1, 1_000_000_000)]
    drawn = {tuple(Streams(seed, epoch).of(index).random(2)) for seed, epoch, index in places}
    assert len(drawn) == len(places)


def test_the_streams_of_neighbours_are_uniform_and_apart() -> None:
    streams = Streams(0, 0)
    numbers = np.array([streams.of(index).random(4) for index in range(4000)])
    assert np.abs(numbers.mean(0) - 0.5).max() < 0.02  # four standard errors
    assert np.abs(numbers.var(0) - 1 / 12).max() < 0.006
    assert np.abs(np.corrcoef(numbers[:-1].T, numbers[1:].T)[:4, 4:]).max() < 0.07


def test_workers_get_streams_of_their_own() -> None:
    streams = Streams(0, 1)
    streams.of(4).random()
    for other in (pickle.loads(pickle.dumps(streams)), copy.deepcopy(streams)):
        assert other.of(4).random(5).tolist() == streams.of(4).random(5).tolist()
