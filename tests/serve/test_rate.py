"""How often a client may ask: buckets by a simulated clock."""

from __future__ import annotations

import pytest

from serve import rate
from serve.core.failures import RateLimitedError
from serve.keys import Keyring, read_keys
from serve.rate import RateLimit


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_second_of_requests_at_once_and_then_as_many_as_come_back() -> None:
    clock = Clock()
    limit = RateLimit(2.0, clock)
    limit.take("a")
    limit.take("a")
    with pytest.raises(RateLimitedError, match="More than 2 requests a second") as refused:
        limit.take("a")
    assert refused.value.retry_after_s == 1
    limit.take("b")  # another client has its own
    clock.now += 0.5
    limit.take("a")
    with pytest.raises(RateLimitedError):
        limit.take("a")
    clock.now += 1000.0  # nothing is saved up beyond a second's worth
    limit.take("a")
    limit.take("a")
    with pytest.raises(RateLimitedError):
        limit.take("a")


def test_a_request_every_ten_seconds_says_when_the_next_may_come() -> None:
    clock = Clock()
    limit = RateLimit(0.1, clock)
    limit.take("a")
    clock.now += 4.0
    with pytest.raises(RateLimitedError) as refused:
        limit.take("a")
    assert refused.value.retry_after_s == 6


def test_no_more_clients_are_remembered_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "MOST_CLIENTS", 3)
    limit = RateLimit(1.0, Clock())
    for client in "abcd":
        limit.take(client)
    limit.take("a")  # was forgotten
    with pytest.raises(RateLimitedError):
        limit.take("d")


def test_keys_are_counted_by_key_and_others_by_address() -> None:
    one, other = "a" * 30, "b" * 30
    keys = read_keys(None, {"ZOO_SERVE_KEYS": f"predict {one},predict {other}"}, 1.0)
    keys.check({"x-api-key": one}, "predict", "10.0.0.1")
    keys.check({"x-api-key": other}, "predict", "10.0.0.1")
    with pytest.raises(RateLimitedError):
        keys.check({"authorization": f"Bearer {one}"}, "predict", "10.0.0.2")
    open_to_all = Keyring(rate=RateLimit(1.0))
    assert not open_to_all
    open_to_all.check({}, "predict", "10.0.0.1")
    open_to_all.check({}, "predict", "10.0.0.2")
    with pytest.raises(RateLimitedError):
        open_to_all.check({}, "predict", "10.0.0.1")
