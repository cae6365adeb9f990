"""What a request may say of its turn: with a slow engine, how soon it comes, and when its answer is too late."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from serve.core.failures import ParameterError
from serve.web.turn import Turn, read_turn

PATIENCE_S = 60.0
INFER = "/v2/models/fake/infer"


def queued(running: Any) -> queue.Queue[int]:
    """Gets the first byte of every picture as it is queued."""
    seen: queue.Queue[int] = queue.Queue()
    submit = running.batcher.submit

    def submit_and_tell(picture: Any, **options: Any) -> Any:
        future = submit(picture, **options)
        seen.put(int(picture[0, 0, 0]))
        return future

    running.batcher.submit = submit_and_tell
    return seen


def ask(running: Any, body: bytes, query: str) -> queue.Queue[Any]:
    running.post = lambda body: running.client.post(f"/predict{query}", content=body)
    return running.post_later(body)


@pytest.mark.parametrize(
    ("query", "turn"),
    [
        ({}, Turn(timeout_s=10.0, priority=5)),
        ({"timeout_ms": "0", "priority": "0"}, Turn(timeout_s=10.0, priority=5)),
        ({"timeout_ms": "250.5", "priority": "1"}, Turn(timeout_s=0.2505, priority=1)),
        ({"timeout_ms": "99999", "priority": "9"}, Turn(timeout_s=10.0, priority=9)),
    ],
)
def test_nothing_and_0_are_the_servers_own_and_it_has_the_longest(query: dict[str, str], turn: Turn) -> None:
    assert read_turn(query, 10.0) == turn


@pytest.mark.parametrize("name", ["timeout_ms", "priority"])
@pytest.mark.parametrize("text", ["", "soon", "-1", "nan", "inf", "1e999", "٣", "1,5", "x" * 100])
def test_what_is_no_number_is_told(name: str, text: str) -> None:
    with pytest.raises(ParameterError, match=f"The parameter {name} is ") as raised:
        read_turn({name: text}, 10.0)
    assert f"/predict?{name}=" in raised.value.hint and len(raised.value.problem) < 200


@pytest.mark.parametrize("text", ["10", "1.5"])
def test_there_are_nine_priorities(text: str) -> None:
    with pytest.raises(ParameterError, match="from 1 to 9"):
        read_turn({"priority": text}, 10.0)


def test_the_first_priority_is_taken_first(start_server: Callable[..., Any], fake: Any) -> None:
    running = start_server(max_batch_size=1)
    came = queued(running)
    running.runner.hold()
    answers = []
    for byte, query in ((1, ""), (91, "?priority=9"), (51, ""), (11, "?priority=1")):
        answers.append(ask(running, fake.png(byte), query))
        assert came.get(timeout=PATIENCE_S) == byte
        if byte == 1:  # it is inside the engine before the others come
            running.runner.entered.get(timeout=PATIENCE_S)
    running.runner.release()
    assert [one.get(timeout=PATIENCE_S).status_code for one in answers] == [200] * 4
    assert running.runner.batches == [[1], [11], [51], [91]]


def test_over_the_protocol_it_is_the_same_queue(start_server: Callable[..., Any], fake: Any) -> None:
    running = start_server(max_batch_size=1)
    came = queued(running)
    running.runner.hold()
    first = ask(running, fake.png(1), "")
    running.runner.entered.get(timeout=PATIENCE_S)
    late = ask(running, fake.png(51), "")
    assert [came.get(timeout=PATIENCE_S), came.get(timeout=PATIENCE_S)] == [1, 51]
    data = np.full((1, 8, 8, 3), 11, np.uint8)
    tensor = {"name": "pictures", "datatype": "UINT8", "shape": [*data.shape], "data": data.ravel().tolist()}
    asked = {"inputs": [tensor], "parameters": {"priority": 1}}
    running.post = lambda body: running.client.post(INFER, json=asked)
    soon = running.post_later(b"")
    assert came.get(timeout=PATIENCE_S) == 11
    running.runner.release()
    assert {one.get(timeout=PATIENCE_S).status_code for one in (first, late, soon)} == {200}
    assert running.runner.batches == [[1], [11], [51]]


def test_an_answer_that_came_too_late_is_a_504_and_is_not_computed(start_server: Callable[..., Any], fake: Any) -> None:
    running = start_server(max_batch_size=1)
    running.runner.hold()
    first = ask(running, fake.png(1), "")
    running.runner.entered.get(timeout=PATIENCE_S)
    late = running.client.post("/predict?timeout_ms=20", content=fake.png(2))
    assert (late.status_code, "within the request's time" in late.json()["error"]) == (504, True)
    running.runner.release()
    assert first.get(timeout=PATIENCE_S).status_code == 200
    assert running.client.post("/predict", content=fake.png(3)).status_code == 200
    assert running.runner.batches == [[1], [3]]
    assert running.metric('zoo_rejected_total{reason="deadline"}') == 1


def test_a_parameter_that_cannot_be_read_is_a_400(server: Any, fake: Any) -> None:
    reply = server.client.post("/predict?priority=10", content=fake.png(1))
    assert (reply.status_code, reply.json()["hint"]) == (400, "Example: /predict?priority=1")
