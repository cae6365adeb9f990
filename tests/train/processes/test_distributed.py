"""Several processes train as one with the whole batch: really started, on this machine's processor."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from train.processes.distributed import ALONE, World, data_parallel, find_world, gather, restarts, share_of, sum_over
from zoo.errors import ZooError
from zoo.weights.checkpoint import read_card

ROOT = Path(__file__).parents[3]


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
    assert restarts({"TORCHELASTIC_RESTART_COUNT": "2"}) == 2
    assert restarts({}) == 0


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


def test_only_the_first_process_prints(zoo: Callable, in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    said = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        said.append(zoo("train", "tiny", "--plan", "--json"))
    assert [answer.code for answer in said] == [0, 0]
    assert json.loads(said[0].out)["model"] == "tiny"
    assert (said[1].out, said[1].err) == ("", "")


# What the processes run: the command line's own function, with batch norm on its running statistics, as those of one
# batch differ from those of two halves (SyncBN, which does not, needs GPUs).
SCRIPT = """
import sys
from collections.abc import Callable
from pathlib import Path
import numpy as np
import torch
from torch import nn
import train.learn.loop, train.learn.run
from train.options import TrainOptions
from train.session import train_model
from zoo.data.open import open_splits

def enter_stage(run, stage, settings, enter=train.learn.run.enter_stage):
    enter(run, stage, settings)
    for module in run.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()

train.learn.loop.enter_stage = enter_stage
torch.set_num_threads(1)
folder, batch_size, save_every_s = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
augment_on, sampler = [*sys.argv[4:], *("auto", "shuffle")[len(sys.argv) - 4:]]
plain = tuple(f"stages.all.{name}=0" for name in ("dropout", "stochastic_depth_prob", "mixup_alpha"))
options = TrainOptions(model="tiny", epochs=4, image_size=16, batch_size=batch_size, overrides=plain, out=folder,
                       device="cpu", workers=0, save_every_s=save_every_s, augment_on=augment_on, sampler=sampler)
train_, val = open_splits("digits")
kept = [index for index, label in enumerate(train_.labels) if label < 8 or index % 8 == 0][:384]  # two are rare
train_model(options, pictures=(train_.at(np.array(kept)), val))
"""


def torchrun(processes: int, script: Path, *arguments: object, restarts: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += [f"--max-restarts={restarts}", str(script), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def losses_of(folder: Path) -> list[tuple[float, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["train_loss"], line["val_loss"]) for line in lines]


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("torchrun") / "part.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["shuffle", "balanced"])
def test_two_processes_train_as_one_with_twice_the_batch(sampler: str, script: Path, tmp_path: Path) -> None:
    # The two augment batches on the device, the one picture after picture: that makes no difference either.
    two = torchrun(2, script, tmp_path / "two", 16, 1000, "device", sampler)
    one = torchrun(1, script, tmp_path / "one", 32, 1000, "workers", sampler)
    for process in (two, one):
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said[-3000:]
    np.testing.assert_allclose(losses_of(tmp_path / "two"), losses_of(tmp_path / "one"), rtol=2e-4)
    ours, theirs = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("two", "one"))
    assert ours.keys() == theirs.keys()
    torch.testing.assert_close(ours["classifier.weight"], theirs["classifier.weight"], rtol=1e-2, atol=1e-3)
    cards = [read_card(tmp_path / name / "checkpoint.safetensors") for name in ("two", "one")]
    assert cards[0].provenance["val_top1"] == pytest.approx(cards[1].provenance["val_top1"], abs=0.01)


@pytest.mark.slow
def test_after_a_process_dies_all_go_on_from_the_last_state(script: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    launcher = torchrun(2, script, folder, 16, 0, restarts=1)
    try:
        killed = False
        assert launcher.stdout is not None
        while launcher.poll() is None and not killed:
            if (folder / "state.pt").is_file():
                children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
                os.kill(int(children[-1]), signal.SIGKILL)
                killed = True
            select.select([], [], [], 0.02)
        said, _ = launcher.communicate(timeout=300)
    finally:
        launcher.kill()
    assert killed
    assert launcher.returncode == 0, said[-3000:]
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]
    assert not (folder / "state.pt").exists()
    assert not folder.with_name("run.1").exists()  # it went on; it did not begin anew


# One optimizer step after the other on the same pictures, in as many parts as asked; counts what gloo adds up.
ACCUMULATE = """
import os
import json, sys
from pathlib import Path
import numpy as np
import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from train.input.loader import Batch
from train.learn.job import Job
from train.learn.run import enter_stage, start_run
from train.learn.step import train_step
from train.options import TrainOptions
from train.processes.distributed import find_world, joined, share_of
from train.progressive.overrides import choose_recipe
from train.settings import Settings
from zoo.data.pictures import Pictures
from zoo.model.variants import find_variant

torch.set_num_threads(1)
folder, parts, compiled = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "compiled"
if compiled:
    compile = torch.compile
    torch.compile = lambda module, **options: compile(module, backend="aot_eager", **options)
world, cpu, tiny = find_world(), torch.device("cpu"), find_variant("tiny")
plain = ("dropout", "stochastic_depth_prob", "mixup_alpha", "randaugment_magnitude", "momentum", "weight_decay")
overrides = [f"stages.all.{name}=0" for name in plain[:4]] + [f"{name}=0" for name in plain[4:]]
overrides += ["optimizer=sgd", "clip_grad_norm=none", "label_smoothing=0", "short_run_init=false"]
options = TrainOptions(model="tiny", recipe="folder", epochs=4, image_size=16, batch_size=8, learning_rate=0.5,
                       overrides=(f"stages.all.accumulate={parts}", *overrides))
recipe = choose_recipe(options, tiny)
stage = recipe.stages[-1]
nothing = Pictures("none", ("a", "b", "c"), (), np.empty(0, np.int64))
settings = Settings(device=cpu, precision="fp32", seed=0, workers=0, compile=compiled, world=world)
job = Job(variant=tiny, recipe=recipe, data="none", train_set=nothing, val_set=nothing,
          preprocessing=tiny.preprocessing, settings=settings)

def count(state, bucket):
    state.append(bucket.index())
    return allreduce_hook(None, bucket)

with joined(world, cpu):
    run = start_run(job)
    enter_stage(run, stage, settings)
    for module in run.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    reduced, counts, losses = [], [], []
    if not world.is_alone:
        run.eager.register_comm_hook(reduced, count)
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        pictures = torch.randint(0, 256, (16, 16, 16, 3), generator=generator, dtype=torch.uint8)
        own = share_of(range(16), world)
        cut = torch.tensor(own).chunk(parts)
        batches = [Batch(pictures[rows], rows % 3, (), torch.arange(len(rows))) for rows in cut]
        reduced.clear()
        loss_sum, _, seen = train_step(run, job, stage, batches, np.random.default_rng(0), num_parts=parts)
        counts.append(len(reduced))
        losses.append(loss_sum.item() / seen)
    if world.is_first:
        folder.mkdir()
        torch.save(run.model.state_dict(), folder / "weights.pt")
        (folder / "counts.json").write_text(json.dumps(counts))
os._exit(0)  # a hook in Python keeps threads of PyTorch, at whose end some processes of this script abort
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["eager", "compiled"])
def test_accumulated_gradients_are_exchanged_once_a_step(how: str, tmp_path: Path) -> None:
    """As often as those of a batch in one part, however many parts there are; and the weights are the same."""
    script = tmp_path / "accumulate.py"
    script.write_text(ACCUMULATE)
    for processes, parts in ((2, 1), (2, 4), (1, 1)):
        said, _ = (started := torchrun(processes, script, tmp_path / f"{processes}-{parts}", parts, how)).communicate()
        assert started.returncode == 0, said[-3000:]
    counts = {name: json.loads((tmp_path / name / "counts.json").read_text()) for name in ("2-1", "2-4")}
    assert counts["2-4"] == counts["2-1"]
    assert all(counts["2-1"])
    whole, parts, alone = (
        torch.load(tmp_path / name / "weights.pt", weights_only=True) for name in ("2-1", "2-4", "1-1")
    )
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-4, atol=1e-6, msg=name)
        torch.testing.assert_close(alone[name], tensor, rtol=1e-4, atol=1e-6, msg=name)
