"""Large pictures: they wait for one another, and nobody for them; what nobody waits for is not decoded to its end."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from PIL import Image

import serve.core.decoders
from export.contract import Contract
from serve.core.decoders import LARGE_BUDGET, LARGE_PIXELS, Decoders
from serve.core.failures import QueueFullError
from zoo.data.decode import GivenUpError, TooManyPixelsError, open_picture
from zoo.data.preprocess import load_batch
from zoo.errors import BrokenPictureError
from zoo.model.spec import Preprocessing

PATIENCE_S = 60.0
EIGHT = Preprocessing(image_size=8)
CONTRACT = Contract(model="fake", classes=("a", "b"), preprocessing=EIGHT)
Decode = Callable[..., Future[Any]]


def picture(width: int, height: int, kind: str = "PNG", mode: str = "L") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height), 7).save(buffer, kind)
    return buffer.getvalue()


USUAL = picture(60, 50)
LARGE = picture(2100, 2000)
assert LARGE_PIXELS < 2100 * 2000


@pytest.fixture
def decode() -> Iterator[Decode]:
    """Hand in a picture; the future gets its pixels and the name of the thread that made them."""
    decoders = Decoders(2)

    def hand_in(body: bytes, future: Future[Any] | None = None) -> Future[Any]:
        future = future or Future()

        def then(pixels: Any, took_s: float, future: Future[Any]) -> None:
            if future.set_running_or_notify_cancel():
                future.set_result((pixels, threading.current_thread().name))

        decoders.submit(body, CONTRACT, future, then)
        return future

    hand_in.decoders = decoders  # type: ignore[attr-defined]
    yield hand_in
    decoders.shutdown()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Large pictures are not decoded before this is set."""
    gate = threading.Event()
    opened = serve.core.decoders.open_picture

    def wait_and_open(body: bytes, **options: Any) -> Any:
        if options["max_pixels"] > LARGE_PIXELS:
            assert gate.wait(PATIENCE_S)
        return opened(body, **options)

    monkeypatch.setattr(serve.core.decoders, "open_picture", wait_and_open)
    yield gate
    gate.set()


def test_both_lanes_make_the_pixels_that_predict_makes(decode: Decode) -> None:
    for body, lane in ((USUAL, "decode_"), (LARGE, "decode-large_")):
        pixels, thread = decode(body).result(PATIENCE_S)
        np.testing.assert_array_equal(pixels, load_batch([body], EIGHT)[0])
        assert thread.startswith(lane)


def test_usual_pictures_do_not_wait_for_large_ones(decode: Decode, held: threading.Event) -> None:
    large = [decode(LARGE) for _ in range(8)]
    for _ in range(20):
        assert decode(USUAL).result(PATIENCE_S)
    assert not any(future.done() for future in large)
    held.set()
    assert len({future.result(PATIENCE_S)[1] for future in large}) == 1  # one thread, one after another
    assert decode.decoders.large_pixels == 0  # type: ignore[attr-defined]


def test_more_large_pixels_than_the_budget_are_refused(decode: Decode, held: threading.Event) -> None:
    body, pixels = picture(7000, 7000), 49_000_000
    fitting = [decode(body) for _ in range(LARGE_BUDGET // pixels)]
    while decode.decoders.large_pixels < pixels * len(fitting):  # type: ignore[attr-defined]
        pass
    assert "megapixels" in str(decode(body).exception(PATIENCE_S))
    assert isinstance(decode(body).exception(PATIENCE_S), QueueFullError)
    for future in fitting:
        future.cancel()
    held.set()
    while decode.decoders.large_pixels:  # type: ignore[attr-defined]
        pass
    assert decode(LARGE).result(PATIENCE_S)


def test_a_picture_whose_client_left_is_not_decoded(decode: Decode) -> None:
    future: Future[Any] = Future()
    future.cancel()
    decode(b"no picture at all", future)
    assert decode(USUAL).result(PATIENCE_S)
    assert future.cancelled()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_decoding_is_given_up_half_way(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind)
    asked = 0

    def after_a_while() -> bool:
        nonlocal asked
        asked += 1
        return asked > 60

    with pytest.raises(GivenUpError):
        open_picture(buffer.getvalue(), is_given_up=after_a_while)
    assert asked == 61
    whole = open_picture(buffer.getvalue(), is_given_up=lambda: False)
    np.testing.assert_array_equal(np.asarray(whole), np.asarray(open_picture(buffer.getvalue())))


def test_the_header_is_read_before_anything_is_decoded() -> None:
    with pytest.raises(TooManyPixelsError) as refusal:
        open_picture(LARGE[:200], max_pixels=LARGE_PIXELS)  # its pixels are not even there
    assert refusal.value.pixels == 4_200_000


def test_what_is_broken_fails_its_own_request(decode: Decode) -> None:
    assert isinstance(decode(b"no picture").exception(PATIENCE_S), BrokenPictureError)
    assert isinstance(decode(LARGE[: len(LARGE) // 2]).exception(PATIENCE_S), BrokenPictureError)
    assert decode(USUAL).result(PATIENCE_S)


def test_a_machine_without_memory_refuses_one_picture(decode: Decode, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(serve.core.decoders, "prepare", no_memory)
    assert isinstance(decode(USUAL).exception(PATIENCE_S), QueueFullError)


def test_quick_pictures_are_close_and_what_is_no_jpeg_is_exact() -> None:
    decoders = Decoders(1, "quick")
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    for body, most in ((buffer.getvalue(), 8), (USUAL, 0), (LARGE, 0)):
        future: Future[Any] = Future()
        decoders.submit(body, CONTRACT, future, lambda pixels, took_s, future: future.set_result(pixels))
        off = np.abs(future.result(PATIENCE_S).astype(int) - load_batch([body], EIGHT)[0])
        assert off.max() <= most
    decoders.shutdown()
