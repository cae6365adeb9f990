"""Answers that are kept: found by content and holder, bounded in bytes, the one used longest ago gone first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.core.cache import ENTRY_BYTES, LARGE_BYTES, AnswerCache, Key
from serve.core.waiting import Answer, Batch

CLASSES = 10
ENTRY = ENTRY_BYTES + 4 * CLASSES


def answer(number: int) -> Answer:
    logits = np.full((3, CLASSES), number, np.float32)
    return Answer(batch=Batch(logits), row=1, queue_ms=1.0, compute_ms=2.0, batch_size=3)


def key(number: int) -> Key:
    return b"", "file", bytes([number])


@pytest.fixture
def looked() -> list[bool]:
    """Whether each look-up found something."""
    return []


@pytest.fixture
def cache(looked: list[bool]) -> AnswerCache:
    """Room for three answers."""
    return AnswerCache(3 * ENTRY + 1, lambda found, took_s: looked.append(found))


def test_what_was_kept_is_found_and_says_so(cache: AnswerCache, looked: list[bool]) -> None:
    assert cache.find(key(1), 0.0) is None
    cache.keep(key(1), answer(1))
    found = cache.find(key(1), 0.0)
    assert found is not None and found.was_kept and not answer(1).was_kept
    assert (found.queue_ms, found.compute_ms, found.logits.tolist()) == (0.0, 0.0, [1.0] * CLASSES)
    assert looked == [False, True]


def test_the_one_used_longest_ago_goes_first(cache: AnswerCache) -> None:
    for number in (1, 2, 3):
        cache.keep(key(number), answer(number))
    cache.find(key(1), 0.0)
    cache.keep(key(4), answer(4))
    assert [cache.find(key(number), 0.0) is not None for number in (1, 2, 3, 4)] == [True, False, True, True]


def test_an_answer_keeps_no_batch_in_memory(cache: AnswerCache) -> None:
    batch = np.zeros((64, CLASSES), np.float32)
    cache.keep(key(1), Answer(batch=Batch(batch), row=3, queue_ms=0.0, compute_ms=0.0, batch_size=64))
    found = cache.find(key(1), 0.0)
    assert found is not None and found.batch.logits.base is None and found.batch.logits.shape == (1, CLASSES)


def test_what_is_too_large_is_not_kept_and_drives_nobody_out(cache: AnswerCache) -> None:
    cache.keep(key(1), answer(1))
    large = Batch(np.zeros((1, 10_000), np.float32))
    cache.keep(key(2), Answer(batch=large, row=0, queue_ms=0.0, compute_ms=0.0, batch_size=1))
    assert len(cache) == 1


@given(st.lists(st.integers(0, 255)))
def test_it_never_holds_more_than_it_may(numbers: Sequence[int]) -> None:
    cache = AnswerCache(5 * ENTRY, lambda found, took_s: None)
    for number in numbers:
        cache.keep(key(number), answer(number))
        assert cache.kept_bytes == len(cache) * ENTRY <= cache.capacity_bytes
    assert len(cache) == min(5, len(set(numbers)))
    cache.clear()
    assert (len(cache), cache.kept_bytes) == (0, 0)


def test_holder_kind_and_every_byte_are_in_the_key(cache: AnswerCache) -> None:
    async def keys() -> list[Key]:
        big = bytes(LARGE_BYTES + 1)
        return [
            await cache.key_of(holder, content, data)
            for holder in (b"", b"me")
            for content in ("file", "input")
            for data in (b"a", b"b", big, big[:-1] + b"x", np.zeros((2, 3), np.float32))
        ]

    found = asyncio.run(keys())
    assert len(set(found)) == len(found) == 20
