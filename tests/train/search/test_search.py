"""Whole searches of the control space: what they leave, how they go on, and what they survive."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.train.search.made import trained
from train.options import TrainOptions
from train.processes.stopping import RunStopped
from train.search import trials as trials_module
from train.search.options import SearchOptions
from train.search.plan import plan_search
from train.search.result import SearchResult
from train.search.run import REPORT, RESULT, STORE, WINNER, search
from train.search.trial import Hopeless, Lab, train_network
from train.search.worker import Worker, open_lab
from train.session import train_model
from zoo.errors import DataError, DivergedError, MissingCapabilityError, ZooError
from zoo.model.blocks import LATENCY_TABLE, LatencyTable, TimedBlock
from zoo.model.row_files import load_row
from zoo.model.space import Space
from zoo.model.spaces import CONTROL, write_space
from zoo.results import Result, measured_on, write_result
from zoo.rows import Row

Asked = Callable[..., SearchOptions]


def codes(result: SearchResult) -> list[str]:
    return [one.trial.code for one in result.trials]


def test_a_search_leaves_a_winner_its_figures_and_a_page(asked: Asked) -> None:
    options = asked(trials=4, finalists=2, long_epochs=3, long_seeds=2)
    result = search(options)
    assert {path.name for path in options.out.iterdir()} == {STORE, WINNER, RESULT, REPORT}
    assert len(set(codes(result))) == 4 and all(one.trial.state == "finished" for one in result.trials)
    assert SearchResult.from_dict(json.loads((options.out / RESULT).read_text())) == result
    winner = result.winner
    assert winner and winner.confirmed and winner.code == result.finalists[0].code
    assert load_row(options.out / WINNER) == result.winner_row == CONTROL.variant(winner.candidate)
    assert all(one.seeds == 2 and one.epochs == 3 for one in result.finalists)
    seeds = {training.trained.seed for training in result.trainings}
    assert seeds == {1, 2} and 0 not in seeds  # a trial's own seed is 0: these are fresh
    page = (options.out / REPORT).read_text()
    assert winner.code in page and "http://" not in page.replace("http://www.w3.org", "") and "<script" not in page


def test_published_tables_are_the_first_networks_tried(asked: Asked) -> None:
    result = search(asked(trials=2))
    assert [one.names for one in result.trials] == [("s", "b0"), ("v1-b0",)]


def test_the_same_command_with_a_larger_number_goes_on_as_if_it_had_not_stopped(asked: Asked, tmp_path: Path) -> None:
    whole = search(asked(trials=6, out=tmp_path / "whole"))
    search(asked(trials=3, out=tmp_path / "parts"))
    parts = search(asked(trials=6, out=tmp_path / "parts"))
    assert codes(parts) == codes(whole)
    again = search(asked(trials=6, out=tmp_path / "parts"))
    assert codes(again) == codes(parts)
    assert [one.trial.trained and one.trial.trained.top1 for one in parts.trials] == [
        one.trial.trained and one.trial.trained.top1 for one in whole.trials
    ]


def test_a_space_is_used_up_and_each_network_tried_once(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    known: dict[str, Any] = {}

    def made_up(job: Any, **told: Any) -> Any:
        tried.append(job.variant.name)
        if not known:
            known["trained"] = train_network(job)
        return known["trained"]

    costs = open_lab(asked()).costs(CONTROL.candidate(next(CONTROL.candidates()).stages))
    monkeypatch.setattr(Lab, "costs", lambda self, candidate: costs)
    monkeypatch.setattr(trials_module, "train_network", made_up)
    monkeypatch.setattr(trials_module, "MOST_DRAWS", 5)
    monkeypatch.setattr(trials_module, "MOST_REPEATS", 2)
    result = search(asked(trials=1000))
    assert len(tried) == len(set(tried)) == CONTROL.size == len(result.trials)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_every_sampler_searches_and_nothing_is_tried_twice(asked: Asked, sampler: str) -> None:
    result = search(asked(trials=5, sampler=sampler, epochs=1))
    assert len(set(codes(result))) == 5 and result.winner


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"), "out of memory"),
        (
            RuntimeError("CUDA error: an illegal memory access\nmore"),
            "RuntimeError: CUDA error: an illegal memory access",
        ),
        (DivergedError("The loss became nan.", "Lower --lr."), "The loss became nan."),
    ],
)
def test_a_failed_trial_is_written_down_and_the_search_goes_on(
    error: BaseException, reason: str, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [error]

    def failing(job: Any, **told: Any) -> Any:
        if left:
            raise left.pop()
        return train_network(job, **told)

    monkeypatch.setattr(trials_module, "train_network", failing)
    result = search(asked(trials=3))
    assert [one.trial.state for one in result.trials] == ["failed", "finished", "finished"]
    assert result.trials[0].trial.reason == reason and result.trials[0].trial.costs
    monkeypatch.undo()


def test_if_all_networks_fail_it_is_not_the_networks(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(job: Any, **told: Any) -> Any:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(trials_module, "train_network", failing)
    with pytest.raises(ZooError, match="all failed, so it is not the networks: RuntimeError: no such kernel"):
        search(asked(trials=20))


def test_a_trial_that_is_behind_is_stopped_early(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    from train.search import sampler

    monkeypatch.setattr(sampler, "STARTUP_TRIALS", 2)
    monkeypatch.setattr(sampler, "WARMUP_SHARE", 0.0)
    made = 0

    def judged(job: Any, *, judge: Any, stop: Any) -> Any:
        nonlocal made
        made += 1
        known = train_network(job)
        if made > 2 and judge(1, 0.01):
            raise Hopeless(replace(known, top1=0.01, epochs=1, history=(0.01,)))
        judge(1, 0.9)
        return known

    monkeypatch.setattr(trials_module, "train_network", judged)
    result = search(asked(trials=4))
    states = [one.trial.state for one in result.trials]
    assert states == ["finished", "finished", "stopped early", "stopped early"]
    assert search(asked(trials=4)).trials == result.trials  # it counts, and is not tried again


def test_the_judge_ends_a_training_and_what_it_had_reached_is_known(asked: Asked) -> None:
    lab = open_lab(asked(epochs=3))
    with pytest.raises(Hopeless) as ended:
        train_network(lab.job(lab.reference), judge=lambda epoch, top1: epoch == 2)
    assert ended.value.trained.epochs == 2 and len(ended.value.trained.history) == 2


def test_a_trial_is_a_training_of_zoo_train(asked: Asked, tmp_path: Path, few: Path) -> None:
    lab = open_lab(asked(epochs=2))
    found = train_network(lab.job(lab.reference))
    row = tmp_path / "row.toml"
    write_row_of(lab, row)
    told = {"data": str(few), "recipe": "fixed", "epochs": 2, "image_size": 16, "batch_size": 16}
    told |= {"keep": "last", "workers": 0, "device": "cpu", "out": tmp_path / "run"}
    outcome = train_model(TrainOptions(model=str(row), **told))  # type: ignore[arg-type]
    assert outcome.result.top1 == found.top1
    assert [epoch.val_top1 for epoch in outcome.history] == list(found.history)


def write_row_of(lab: Lab, path: Path) -> None:
    from zoo.model.row_files import write_row

    write_row(path, lab.variant(lab.reference), "")


def test_two_workers_on_one_store_share_the_work(asked: Asked, tmp_path: Path) -> None:
    store, results, errors = str(tmp_path / "shared.db"), [], []
    search(asked(trials=1, store=store, out=tmp_path / "first"))

    def work(number: int) -> None:
        try:
            results.append(search(asked(trials=6, store=store, out=tmp_path / f"{number}", finalists=1, long_epochs=2)))
        except BaseException as error:  # noqa: BLE001  a thread's error would be lost
            errors.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=300)
    assert not errors and len(results) == 2
    assert codes(results[0]) == codes(results[1]) and len(set(codes(results[0]))) == len(codes(results[0]))
    assert 6 <= len(results[0].trials) <= 7  # both may have found one place left
    long = [(training.code, training.trained.seed) for training in results[0].trainings]
    assert len(long) == len(set(long))
    assert (tmp_path / "0" / WINNER).read_text() == (tmp_path / "1" / WINNER).read_text()


def test_a_wish_to_stop_lets_go_of_the_training_at_hand(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(job: Any, **told: Any) -> Any:
        raise RunStopped(signal.SIGINT, "in epoch 1 of 2")

    with monkeypatch.context() as patch, pytest.raises(RunStopped):
        patch.setattr(trials_module, "train_network", stopped)
        search(asked(trials=3))
    result = search(asked(trials=3))
    assert len(result.trials) == len(set(codes(result))) == 3
    assert all(one.trial.state == "finished" for one in result.trials)


def begin(options: SearchOptions) -> subprocess.Popen[str]:
    """The same search in another process."""
    told = {"--data": options.data, "--space": options.space, "--recipe": "fixed", "--device": "cpu", "--workers": "0"}
    told |= {"--epochs": options.epochs, "--image-size": 16, "--batch-size": 16, "--finalists": 0, "-o": options.out}
    words = [str(word) for pair in (told | {"--trials": options.trials}).items() for word in pair]
    program = "from train.search import step_time as s; s.ROUNDS = 3; from zoo.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, "search", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def wait_for_a_training(process: subprocess.Popen[str], store: Path) -> None:
    """Until a trial is running whose costs are known: it is being trained then."""
    asking = (
        "SELECT count(*) FROM trials JOIN trial_user_attributes USING (trial_id) WHERE state = 'RUNNING' AND key = "
        "'outcome'"
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        if store.is_file():
            try:
                with sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=10) as database:
                    if database.execute(asking).fetchone()[0]:
                        return
            except sqlite3.OperationalError:
                pass  # the tables are not made yet
    raise AssertionError("no training began")


def test_ctrl_c_and_sigkill_lose_the_training_at_hand_and_nothing_else(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = asked(trials=3, epochs=400)  # long enough to be met by a signal
    store = options.out / STORE
    process = begin(options)
    wait_for_a_training(process, store)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130 and "the same command goes on" in said and "Traceback" not in said
    process = begin(options)
    wait_for_a_training(process, store)
    process.kill()
    process.communicate(timeout=120)
    monkeypatch.setattr(trials_module, "train_network", lambda job, **told: trained(0.5))
    result = search(options)
    assert len(result.trials) == len(set(codes(result))) == 3
    assert all(one.trial.state == "finished" for one in result.trials)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 3}, "another number of epochs (2, here 3)"),
        ({"image_size": 24}, "another size (16, here 24)"),
        ({"data": "digits"}, "another set of pictures"),
        ({"sampler": "nsga2"}, "another kind of sampler (by reward, here NSGA-II)"),
        ({"seed": 1}, "another seed (0, here 1)"),
    ],
)
def test_a_store_of_another_search_is_refused(asked: Asked, changes: dict[str, Any], said: str) -> None:
    search(asked(trials=1))
    with pytest.raises(ZooError) as refused:
        search(asked(trials=2, **changes))
    assert said in str(refused.value)


def test_more_epochs_of_finalists_are_another_list_of_long_trainings(asked: Asked) -> None:
    first = search(asked(trials=1, finalists=1, long_epochs=3, long_seeds=1))
    second = search(asked(trials=1, finalists=1, long_epochs=4, long_seeds=1))
    assert [training.trained.epochs for training in (*first.trainings, *second.trainings)] == [3, 4]


def test_a_space_of_ones_own_with_a_reward_of_ones_own(asked: Asked, tmp_path: Path) -> None:
    mine = replace(CONTROL, id="mine", reward=replace(CONTROL.reward, step_time=0, params=0))
    write_space(tmp_path / "my.toml", mine)
    result = search(asked(space=str(tmp_path / "my.toml"), trials=2))
    assert all(one.reward and one.trial.trained and one.reward.value == one.trial.trained.top1 for one in result.trials)
    with pytest.raises(ZooError, match="another reward"):
        write_space(tmp_path / "other.toml", replace(mine, reward=replace(mine.reward, params=-1)))
        search(asked(space=str(tmp_path / "other.toml"), trials=2))


def test_a_budget_begins_no_trial_that_would_not_end(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as slow:
        slow.setattr(Worker, "trial_s", lambda self, settled: 3601.0 if settled else 0.0)
        result = search(asked(trials=None, budget="1h", finalists=0))
        assert len(result.trials) == 1  # how long one takes is known after the first
        assert search(asked(trials=2, budget="1h")).trials == result.trials
    assert len(search(asked(trials=2, budget="10h")).trials) == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 1, "recipe": "digits"}, "less than one epoch for each"),
        ({"epochs": 4, "recipe": "digits", "finalists": 1, "long_epochs": 2}, "less than one epoch for each"),
        ({"budget": "soon"}, "is no time"),
        ({"overrides": ("nosuch=1",)}, "has no setting"),
    ],
)
def test_what_cannot_be_done_leaves_no_folder_and_no_store(asked: Asked, changes: dict[str, Any], said: str) -> None:
    options = asked(**changes)
    with pytest.raises(ZooError, match=said):
        search(options)
    assert not options.out.exists()


def test_a_plan_says_how_many_fit(asked: Asked) -> None:
    options = asked(trials=None, budget="1h", finalists=2, long_seeds=2)
    plan = plan_search(open_lab(options), options)
    assert plan.trials == CONTROL.size and plan.long_trainings == (2 + 2) * 2
    assert "what fits the budget of 1" in plan.sentences[-1]
    none = plan_search(open_lab(options), replace(options, budget="0.1s"))
    assert none.trials == 0 and "has no time for one" in none.sentences[-1]
    asked_for = plan_search(open_lab(asked(trials=5)), asked(trials=5))
    assert asked_for.trials == 5 and asked_for.seconds == pytest.approx(5 * asked_for.trial_s)


def test_pictures_with_several_labels_are_refused(asked: Asked, tmp_path: Path, picture_folder: Path) -> None:
    files = sorted(picture_folder.rglob("*.jpg"))[:12] or sorted(picture_folder.rglob("*.png"))[:12]
    rows = [f"{path},{'a|b' if place % 2 else 'a'}" for place, path in enumerate(files)]
    (tmp_path / "labels.csv").write_text("path,labels\n" + "\n".join(rows) + "\n")
    with pytest.raises(DataError, match="may have several labels"):
        open_lab(asked(data=str(tmp_path / "labels.csv")))


def test_a_latency_table_that_is_not_there_is_told(asked: Asked, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="There is no result"):
        open_lab(asked(latency_table=tmp_path / "none.json"))


def write_table(folder: Path, space: Space) -> Path:
    """A latency table in which every part takes a millisecond."""
    rows = tuple(TimedBlock(block=block, ms=1.0, low_ms=0.9, high_ms=1.1, n=30) for block in space.blocks(16))
    table = LatencyTable(
        space=space.id,
        space_sha256=space.sha256,
        engine="ort-cpu",
        precision="fp32",
        threads=1,
        image_size=16,
        batch_size=1,
        num_classes=2,
        call_ms=0.5,
        rows=rows,
    )
    data = {"table": table.to_dict()}
    result = Result(kind=LATENCY_TABLE, name="made", environment=measured_on("cpu"), settings={}, data=data)
    return write_result(folder, result)


def test_latency_joins_the_reward_by_the_sum_of_a_table(asked: Asked, tmp_path: Path) -> None:
    result = search(asked(trials=3, latency_table=write_table(tmp_path, CONTROL)))
    for one in result.trials:
        costs = one.trial.costs
        assert costs and costs.latency
        parts = 2 + sum(stage.num_layers for stage in one.trial.candidate.stages if stage)
        assert costs.latency.ms == pytest.approx(0.5 + parts)
    assert result.unit.latency_ms == pytest.approx(5.5) and result.latency_engine == "ort-cpu, fp32, batch 1"
    assert "L^-0.07" in (asked().out / REPORT).read_text()
    with pytest.raises(ZooError, match="another latency table"):
        search(asked(trials=3))


def test_a_table_of_another_space_is_no_table_of_this_one(asked: Asked, tmp_path: Path) -> None:
    other = replace(CONTROL, head_channels=40)
    with pytest.raises(ZooError, match="is of the space control, which is not control as it is here"):
        open_lab(asked(latency_table=write_table(tmp_path, other)))


def test_without_optuna_it_says_what_to_install(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingCapabilityError, match="needs Optuna"):
        search(asked(trials=1))


def test_under_torchrun_it_says_what_to_do_instead(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ZooError, match="one by one in one process"):
        search(asked(trials=1))


def test_every_row_of_a_result_is_a_row(asked: Asked) -> None:
    assert isinstance(search(asked(trials=1)), Row)
