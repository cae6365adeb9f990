from __future__ import annotations

from collections.abc import Callable

from zoo.results import Result

Make = Callable[..., Result]


def test_training_is_told_from_the_smallest_size_to_the_largest(
    train_result: Make, said_of: Callable[..., list[str]]
) -> None:
    (sentence,) = said_of(train_result())
    assert sentence == (
        "In PyTorch on NVIDIA H100, training s (folder, bf16) takes in 1,000 pictures/s at 128 px, batch 64 and 400 at "
        "300 px, batch 64: the smallest size runs 2.5× as fast as the largest."
    )
