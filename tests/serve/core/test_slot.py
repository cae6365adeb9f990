"""Another engine takes the place of the one at work while requests are under way: none is lost."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import httpx
import numpy as np
import pytest

from export.contract import Contract
from serve.core.batcher import Batcher
from serve.core.slot import Engine, EngineInfo
from zoo.model.spec import Preprocessing

PATIENCE_S = 60.0
Start = Callable[..., Any]


def make_engine(fake: Any, model: str, *, image_size: int = 8, warm: bool = True, classes: str = "abcdefghij") -> Any:
    """An engine of a fake runner, which is returned too; every engine's classes have names of its own."""
    contract = Contract(
        model=model,
        classes=tuple(f"{model}-{name}" for name in classes),
        preprocessing=Preprocessing(image_size=image_size),
    )
    runner = fake(contract=contract)
    batcher = Batcher([runner], queue_capacity=64, max_batch_size=4)
    info = EngineInfo(artifact=f"{model}.onnx", backend="fake 2.0", device="CPU", precision="fp16")
    runners = ExitStack()
    runners.enter_context(runner)
    engine = Engine(batcher=batcher, contract=contract, info=info, runners=runners)
    batcher.start()
    if warm:
        batcher.warmed.result(PATIENCE_S)
    return engine, runner


def swap_later(slot: Any, engine: Engine) -> threading.Thread:
    """Swap in a thread; when this returns the new engine is at work, and the old one may still have answers to give."""
    thread = threading.Thread(target=slot.swap, args=(engine,), daemon=True)
    thread.start()
    while slot.engine is not engine:
        thread.join(0.001)
    return thread


def first_class(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    answer = reply.json()
    best: str = answer["predictions"][0]["class"]
    assert best.startswith(f"{answer['model']}-"), "the answer's classes are those of the engine that gave it"
    return best


def test_the_old_engine_answers_what_it_has_while_the_new_one_takes_the_rest(start_server: Start, fake: Any) -> None:
    old_engine, old = make_engine(fake, "old")
    new_engine, new = make_engine(fake, "new", image_size=12)
    running = start_server(max_batch_size=4)
    running.service.slot.swap(old_engine)
    old.hold()
    computing = running.post_later(fake.png(1))
    old.entered.get(timeout=PATIENCE_S)
    queued = [running.post_later(fake.png(byte)) for byte in (2, 3)]
    while running.metric("zoo_queue_depth") < 2:
        pass
    thread = swap_later(running.service.slot, new_engine)
    assert first_class(running.post(fake.png(4))) == "new-e"
    assert thread.is_alive() and not old.is_closed, "its answers are still to come"
    old.release()
    replies = [answers.get(timeout=PATIENCE_S) for answers in (computing, *queued)]
    assert [first_class(reply) for reply in replies] == ["old-b", "old-c", "old-d"]
    thread.join(PATIENCE_S)
    assert old.is_closed and not new.is_closed
    assert (sorted(map(sorted, old.batches)), new.batches) == ([[1], [2, 3]], [[4]])


def test_a_picture_that_is_being_sent_goes_to_the_engine_its_request_began_with(start_server: Start, fake: Any) -> None:
    """It would be resized for one engine and classified by another, or find a closed queue."""
    old_engine, old = make_engine(fake, "old")
    new_engine, _ = make_engine(fake, "new", image_size=12)
    running = start_server()
    running.service.slot.swap(old_engine)
    taken, go_on = threading.Event(), threading.Event()
    body = fake.png(7)

    def slowly() -> Any:
        yield body[:10]
        while not running.service.in_flight:
            pass
        taken.set()
        assert go_on.wait(PATIENCE_S)
        yield body[10:]

    replies: list[httpx.Response] = []
    client = threading.Thread(target=lambda: replies.append(running.post(slowly())), daemon=True)
    client.start()
    assert taken.wait(PATIENCE_S)
    thread = swap_later(running.service.slot, new_engine)
    assert not old.is_closed
    go_on.set()
    client.join(PATIENCE_S)
    assert first_class(replies[0]) == "old-h"
    thread.join(PATIENCE_S)
    assert old.is_closed


def test_no_request_is_lost_while_engines_change_again_and_again(start_server: Start, fake: Any) -> None:
    running = start_server(max_batch_size=4)
    first = running.service.slot.engine
    stop = threading.Event()
    answered: Counter[str] = Counter()
    wrong: list[str] = []

    def ask(byte: int) -> None:
        with httpx.Client(base_url=running.client.base_url, timeout=PATIENCE_S, trust_env=False) as client:
            while not stop.is_set():
                reply = client.post("/predict", content=fake.png(byte))
                best = reply.json()["predictions"][0] if reply.status_code == 200 else {"index": None, "class": ""}
                if best["index"] != byte % 10:
                    wrong.append(reply.text)
                answered[best["class"].split("-")[0]] += 1

    clients = [threading.Thread(target=ask, args=(byte,), daemon=True) for byte in range(1, 9)]
    for client in clients:
        client.start()
    retired = []
    for number in range(8):
        engine, runner = make_engine(fake, f"m{number}", image_size=8 + number)
        running.service.slot.swap(engine)
        retired.append(runner)
        while not answered[f"m{number}"]:
            stop.wait(0.001)
    stop.set()
    for client in clients:
        client.join(PATIENCE_S)
    assert wrong == []
    assert all(answered[f"m{number}"] for number in range(8))
    assert [runner.is_closed for runner in retired] == [True] * 7 + [False]
    assert not first.batcher.ready
    total = sum(answered.values())
    assert running.metric("zoo_pictures_total") == running.metric("zoo_batch_size_sum") == total
    assert running.metric('zoo_requests_total{path="/predict",status="200"}') == total


def test_everything_that_is_told_is_of_the_engine_at_work(start_server: Start, fake: Any) -> None:
    running = start_server()
    engine, _ = make_engine(fake, "new", image_size=12, classes="xyz")
    running.service.slot.swap(engine)
    info = running.client.get("/info").json()
    assert (info["model"], info["artifact"], info["precision"]) == ("new", "new.onnx", "fp16")
    assert (info["image_size"], info["num_classes"], info["queue_capacity"]) == (12, 3, 64)
    text = running.client.get("/metrics").text
    assert 'artifact="new.onnx"' in text and "fake.onnx" not in text
    assert running.client.get("/readyz").status_code == 200


def test_an_engine_that_is_not_warm_does_not_take_the_place(start_server: Start, fake: Any) -> None:
    running = start_server()
    at_work = running.service.slot.engine
    cold = Engine(
        batcher=Batcher([fake()], queue_capacity=1, max_batch_size=1), contract=at_work.contract, info=at_work.info
    )
    with pytest.raises(ValueError, match="not warm"):
        running.service.slot.swap(cold)
    assert running.service.slot.engine is at_work
    assert running.post(fake.png(1)).status_code == 200


def test_the_engine_at_work_is_not_closed_by_putting_it_to_work_again(start_server: Start, fake: Any) -> None:
    running = start_server()
    running.service.slot.swap(running.service.slot.engine)
    assert running.post(fake.png(1)).status_code == 200


def test_nothing_is_freed_while_a_thread_is_inside_a_runner(fake: Any) -> None:
    engine, runner = make_engine(fake, "stuck")
    runner.hold()
    future = engine.batcher.submit(np.full((8, 8, 3), 1, np.uint8))
    runner.entered.get(timeout=PATIENCE_S)
    assert not engine.close(timeout_s=0.0)
    assert not runner.is_closed
    runner.release()
    assert engine.close(PATIENCE_S)
    assert runner.is_closed and future.done()
