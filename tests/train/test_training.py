"""Whole runs of the tiny network: what they write, what they survive, and how they go on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from train.input.loader import Augmented
from train.input.order import epoch_batches
from train.learn.job import find_start, make_job
from train.learn.run import Epoch, Run
from train.learn.validation import Validation, validate_together
from train.options import TrainOptions
from train.processes.distributed import ALONE
from train.progressive.overrides import choose_recipe
from train.progressive.recipe import Recipe, TrainingStage
from train.progressive.schedule import steps_per_epoch
from train.session import train_model
from train.watch.record import RunRecord
from zoo.data.open import open_splits
from zoo.errors import DataError, MissingCapabilityError, ZooError
from zoo.model.variants import find_variant
from zoo.weights.checkpoint import load_checkpoint, read_card, save_checkpoint

TINY = find_variant("tiny")
SVG = "{http://www.w3.org/2000/svg}"


def small_recipe(data: str, **changes: int | float) -> Recipe:
    sizes = {"epochs": 4, "image_size": 24, "batch_size": 8}
    return choose_recipe(TrainOptions(model="tiny", data=data, **sizes | changes), TINY)


@pytest.fixture(scope="module")
def folder_run(small: Callable, picture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folder-run") / "tiny"
    train_model(small(picture_folder, folder))
    return folder


def test_a_run_leaves_checkpoint_metrics_and_plots(tiny_run: Path) -> None:
    assert {p.name for p in tiny_run.iterdir()} == {
        "checkpoint.safetensors",
        "metrics.jsonl",
        "report.html",
        "curves.svg",
        "confusion.svg",
        "predictions.csv",
        "classes.csv",
    }
    lines = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert [line["stage"] for line in lines] == [1, 2, 3, 4]
    assert lines[0]["image_size"] < lines[-1]["image_size"]
    curves, confusion = (ElementTree.parse(tiny_run / name).getroot() for name in ("curves.svg", "confusion.svg"))
    assert len(curves.findall(f".//{SVG}polyline")) >= 7  # two charts of two curves, and three settings at least
    counts = [int(text.text or "") for text in confusion.findall(f".//{SVG}g/{SVG}text")]
    assert sum(counts) == 360  # every validation picture is in a cell


def test_tiny_learns_the_digits(tiny_run: Path) -> None:
    last = json.loads((tiny_run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["val_top1"] > 0.5  # chance is 0.1


def test_the_checkpoint_says_all_that_is_needed(tiny_run: Path) -> None:
    model, card = load_checkpoint(tiny_run / "checkpoint.safetensors")
    assert card.variant == TINY
    assert card.classes == tuple("0123456789")
    assert card.preprocessing.image_size == card.recipe["test_size"] == 36
    assert card.provenance["data"] == "digits"
    assert card.provenance["environment"]["packages"]["torch"] == metadata.version("torch")
    assert model.num_classes == 10


def test_the_checkpoint_has_the_validated_accuracy(tiny_run: Path) -> None:
    """The number in the header is reproduced from the file alone, by another path than the loop's."""
    from zoo.data.pictures import load_prepared
    from zoo.model.build import FromPictures

    model, card = load_checkpoint(tiny_run / "checkpoint.safetensors")
    val = open_splits("digits")[1]
    prepared, _, _ = load_prepared(val, card.preprocessing)
    with torch.inference_mode():
        answers = FromPictures(model, card.preprocessing)(torch.from_numpy(prepared)).argmax(1).numpy()
    assert (answers == val.labels).mean() == pytest.approx(card.provenance["val_top1"], abs=1e-9)


def test_a_folder_of_pictures_trains_and_flips(folder_run: Path) -> None:
    card = read_card(folder_run / "checkpoint.safetensors")
    assert card.classes == ("blue", "green", "red")
    assert card.recipe["name"] == "folder"


def test_the_same_seed_gives_the_same_weights(
    small: Callable, picture_folder: Path, folder_run: Path, tmp_path: Path
) -> None:
    train_model(small(picture_folder, tmp_path / "b", workers=2))
    first, second = (load_file(f / "checkpoint.safetensors") for f in (folder_run, tmp_path / "b"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_resumed_run_is_bit_identical(
    small: Callable, picture_folder: Path, folder_run: Path, tmp_path: Path, killed_after: Callable
) -> None:
    folder = tmp_path / "cut"
    with killed_after(3):
        train_model(small(picture_folder, folder, save_every_s=0))
    assert (folder / "state.pt").is_file()
    train_model(small(picture_folder, folder, resume=True))
    whole, resumed = (load_file(f / "checkpoint.safetensors") for f in (folder_run, folder))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 4
    assert not (folder / "state.pt").exists()


def test_epochs_that_are_parts_of_passes_resume_bit_identical(
    small: Callable, picture_folder: Path, tmp_path: Path, killed_after: Callable
) -> None:
    parts = {"overrides": ("epoch_pictures=20",)}
    train_model(small(picture_folder, tmp_path / "whole", **parts))
    with killed_after(3):
        train_model(small(picture_folder, tmp_path / "cut", save_every_s=0, **parts))
    train_model(small(picture_folder, tmp_path / "cut", resume=True, **parts))
    whole, resumed = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_compiled_run_resumes_bit_identical(
    small: Callable, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: Callable
) -> None:
    """Captured and differentiated as for any backend, run by PyTorch's kernels: generating code takes a minute."""
    monkeypatch.setattr("torch.compile", partial(torch.compile, backend="aot_eager"))
    recipe = small_recipe(str(picture_folder))
    recipe = replace(recipe, stages=(replace(recipe.stages[0], epochs=2),))  # each stage is a compilation

    def train(folder: Path, **options: Any) -> None:
        unsized = {"epochs": None, "image_size": None, "batch_size": None}
        train_model(small(picture_folder, folder, **unsized, compile=True, **options), recipe=recipe)

    train(tmp_path / "whole")
    with killed_after(1):
        train(tmp_path / "cut", save_every_s=0)
    train(tmp_path / "cut", resume=True)
    whole, resumed = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_resume_refuses_another_recipe_and_a_damaged_state(
    small: Callable, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    monkeypatch.setattr("train.watch.record.RunRecord.finish", lambda *_: None)  # stop short of the end
    train_model(small(picture_folder, folder, save_every_s=0))
    with pytest.raises(ZooError, match=r"other .*stages\.1\.epochs \(1, here 2\).*--extend goes on"):
        train_model(small(picture_folder, folder, epochs=8, resume=True))
    other = ("stages.all.cutmix_alpha=0.3",)
    with pytest.raises(ZooError, match=r"other .*stages\.1\.cutmix_alpha \(0\.0, here 0\.3\)") as refused:
        train_model(small(picture_folder, folder, epochs=8, overrides=other, resume=True, extend=True))
    assert "--extend" not in refused.value.hint
    state = folder / "state.pt"
    state.write_bytes(state.read_bytes()[:2000])
    with pytest.raises(ZooError, match="damaged"):
        train_model(small(picture_folder, folder, resume=True))


def test_a_run_is_extended_by_a_longer_schedule(
    small: Callable, picture_folder: Path, tmp_path: Path, killed_after: Callable
) -> None:
    """In the batches it has begun with, which follow from its length: without --batch-size they would be others."""
    options = small(picture_folder, tmp_path / "run", epochs=4000, batch_size=None, save_every_s=0)

    def batches(asked: TrainOptions) -> list[int]:
        return [stage.batch_size for stage in make_job(asked, ALONE, None, None, None, None).recipe.stages]

    with killed_after(2):
        train_model(options)
    longer = replace(options, epochs=5, resume=True)
    assert batches(longer) != batches(options)
    with pytest.raises(ZooError, match="--extend goes on") as refused:
        train_model(longer)
    assert "batch_size" not in refused.value.problem
    outcome = train_model(replace(longer, extend=True))
    assert [line.epoch for line in outcome.history] == list(range(1, 6))
    assert [stage["batch_size"] for stage in read_card(outcome.checkpoint).recipe["stages"]] == batches(options)


def test_a_folder_belongs_to_one_run_at_a_time(small: Callable, picture_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "run"
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom train.lock import locked\n"
        f"with locked(Path({str(folder)!r})):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert other.stdout and other.stdout.readline() == "held\n"
    try:
        with pytest.raises(ZooError, match=rf"Another run is writing to .*run: process {other.pid} on "):
            train_model(small(picture_folder, folder))
    finally:
        other.kill()
        other.communicate()
    # Killed, it could not tidy up: the lock is free all the same.
    assert train_model(small(picture_folder, folder)).checkpoint.is_file()
    assert [path.name for path in folder.parent.iterdir()] == ["run"]


def test_a_process_trains_one_network_at_a_time(small: Callable, picture_folder: Path, tmp_path: Path) -> None:
    """Two threads would draw from one generator, and neither run could be repeated."""
    refused: list[ZooError] = []

    def train_another(run: Run, epoch: Epoch) -> None:
        try:
            train_model(small(picture_folder, tmp_path / "other"))
        except ZooError as error:
            refused.append(error)

    class Beside(RunRecord):
        def on_epoch(self, run: Run, epoch: Epoch) -> None:
            super().on_epoch(run, epoch)
            if epoch.epoch == 1:
                thread = threading.Thread(target=train_another, args=(run, epoch))
                thread.start()
                thread.join()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("train.session.RunRecord", Beside)
        train_model(small(picture_folder, tmp_path / "run"))
    assert [error.problem for error in refused] and "Another thread of this process is training" in refused[0].problem
    assert not (tmp_path / "other").exists()
    assert train_model(small(picture_folder, tmp_path / "other")).checkpoint.is_file()


def test_a_test_split_is_looked_at_once_and_comes_first(zoo: Callable, picture_folder: Path, in_folder: Path) -> None:
    shutil.copytree(picture_folder, "pictures")
    shutil.copytree("pictures/val", "pictures/test")
    shutil.rmtree("pictures/test/green")
    answer = zoo(
        *("train", "tiny", "--data", "pictures", "--epochs", 4, "--image-size", 16, "--batch-size", 12),
        *("--device", "cpu", "-o", "run"),
    )
    assert answer.code == 0, answer.err
    assert "% top-1 at 16 px on 12 test pictures (" in answer.out
    provenance = read_card(Path("run/checkpoint.safetensors")).provenance
    assert provenance["test_pictures"] == 12 and 0 <= provenance["test_top1"] <= 1
    assert "12 test pictures" in Path("run/report.html").read_text()
    (in_folder / "pictures" / "test" / "violet").mkdir()
    shutil.copy("pictures/val/red/000.jpg", "pictures/test/violet/0.jpg")
    refused = zoo("train", "tiny", "--data", "pictures", "--device", "cpu", "-o", "other")
    assert refused.code == 1 and "has classes that pictures/train has not: violet" in refused.err


def test_the_best_epoch_is_kept_and_patience_ends_a_run(
    small: Callable, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third of five epochs is made the best, by what a validation says of it."""
    import train.learn.loop as loop

    said = iter((0.3, 0.4, 0.9, 0.5, 0.6))
    kept: list[dict[str, torch.Tensor]] = []

    def judge(model: Any, *rest: Any) -> Validation:
        kept.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return replace(validate_together(model, *rest), top1=next(said, 0.9))

    monkeypatch.setattr(loop, "validate_together", judge)
    recipe = small_recipe(str(picture_folder), epochs=5, image_size=16, batch_size=12)
    recipe = replace(recipe, stages=(replace(recipe.stages[-1], epochs=9),), warmup_epochs=0, patience=2)
    unsized = {"epochs": None, "image_size": None, "batch_size": None}
    outcome = train_model(small(picture_folder, tmp_path / "run", **unsized), recipe=recipe)
    assert (len(outcome.history), outcome.best_epoch, outcome.result.top1) == (5, 3, 0.9)
    weights = load_file(outcome.checkpoint)
    assert all(torch.equal(weights[name], kept[2][name]) for name in weights)
    assert read_card(outcome.checkpoint).provenance["best_epoch"] == 3


def test_resume_refuses_another_precision_and_seed_and_names_both(
    small: Callable, zoo: Callable, in_folder: Path, picture_folder: Path, killed_after: Callable
) -> None:
    with killed_after(1):
        train_model(small(picture_folder, in_folder / "run", precision="bf16", save_every_s=0))
    command = (
        "train",
        "tiny",
        "--data",
        picture_folder,
        "--epochs",
        4,
        "--image-size",
        24,
        "--batch-size",
        8,
        "-o",
        "run",
    )
    for flags in (("--resume",), ("--auto-resume", "--precision", "fp32")):
        answer = zoo(*command, "--device", "cpu", *flags)
        assert answer.code == 1
        assert "with other precision (bf16, here fp32)." in " ".join(answer.err.split())
    again = zoo(*command, "--device", "cpu", "--resume", "--precision", "bf16", "--seed", 1)
    assert "with other seed (0, here 1)." in " ".join(again.err.split())
    assert zoo(*command, "--device", "cpu", "--resume", "--precision", "bf16").code == 0


def test_nothing_to_resume_says_so(small: Callable, folder_run: Path, picture_folder: Path) -> None:
    with pytest.raises(ZooError, match="that run is finished"):
        train_model(small(picture_folder, folder_run, resume=True))


def test_an_earlier_run_is_kept(zoo: Callable, in_folder: Path, picture_folder: Path) -> None:
    old = in_folder / "runs" / "tiny"
    old.mkdir(parents=True)
    (old / "checkpoint.safetensors").write_text("precious")
    command = ("train", "tiny", "--data", picture_folder, "--epochs", 4, "--image-size", 16, "--batch-size", 8)
    answer = zoo(*command, "--json")
    assert answer.code == 0, answer.err
    assert (in_folder / "runs" / "tiny.1" / "checkpoint.safetensors").read_text() == "precious"
    assert json.loads(answer.out)["checkpoint"] == "runs/tiny/checkpoint.safetensors"
    assert "kept as runs/tiny.1" in answer.err


def test_what_is_no_run_is_not_moved(zoo: Callable, in_folder: Path) -> None:
    Path("data").mkdir()
    Path("data/thesis.txt").write_text("precious")
    answer = zoo("train", "tiny", "--epochs", "4", "-o", "data")
    assert (answer.code, Path("data/thesis.txt").read_text()) == (1, "precious")
    assert "something else than a run" in answer.err


@pytest.mark.parametrize("content", [b"hello", b""])
def test_a_state_that_is_none_is_an_error(content: bytes, zoo: Callable, in_folder: Path) -> None:
    Path("run").mkdir()
    Path("run/state.pt").write_bytes(content)
    answer = zoo("train", "tiny", "--epochs", "4", "-o", "run", "--resume")
    assert answer.code == 1
    assert "damaged" in answer.err
    torch.save({"a": 1}, "run/state.pt")
    assert "not the state of a run" in zoo("train", "tiny", "--epochs", "4", "-o", "run", "--resume").err


def test_a_broken_picture_is_named_counted_and_left_out(zoo: Callable, in_folder: Path, picture_folder: Path) -> None:
    root = in_folder / "damaged"
    shutil.copytree(picture_folder, root)
    (root / "train" / "red" / "003.jpg").write_bytes(b"\xff\xd8\xff\xe0 damaged")
    (root / "val" / "red" / "001.jpg").write_bytes(b"")
    answer = zoo("train", "tiny", "--data", root, "--epochs", 4, "--image-size", 16, "--batch-size", 37, "--workers", 0)
    assert answer.code == 0, answer.err
    assert answer.err.count("003.jpg") == 1
    assert answer.err.count("001.jpg") == 1
    card = read_card(in_folder / "runs" / "tiny" / "checkpoint.safetensors")
    assert card.provenance["broken_pictures"] == 2
    assert card.provenance["val_pictures"] == 17


def test_a_folder_of_broken_pictures_is_an_error(small: Callable, tmp_path: Path) -> None:
    for name in ("a", "b"):
        for split in ("train", "val"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "x.jpg").write_bytes(b"no")
    with pytest.raises(DataError, match="Not one training picture"):
        train_model(small(tmp_path, tmp_path / "run"))
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_a_diverging_run_stops_and_says_where(small: Callable, picture_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"loss became (nan|inf).* in epoch"):
        train_model(small(picture_folder, tmp_path / "run", learning_rate=1e30))


def test_plan_prints_and_trains_nothing(zoo: Callable, in_folder: Path) -> None:
    plan = json.loads(zoo("train", "s", "--plan", "--json").out)
    assert (plan["model"], plan["recipe"], len(plan["stages"])) == ("s", "digits", 4)
    keys = {field.name for field in fields(TrainingStage)}
    assert all(set(stage) == keys for stage in plan["stages"])
    assert keys.isdisjoint(plan["settings"])
    assert plan["settings"]["optimizer"] == "adamw"
    table = zoo("train", "s", "--plan").out
    assert "PMACs" in table
    assert "RandAugment" in table
    assert list(in_folder.iterdir()) == []


def test_cuda_is_never_silently_the_cpu(
    small: Callable, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(MissingCapabilityError, match="no usable NVIDIA GPU"):
        train_model(small(picture_folder, tmp_path, device="cuda"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "sss"], "Unknown model 'sss'"),
        (["train", ""], "The model's name is empty."),
        (["train", "https://example.com/s"], "The model's name is an address"),
        (["train", "tiny", "--data", "nowhere"], "no folder nowhere"),
        (["train", "tiny", "--recipe", "digit"], "Did you mean digits"),
        (["train", "tiny", "--epochs", "2"], "one epoch for each of the 4 stages"),
        (["train", "tiny", "--resume"], "Nothing to resume"),
        (["train", "gone.safetensors"], "no checkpoint gone.safetensors"),
        (["train", "tiny", "--precision", "fp16", "--device", "cpu"], "fp16 needs a GPU"),
    ],
)
def test_wrong_commands_are_one_line_and_leave_nothing(
    arguments: list[str], message: str, zoo: Callable, in_folder: Path
) -> None:
    answer = zoo(*arguments)
    assert answer.code == 1
    assert message in answer.err
    assert "Hint:" in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""
    assert list(in_folder.iterdir()) == []


def test_every_epoch_sees_every_picture_in_another_order() -> None:
    train = open_splits("digits")[0]
    recipe = small_recipe("digits", batch_size=32)
    first, second = (epoch_batches(len(train), recipe.stages[0], seed=0, epoch=e) for e in (0, 1))
    assert {len(indices) for indices in first} == {31, 32}
    assert len(first) == steps_per_epoch(1437, 32) == 45
    assert sorted(index for indices in first for index in indices) == list(range(1437))
    assert first != second
    together = epoch_batches(len(train), recipe.stages[0], seed=0, epoch=0, processes=2)
    assert {len(indices) for indices in together} == {64}
    assert len(together) == steps_per_epoch(1437, 32, processes=2) == 22


def test_parts_in_a_row_are_passes_in_a_row() -> None:
    stage = replace(small_recipe("digits").stages[0], batch_size=4)
    portions = [(0, 7), (7, 14), (14, 30)]
    parts = [epoch_batches(10, stage, seed=3, epoch=e, portion=portion) for e, portion in enumerate(portions)]
    assert [sum(map(len, batches)) for batches in parts] == [7, 7, 16]
    order = [index for batches in parts for batch in batches for index in batch]
    assert [sorted(order[start:][:10]) for start in (0, 10, 20)] == [list(range(10))] * 3
    # A whole pass is what an epoch is without portions.
    assert epoch_batches(10, stage, seed=3, epoch=0, portion=(10, 20)) == epoch_batches(10, stage, seed=3, epoch=1)


@pytest.mark.parametrize(("pictures", "batch"), [(2, 2), (3, 2), (5, 2), (7, 8), (9, 8), (17, 8), (236, 16)])
def test_no_batch_is_of_one_picture(pictures: int, batch: int) -> None:
    some = open_splits("digits")[0].head(pictures)
    recipe = small_recipe("digits", batch_size=batch)
    batches = epoch_batches(len(some), recipe.stages[0], seed=0, epoch=0)
    assert sorted(index for indices in batches for index in indices) == list(range(pictures))
    assert min(map(len, batches)) >= 2 and max(map(len, batches)) <= batch + 1


def test_augmentation_depends_on_seed_epoch_and_index_alone() -> None:
    train = open_splits("digits")[0]
    recipe = small_recipe("digits")

    def draw(seed: int, epoch: int) -> np.ndarray:
        item = Augmented(train, recipe, recipe.stages[-1], seed, epoch)[5]
        assert not isinstance(item, str)
        return item[0]

    assert np.array_equal(draw(0, 1), draw(0, 1))
    assert not np.array_equal(draw(0, 1), draw(0, 2))
    assert not np.array_equal(draw(0, 1), draw(1, 1))


def test_training_starts_from_a_checkpoint(
    zoo: Callable, in_folder: Path, tiny_run: Path, picture_folder: Path
) -> None:
    """A step of nearly no learning rate keeps the weights: the classifier too, where the classes are the same."""
    before = load_file(tiny_run / "checkpoint.safetensors")
    flags = ("--epochs", "4", "--lr", "1e-12", "--image-size", "24", "-o", "again", "--device", "cpu")
    same = zoo("train", tiny_run, "--data", "digits", *flags)
    assert same.code == 0, same.err
    assert "same classes" in same.err
    after = load_file("again/checkpoint.safetensors")
    for key in ("classifier.weight", "stages.1.block.0.fused.conv.weight"):
        torch.testing.assert_close(after[key], before[key], rtol=1e-3, atol=1e-5)
    assert read_card(Path("again/checkpoint.safetensors")).provenance["started_from"] == str(
        tiny_run / "checkpoint.safetensors"
    )

    other = zoo("train", tiny_run / "checkpoint.safetensors", "--data", picture_folder, *flags)
    assert other.code == 0, other.err
    assert "the classifier is new" in other.err
    after = load_file("again/checkpoint.safetensors")
    assert after["classifier.weight"].shape[0] == 3
    torch.testing.assert_close(
        after["stages.1.block.0.fused.conv.weight"], before["stages.1.block.0.fused.conv.weight"], rtol=1e-3, atol=1e-5
    )


def test_weights_keep_what_they_expect(monkeypatch: pytest.MonkeyPatch, tiny_run: Path, tmp_path: Path) -> None:
    """Weights from elsewhere bring their normalisation and padding along into the new run."""
    model, card = load_checkpoint(tiny_run / "checkpoint.safetensors")
    card = replace(card, padding="same", preprocessing=replace(card.preprocessing, mean=(1.0, 2.0, 3.0)))
    foreign = tmp_path / "foreign.safetensors"
    save_checkpoint(foreign, model.state_dict(), card)
    start = find_start(str(foreign))
    assert start is not None
    options = TrainOptions(model="tiny", epochs=4, image_size=16, out=tmp_path / "run", device="cpu")
    train_model(options, start=start)
    made = read_card(tmp_path / "run" / "checkpoint.safetensors")
    assert made.padding == "same"
    assert made.preprocessing.mean == (1.0, 2.0, 3.0)
    assert made.preprocessing.image_size == choose_recipe(options, TINY).test_size


def test_a_folder_is_trained_and_evaluated_with_its_groups_and_odd_files(zoo: Callable, in_folder: Path) -> None:
    """Groups stay on one side, here and in the evaluation; what is no picture, and what is too few, is said."""
    for name, count in (("car", 12), ("cat", 12), ("owl", 1)):
        for number in range(count):
            path = Path("pictures", name, f"object{number // 3}", f"{number}.jfif")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (24, 24), (20 * number, 80, 160)).save(path, "JPEG")
    Path("pictures/cat/notes.txt").touch()
    Path("pictures/eel").mkdir()
    flags = ("--group-by", "parent", "--epochs", 4, "--image-size", 16, "--batch-size", 4, "--device", "cpu")
    trained = zoo("train", "tiny", "--data", "pictures", *flags)
    assert trained.code == 0, trained.err
    assert "19 training and 6 validation pictures" in trained.err
    assert "Left out: 1 .txt files, which are no pictures; eel/, which has no pictures: it is no class." in trained.err
    assert "Class owl has no picture to validate on" in trained.err
    card = read_card(Path("runs/tiny/checkpoint.safetensors"))
    assert (card.provenance["group_by"], card.provenance["hold_out"]) == ("parent", "stratified")
    evaluated = zoo("evaluate", "tiny", "--json")
    assert evaluated.code == 0, evaluated.err
    assert json.loads(evaluated.out)["n"] == 6
    checked = zoo("data", "check", "pictures", "--group-by", "parent", "--json")
    said = "Class owl has no picture to validate on: how well it is told from others is not known."
    assert json.loads(checked.out)["remarks"][1] == said
