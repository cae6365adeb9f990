"""Decoding processes that stay: real ones, asked for pass after pass."""

from __future__ import annotations

import multiprocessing
import os
import signal
from contextlib import closing

import numpy as np
import pytest
import torch

from train.input.decoders import _tell_of_errors, decoders_kept, load, load_validation
from train.input.loader import Augmented, Batch, Prepared
from train.progressive.recipe import find_recipe
from zoo.data.pictures import Pictures
from zoo.errors import DataError
from zoo.model.variants import find_variant

TINY = find_variant("tiny")
RECIPE = find_recipe("folder", TINY)
PREPROCESSING = TINY.preprocessing.at(16)
BATCHES = [[5, 1], [0, 3], [2, 4], [9, 8], [7, 6]] * 4


def pictures(seed: int, count: int = 10) -> Pictures:
    arrays = list(np.random.default_rng(seed).integers(0, 256, (count, 20, 24, 3), dtype=np.uint8))
    return Pictures("x", ("a", "b"), arrays, np.arange(count) % 2)


def augmented(of: Pictures, epoch: int) -> Augmented:
    return Augmented(of, RECIPE, RECIPE.stages[0], 3, epoch)


def same(ours: list[Batch], theirs: list[Batch]) -> bool:
    pairs = zip(ours, theirs, strict=True)
    return all(torch.equal(a.pictures, b.pictures) and torch.equal(a.labels, b.labels) for a, b in pairs)


def children() -> set[int | None]:
    return {process.pid for process in multiprocessing.active_children()}


class Failing(Prepared):
    """A server that is gone when the third picture is asked for."""

    def __getitems__(self, indices: list[int]) -> object:  # type: ignore[override]
        return DataError("The server is gone.") if 2 in indices else super().__getitems__(indices)


def test_the_same_processes_make_every_pass_of_all_pictures_they_were_begun_for() -> None:
    train, val = pictures(1), pictures(2)
    before = children()
    with decoders_kept([train, val], workers=2, pin=False):
        began = children() - before
        assert len(began) == 2
        for epoch in range(2):
            alone = list(load(augmented(train, epoch), BATCHES, workers=0, pin=False))
            assert same(list(load(augmented(train, epoch), BATCHES, workers=2, pin=False)), alone)
            looked = list(load_validation(val, PREPROCESSING, batch_size=4, workers=2, pin=False, chosen=[3, 1, 9, 0]))
            assert looked[0].labels.tolist() == [1, 1, 1, 0]
            assert same(looked, list(load(Prepared(val, PREPROCESSING), [[3, 1, 9, 0]], workers=0, pin=False)))
        assert children() - before == began
    assert children() == before


def test_a_pass_that_is_given_up_spoils_no_other() -> None:
    train = pictures(1)
    with decoders_kept([train], workers=2, pin=False):
        began = children()
        with closing(load(augmented(train, 0), BATCHES, workers=2, pin=False)) as loaded:
            next(loaded)
        found = list(load(augmented(train, 1), BATCHES, workers=2, pin=False))
        assert same(found, list(load(augmented(train, 1), BATCHES, workers=0, pin=False)))
        assert children() == began


def test_two_passes_at_once_do_not_mix() -> None:
    train = pictures(1)
    with decoders_kept([train], workers=1, pin=False):
        both = zip(
            load(augmented(train, 0), BATCHES, workers=1, pin=False),
            load(augmented(train, 1), BATCHES, workers=1, pin=False),
            strict=True,
        )
        first, second = map(list, zip(*both, strict=True))
    assert same(first, list(load(augmented(train, 0), BATCHES, workers=0, pin=False)))
    assert same(second, list(load(augmented(train, 1), BATCHES, workers=0, pin=False)))


def test_after_a_failure_there_are_new_processes() -> None:
    train, before = pictures(1), children()
    with decoders_kept([train], workers=1, pin=False):
        with pytest.raises(DataError, match="gone"):
            list(load(Failing(train, PREPROCESSING), BATCHES, workers=1, pin=False))
        assert same(
            list(load(Prepared(train, PREPROCESSING), BATCHES, workers=1, pin=False)),
            list(load(Prepared(train, PREPROCESSING), BATCHES, workers=0, pin=False)),
        )
    assert children() == before


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes are stopped by a signal of Unix")
@pytest.mark.parametrize("known", [True, False])
def test_a_process_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
    monkeypatch.setattr("train.processes.workers.ENDED_WITHIN_S", 0.1)
    train, before = pictures(1), children()
    with (
        decoders_kept([train if known else pictures(2)], workers=1, pin=False),
        closing(load(augmented(train, 0), BATCHES, workers=1, pin=False)) as loaded,
    ):
        next(loaded)
        for pid in children() - before:
            assert pid
            os.kill(pid, signal.SIGSTOP)
    assert children() == before


def test_a_run_that_leaves_while_a_batch_is_handed_over_makes_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    _tell_of_errors(ConnectionResetError, ConnectionResetError(104, "Connection reset by peer"), None)
    assert capsys.readouterr().err == ""
    _tell_of_errors(KeyError, KeyError("label"), None)
    assert "KeyError: 'label'" in capsys.readouterr().err


def test_pictures_they_do_not_know_have_processes_of_their_own() -> None:
    known, other = pictures(1), pictures(2)
    with decoders_kept([known], workers=1, pin=False):
        found = list(load(Prepared(other, PREPROCESSING), [[0, 1]], workers=1, pin=False))
    assert same(found, list(load(Prepared(other, PREPROCESSING), [[0, 1]], workers=0, pin=False)))


@pytest.mark.parametrize("workers", [0, 1])
def test_no_pass_draws_from_the_networks_random_numbers(workers: int) -> None:
    train = pictures(1)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with decoders_kept([train], workers=workers, pin=False):
        list(load(augmented(train, 0), BATCHES, workers=workers, pin=False))
    assert torch.equal(torch.rand(3), expected)
