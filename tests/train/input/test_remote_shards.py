"""Shards read over HTTP, from a real server in this process, are the shards of the folder it serves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from urllib3 import Timeout

from train import settings
from train.input import kept
from train.input.decoders import load, load_validation
from train.input.loader import Augmented
from train.input.order import epoch_batches
from train.options import TrainOptions
from train.processes.distributed import World, share_of
from train.processes.stopping import RunStopped
from train.progressive.overrides import choose_recipe
from train.progressive.recipe import Recipe
from train.session import Outcome, train_model
from train.watch.mistakes import mistakes_sections
from train.watch.thumbnails import Drawn
from zoo import http
from zoo.data import http as remote
from zoo.data.http import RemoteFile, parse_address
from zoo.data.open import open_splits, open_val, was_recorded
from zoo.data.pack import pack
from zoo.data.pictures import Pictures, load_prepared
from zoo.data.shards import Packed
from zoo.errors import DataError
from zoo.model.variants import find_variant
from zoo.weights.checkpoint import read_card

Serve = Callable[..., Any]
TINY = find_variant("tiny")


@pytest.fixture(scope="module")
def shards(picture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 and 18 pictures of three classes in several shards each."""
    out = tmp_path_factory.mktemp("packed") / "my shards"
    train, val = open_splits(str(picture_folder))
    pack({"train": train, "val": val}, out, size=32, shard_bytes=15_000)
    assert len(list(out.glob("train-*.tar"))) > 2
    return out


@pytest.fixture
def copied(shards: Path, tmp_path: Path) -> Path:
    """Shards to be damaged."""
    return Path(shutil.copytree(shards, tmp_path / "copied"))


def recipe_of(epochs: int = 2) -> Recipe:
    """One stage, so that an epoch is enough."""
    recipe = choose_recipe(TrainOptions(model="tiny", recipe="folder", image_size=16, batch_size=6), TINY)
    return replace(recipe, stages=(replace(recipe.stages[-1], epochs=epochs),), warmup_epochs=0.5)


def train_tiny(
    data: str,
    out: Path,
    recipe: Recipe | None = None,
    pictures: tuple[Pictures, Pictures] | None = None,
    **changes: Any,
) -> Outcome:
    options = TrainOptions(model="tiny", data=data, out=out, device="cpu", **changes)
    return train_model(options, recipe=recipe or recipe_of(), pictures=pictures)


def same_weights(one: Path, other: Path) -> bool:
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(first[key].equal(second[key]) for key in first)


def test_batches_are_those_of_the_folder(shards: Path, serve_folder: Serve) -> None:
    recipe = recipe_of()
    with serve_folder(shards) as server:
        there, here = open_splits(server.url), open_splits(str(shards))
        for far, near in zip(there, here, strict=True):
            assert far.classes == near.classes
            assert np.array_equal(far.labels, near.labels)
        batches = epoch_batches(len(here[0]), recipe.stages[0], seed=0, epoch=1)
        loaded = [
            [
                *load(Augmented(train, recipe, recipe.stages[0], 0, 1), batches, workers=workers, pin=False),
                *load_validation(val, TINY.preprocessing, batch_size=7, workers=workers, pin=False),
            ]
            for (train, val), workers in ((there, 2), (there, 0), (here, 0))
        ]
    for far, also, near in zip(*loaded, strict=True):
        assert np.array_equal(far.pictures.numpy(), near.pictures.numpy())
        assert np.array_equal(also.pictures.numpy(), near.pictures.numpy())
        assert np.array_equal(far.labels.numpy(), near.labels.numpy())
        assert not far.broken


def test_two_ranks_with_two_workers_read_every_picture_once(shards: Path, serve_folder: Serve) -> None:
    recipe = recipe_of()
    with serve_folder(shards) as server:
        train, _ = open_splits(server.url)
        batches = epoch_batches(len(train), recipe.stages[0], seed=0, epoch=0, processes=2)
        assert sum(map(len, batches)) == len(train) == 36
        for rank in range(2):
            own = [share_of(batch, World(rank=rank, size=2)) for batch in batches]
            list(load(Augmented(train, recipe, recipe.stages[0], 0, 0), own, workers=2, pin=False))
        rows = np.load(shards / "train.index.npy")
        files = [
            entry["file"] for entry in json.loads((shards / "shards.json").read_text())["splits"]["train"]["shards"]
        ]
        expected = [
            (f"/shards/{files[row['shard']]}", f"bytes={row['offset']}-{row['offset'] + row['size'] - 1}")
            for row in rows
        ]
        assert server.ranges() == sorted(expected)


def test_training_gives_the_same_bits_as_from_the_folder(shards: Path, serve_folder: Serve, tmp_path: Path) -> None:
    with serve_folder(shards) as server:
        far = train_tiny(server.url, tmp_path / "far", recipe=recipe_of(1), workers=2)
        near = train_tiny(str(shards), tmp_path / "near", recipe=recipe_of(1), workers=0)
        assert same_weights(far.checkpoint, near.checkpoint)
        assert read_card(far.checkpoint).provenance["data"] == server.url


def test_connections_are_kept(shards: Path, serve_folder: Serve) -> None:
    with serve_folder(shards) as server:
        train, val = open_splits(server.url)
        for pictures in (train, val):
            load_prepared(pictures, TINY.preprocessing)
        assert len(server.asked) > 54
        assert server.connections <= remote.PARALLEL


def test_the_pictures_of_a_batch_are_asked_for_together(shards: Path, serve_folder: Serve) -> None:
    """The server answers nobody before as many have asked as may at once."""
    recipe = recipe_of()
    with serve_folder(shards) as server:
        train, _ = open_splits(server.url)
        together = threading.Barrier(remote.PARALLEL, timeout=30)

        def gather(path: str, number: int) -> None:
            together.wait()

        server.trouble = gather
        dataset = Augmented(train, recipe, recipe.stages[0], 0, 0)
        (batch,) = load(dataset, [list(range(2 * remote.PARALLEL))], workers=0, pin=False)
        assert len(batch.labels) == 2 * remote.PARALLEL
        assert not together.broken


@pytest.mark.parametrize("save_every_s", [0, 1e9])
def test_a_server_that_fails_stops_the_run_which_goes_on_later(
    save_every_s: float, shards: Path, serve_folder: Serve, tmp_path: Path
) -> None:
    """In its second epoch nothing answers: no picture is called broken, and the weights end as undisturbed ones do.

    The step it stops at is kept however seldom states are written.
    """
    through = train_tiny(str(shards), tmp_path / "through", workers=0)
    with serve_folder(shards) as server:
        train, val = open_splits(server.url)
        answered = len(server.asked) + len(train) + len(val) + 20
        server.trouble = lambda path, number: 503 if number > answered else None
        run = {"data": server.url, "out": tmp_path / "run", "pictures": (train, val), "workers": 0}
        run["save_every_s"] = save_every_s
        with pytest.raises(DataError, match="cannot be read, 6 attempts: it answers 503") as failure:
            train_tiny(**run)
        assert "--resume" in failure.value.hint
        assert "report.html" in [path.name for path in (tmp_path / "run").iterdir()]
        server.trouble = lambda path, number: None
        outcome = train_tiny(**run, resume=True)
        assert [line.broken for line in outcome.history] == [0, 0]
        assert same_weights(outcome.checkpoint, through.checkpoint)


def asked_for_training(server: Any) -> int:
    return sum("/train-" in path for path, _ in server.ranges())


def lost_after(server: Any, count: int) -> Callable[[str, int], int | None]:
    """Trouble of a server that answers so many requests for training pictures, and then none at all.

    Where they are the last of an epoch, it is lost at the first picture of the validation that follows.
    """

    def trouble(path: str, number: int) -> int | None:
        asked = asked_for_training(server)
        return 503 if asked > count or (asked == count and "/val-" in path) else None

    return trouble


def stops_when_lost(
    trouble: Callable[[str, int], Any], kind: int | str, stop: Callable[[], None]
) -> Callable[..., Any]:
    """The same trouble, of another kind, with a signal when it begins."""
    first = threading.Lock()  # several requests may meet it at once, and one is the first

    def found(path: str, number: int) -> int | str | None:
        if trouble(path, number) is None:
            return None
        if first.acquire(blocking=False):
            stop()
        return kind

    return found


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a server that is away waits for weeks."""
    monkeypatch.setattr(http, "BACKOFF_S", 1e6)
    monkeypatch.setattr(http, "TIMEOUT", Timeout(1e6))


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every picture is asked for in every epoch, as if no memory were left to keep one decoded."""
    monkeypatch.setattr(kept, "MEMORY_SHARE", 0.0)


# A signal may come between the making of a socket and the `with` that closes it; then its end is what closes it.
@pytest.mark.filterwarnings("ignore:.*unclosed.*socket:ResourceWarning")
@pytest.mark.filterwarnings("ignore:.*<socket.socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", [503, "silent"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("epoch", "steps"), [(1, 0), (2, 3), (2, 6)], ids=["at the beginning", "in training", "in a validation"]
)
def test_sigterm_does_not_wait_for_a_server_that_is_away(
    epoch: int,
    steps: int,
    workers: int,
    kind: int | str,
    shards: Path,
    serve_folder: Serve,
    patient: None,
    tmp_path: Path,
) -> None:
    through = train_tiny(str(shards), tmp_path / "through", workers=0)
    run: dict[str, Any] = {"out": tmp_path / "run", "workers": workers, "save_every_s": 1e9}
    with serve_folder(shards) as server:
        run |= {"data": server.url, "pictures": open_splits(server.url)}
        lost = lost_after(server, 36 * (epoch - 1) + 6 * steps + 2 * (steps < 6))
        server.trouble = stops_when_lost(lost, kind, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(RunStopped) as stopped:
            train_tiny(**run)
        assert stopped.value.exit_code == 0
        state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
        done = state["partial"]["steps"] if state["partial"] else 0
        # Workers ask for pictures of steps that are still to come.
        assert (len(state["history"]), done) == (epoch - 1, steps) or (workers and done <= steps)
        assert str(stopped.value) == f"in epoch {epoch} of 2, after step {done} of 6"
        server.trouble = lambda path, number: None
        outcome = train_tiny(**run, resume=True)
    assert same_weights(outcome.checkpoint, through.checkpoint)


def test_a_command_ends_with_0_though_its_workers_wait_for_a_server(
    shards: Path, serve_folder: Serve, in_folder: Path
) -> None:
    """As a scheduler stops it: the signal goes to the process alone, its workers' requests are never answered."""
    patient = "from zoo import http; http.TIMEOUT = http.Timeout(1e6); from zoo.cli import main; main()"
    flags = ("--epochs", "4", "--image-size", "16", "--batch-size", "6", "--device", "cpu", "--workers", "2")
    with serve_folder(shards) as server:
        command = [sys.executable, "-c", patient, "train", "tiny", "--data", server.url, *flags]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
            server.trouble = stops_when_lost(lost_after(server, 36), "silent", process.terminate)
            _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "Stopped in epoch 1 of 4, after step 6 of 6." in said
    assert Path("runs/tiny/state.pt").is_file()


def recipe_in_parts(accumulate: int) -> Recipe:
    recipe = recipe_of()
    return replace(recipe, stages=(replace(recipe.stages[0], accumulate=accumulate),))


@pytest.mark.parametrize(
    ("epoch", "steps"), [(2, 3), (1, 6), (2, 6)], ids=["in training", "in a validation", "in the last validation"]
)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_server_lost_anywhere_leaves_a_state_of_that_very_step(
    epoch: int, steps: int, accumulate: int, shards: Path, serve_folder: Serve, tmp_path: Path
) -> None:
    """Lost again before the resumed run has made a step, it leaves the same state: nothing is trained on twice."""
    recipe = recipe_in_parts(accumulate)
    through = train_tiny(str(shards), tmp_path / "through", workers=0, recipe=recipe)
    with serve_folder(shards) as server:
        train, val = open_splits(server.url)
        into_step = 2 if accumulate == 1 and steps < 6 else 0
        server.trouble = lost_after(server, 36 * (epoch - 1) + 6 * steps + into_step)
        run = {"data": server.url, "out": tmp_path / "run", "pictures": (train, val), "workers": 0, "save_every_s": 1e9}
        for resume in (False, True):
            with pytest.raises(DataError, match="cannot be read, 6 attempts: it answers 503"):
                train_tiny(**run, recipe=recipe, resume=resume)
            state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
            assert (len(state["history"]), state["partial"]["steps"]) == (epoch - 1, steps)
        server.trouble = lambda path, number: None
        server.asked.clear()
        outcome = train_tiny(**run, recipe=recipe, resume=True)
        # Each once, but for what the lost run had still asked for when it ended.
        asked = {request for request in server.ranges() if "/train-" in request[0]}
        assert len(asked) == (2 - epoch) * 36 + (6 - steps) * 6
    assert same_weights(outcome.checkpoint, through.checkpoint)
    told = [[(line.train_loss, line.val_loss, line.val_top1) for line in run.history] for run in (outcome, through)]
    assert told[0] == told[1]


def test_a_server_lost_in_the_middle_of_an_accumulated_batch_leaves_no_half_of_a_step(
    shards: Path, serve_folder: Serve, tmp_path: Path
) -> None:
    with serve_folder(shards) as server:
        train, val = open_splits(server.url)
        server.trouble = lost_after(server, 6 * 3 + 2)  # the first of three parts came
        with pytest.raises(DataError, match="answers 503"):
            train_tiny(server.url, tmp_path / "run", recipe_in_parts(3), (train, val), workers=0, save_every_s=1e9)
    assert not (tmp_path / "run" / "state.pt").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_that_vanishes_is_an_error_and_no_broken_picture(
    workers: int, shards: Path, serve_folder: Serve
) -> None:
    recipe = recipe_of()
    with serve_folder(shards) as server:
        train, _ = open_splits(server.url)
        server.trouble = lambda path, number: 404 if "train-000001" in path else None
        dataset = Augmented(train, recipe, recipe.stages[0], 0, 0)
        with pytest.raises(DataError) as failure:
            list(load(dataset, [list(range(36))], workers=workers, pin=False))
        # Its parts are told apart, as the command line prints them.
        assert failure.value.problem == f"{server.url}train-000001.tar is not there: the server answers 404."
        assert failure.value.hint == remote.EXPECTED


def test_a_damaged_picture_is_broken_as_in_a_folder(copied: Path, serve_folder: Serve) -> None:
    place = open_splits(str(copied))[1].sources[4]
    assert isinstance(place, Packed)
    assert isinstance(place.shard, Path)
    content = bytearray(place.shard.read_bytes())
    content[place.offset : place.offset + place.size] = bytes(place.size)
    place.shard.write_bytes(content)
    with serve_folder(copied) as server:
        val = open_val(server.url)
        batch = next(load_validation(val, TINY.preprocessing, batch_size=18, workers=0, pin=False))
    assert batch.broken == (f"{val.describe(4)} is not a picture this project reads.",)
    assert len(batch.labels) == 17


@pytest.mark.parametrize("trouble", ["drop", "silent", 503, 429])
def test_what_passes_is_tried_again(
    trouble: int | str, shards: Path, serve_folder: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    if trouble == "silent":
        monkeypatch.setattr(http, "TIMEOUT", Timeout(0.4))  # an answer may take long on a busy machine
    with serve_folder(shards) as server:
        far, near = open_val(server.url), open_val(str(shards))
        since = len(server.asked)
        server.trouble = lambda path, number: trouble if number - since <= http.ATTEMPTS - 1 else None
        assert far.read(3) == near.read(3)
        assert len(server.asked) - since == http.ATTEMPTS


@pytest.mark.parametrize(
    ("trouble", "attempts", "message"),
    [
        ("drop", http.ATTEMPTS, "6 attempts: .*IncompleteRead"),
        ("whole", 1, "with the whole file: it ignores Range"),
        ("grown", 1, r"has \d+ bytes, \d+ are expected: it is another file"),
        ("elsewhere", 1, r"with 206 and bytes \d+-"),
        (403, 1, "answers 403: it is private"),
        (416, 1, "has too few bytes"),
        (418, 1, "with 418 and no Content-Range"),
    ],
)
def test_what_does_not_pass_is_told(
    trouble: int | str, attempts: int, message: str, shards: Path, serve_folder: Serve
) -> None:
    with serve_folder(shards) as server:
        val = open_val(server.url)
        since = len(server.asked)
        server.trouble = lambda path, number: trouble
        with pytest.raises(DataError, match=message) as failure:
            val.read(3)
        assert type(failure.value) is DataError
        assert failure.value.hint
        assert len(server.asked) - since == attempts


@pytest.mark.parametrize(
    ("trouble", "message"),
    [("whole", "ignores Range"), ("grown", "it is another file"), (404, "shards.json is not there"), (401, "private")],
)
def test_opening_finds_what_is_wrong(trouble: int | str, message: str, shards: Path, serve_folder: Serve) -> None:
    with serve_folder(shards) as server:
        server.trouble = lambda path, number: trouble if isinstance(trouble, int) or "000001.tar" in path else None
        with pytest.raises(DataError, match=message) as failure:
            open_splits(server.url)
    if trouble == 404:
        assert "zoo data pack" in failure.value.hint
    if trouble == 401:
        assert remote.AUTHORIZATION_VARIABLE in failure.value.hint


def test_nobody_there_is_an_error(serve_folder: Serve) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(DataError, match=r"cannot be read, 2 attempts: .*refused"):
            open_splits(f"http://127.0.0.1:{taken.getsockname()[1]}/shards/")


@pytest.mark.parametrize(
    "damage",
    [
        lambda manifest: manifest["splits"]["val"].update(pictures=17),
        lambda manifest: manifest["splits"]["val"].update(pictures=10**4),
        lambda manifest: manifest["splits"]["val"].update(pictures="many"),
        lambda manifest: manifest["splits"]["val"].update(index="../train.index.npy"),
        lambda manifest: manifest["splits"]["val"]["shards"][0].update(file="http://example.com/0.tar"),
        lambda manifest: manifest["splits"]["val"].pop("shards"),
        lambda manifest: manifest.update(classes=["blue"]),
        lambda manifest: manifest.update(classes=["blue", "blue", "red"]),
        lambda manifest: manifest.update(classes="rgb"),
        lambda manifest: manifest.pop("classes"),
        lambda manifest: manifest.update(splits=["train", "val"]),
    ],
)
def test_a_manifest_that_does_not_fit_is_an_error(
    damage: Callable[[dict[str, Any]], None], copied: Path, serve_folder: Serve
) -> None:
    manifest = json.loads((copied / "shards.json").read_text())
    damage(manifest)
    (copied / "shards.json").write_text(json.dumps(manifest))
    with serve_folder(copied) as server:
        for data in (server.url, str(copied)):
            with pytest.raises(DataError, match=r"does not belong|not readable|bytes it can need"):
                open_splits(data)


def test_rows_outside_their_shard_are_an_error(copied: Path, serve_folder: Serve) -> None:
    rows = np.load(copied / "val.index.npy")
    rows["size"][7] = 2**64 - 100
    np.save(copied / "val.index.npy", rows)
    with serve_folder(copied) as server:
        for data in (server.url, str(copied)):
            with pytest.raises(DataError, match="does not belong"):
                open_val(data)


def test_an_archive_is_no_index(copied: Path, serve_folder: Serve) -> None:
    with (copied / "val.index.npy").open("wb") as file:
        np.savez(file, rows=np.zeros(18))
    with serve_folder(copied) as server:
        for data in (server.url, str(copied)):
            with pytest.raises(DataError, match="not readable"):
                open_val(data)


@pytest.mark.parametrize("in_manifest", [18, 10**13])
@pytest.mark.parametrize("claimed", [17, 10**13])
def test_an_index_that_claims_other_rows_than_it_has_is_an_error(
    claimed: int, in_manifest: int, copied: Path, serve_folder: Serve
) -> None:
    """10**13 rows are 240 TB: no room is made for them before they are looked for."""
    path = copied / "val.index.npy"
    rows = np.load(path)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, np.lib.format.header_data_from_array_1_0(rows) | {"shape": (claimed,)}
        )
        file.write(rows.tobytes())
    manifest = json.loads((copied / "shards.json").read_text())
    manifest["splits"]["val"]["pictures"] = in_manifest
    (copied / "shards.json").write_text(json.dumps(manifest))
    with serve_folder(copied) as server:
        for data in (server.url, str(copied)):
            with pytest.raises(
                DataError, match=rf"val\.index\.npy is not readable: .*claims {claimed:,} rows"
            ) as failure:
                open_val(data)
            assert failure.value.hint


def test_an_index_is_read_no_further_than_it_can_be_long(copied: Path, serve_folder: Serve) -> None:
    with (copied / "val.index.npy").open("ab") as file:
        file.write(bytes(10_000))
    with serve_folder(copied) as server, pytest.raises(DataError, match="more than the 4,528 bytes it can need"):
        open_val(server.url)


@pytest.mark.parametrize(
    "address",
    [
        "https://me:secret@example.com/shards/",
        "https://secret@example.com/shards/",
        "https://example.com/shards/?signature=secret",
        "https://example.com/shards/#secret",
        "s3://secret/shards/",
        "https://",
        "https://example.com:secret/",
    ],
)
def test_addresses_with_secrets_are_refused_without_repeating_them(address: str, zoo: Callable) -> None:
    for command in (("train", "tiny", "--data"), ("data", "check")):
        answer = zoo(*command, address)
        assert answer.code == 1
        assert "secret" not in answer.out + answer.err
        assert "https://" in answer.err or remote.AUTHORIZATION_VARIABLE in answer.err


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http:///x", "names no host: between http:// and the next slash stands nothing"),
        ("https://", "names no host"),
        ("https://a host/x", "names no host: .*a space"),
        ("https://example.com:99999/x", "The host or the port"),
        ("https://[::1/x", "The host or the port"),
        ("file:///x", "begins with file://, which is not read"),
        ("://example.com", "begins with ://, which is not read"),
    ],
)
def test_an_address_that_cannot_be_asked_says_which_part_is_wrong(address: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as failure:
        open_splits(address)
    assert "://HOST/PATH/" in failure.value.hint


def test_an_address_is_known_however_it_is_written() -> None:
    assert parse_address("HTTPS://Example.com:8443/Shards") == "https://example.com:8443/Shards/"
    assert parse_address("http://[::1]/x//") == "http://[::1]/x/"
    assert was_recorded("https://example.com/shards", "https://EXAMPLE.com/shards/")
    assert not was_recorded("https://example.com/shards", "https://example.com/other/")
    assert not was_recorded("https://example.com/shards", "/shards")
    assert not was_recorded("digits", "https://example.com/shards")


def test_authorization_is_sent_and_kept_nowhere(
    shards: Path, serve_folder: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(remote.AUTHORIZATION_VARIABLE, "Bearer t0ken")
    with serve_folder(shards) as server:
        outcome = train_tiny(server.url, tmp_path / "run", recipe=recipe_of(1), workers=2)
        assert server.authorizations == {"Bearer t0ken"}
        server.trouble = lambda path, number: 401
        with pytest.raises(DataError) as failure:
            open_splits(server.url)
    assert "t0ken" not in str(failure.value)
    for path in outcome.folder.iterdir():
        assert b"t0ken" not in path.read_bytes()
    monkeypatch.setenv(remote.AUTHORIZATION_VARIABLE, "Bearer t0ken\nHost: other")
    with pytest.raises(DataError, match="cannot carry") as failure:
        open_splits("http://127.0.0.1:1/")
    assert "t0ken" not in str(failure.value)


def test_authorization_does_not_follow_a_redirect_to_another_host(
    shards: Path, serve_folder: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(remote.AUTHORIZATION_VARIABLE, "Bearer t0ken")
    with serve_folder(shards) as store, serve_folder(shards) as front:

        class Redirecting(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                front.authorizations.add(self.headers.get("Authorization"))
                self.send_response(302)
                self.send_header("Location", store.url + self.path.removeprefix("/shards/"))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        front.RequestHandlerClass = Redirecting
        far = open_val(front.url)
        assert far.read(2) == open_val(str(shards)).read(2)
        assert front.authorizations == {"Bearer t0ken"}
        assert store.authorizations == {None}


def test_a_proxy_is_used_where_the_environment_names_one(
    shards: Path, serve_folder: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_folder(shards) as server:
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
        assert open_val("http://shards.example/shards/").read(1) == open_val(str(shards)).read(1)
        assert {path.partition("/shards/")[0] for path, _ in server.asked} == {"http://shards.example"}


def test_a_proxy_may_be_host_and_port_and_exceptions_too(
    shards: Path, serve_folder: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_folder(shards) as server:
        monkeypatch.setenv("http_proxy", f"127.0.0.1:{server.server_port}")
        monkeypatch.setenv("no_proxy", "elsewhere.example")
        assert len(open_val("http://shards.example/shards/")) == 18
        monkeypatch.setenv("http_proxy", "127.0.0.1:9")
        monkeypatch.setenv("no_proxy", f"127.0.0.1:{server.server_port}")
        assert len(open_val(server.url)) == 18


def test_check_pack_and_evaluation_read_addresses(
    zoo: Callable, shards: Path, serve_folder: Serve, in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_folder(shards) as server:
        far, near = (zoo("data", "check", data, "--workers", 2, "--json") for data in (server.url, shards))
        assert far.code == 0, far.err
        assert json.loads(far.out) == json.loads(near.out)
        packed = zoo("data", "pack", server.url, "-o", "again", "--size", 32)
        assert packed.code == 0, packed.err
        assert sorted(map(len, open_splits("again"))) == [18, 36]
        options = ("--epochs", 4, "--image-size", 16, "--batch-size", 6, "--device", "cpu", "-o", "run", "--json")
        trained = zoo("train", "tiny", "--data", server.url.rstrip("/"), *options)
        assert trained.code == 0, trained.err
        evaluated = zoo("evaluate", "run", "--json")
        assert evaluated.code == 0, evaluated.err
        assert json.loads(evaluated.out)["top1"] == json.loads(trained.out)["top1"]
        monkeypatch.setenv(remote.AUTHORIZATION_VARIABLE, "Bearer t0ken")
        asked = len(server.asked)
        refused = zoo("evaluate", "run")
        assert refused.code == 1
        assert f"--data {server.url.rstrip('/')}" in refused.err
        assert len(server.asked) == asked
        assert zoo("evaluate", "run", "--data", server.url).code == 0


def test_a_page_goes_without_pictures_whose_server_is_gone(shards: Path, serve_folder: Serve, tmp_path: Path) -> None:
    with serve_folder(shards) as server:
        result = train_tiny(server.url, tmp_path / "run", recipe=recipe_of(1), workers=0).result
        val = open_val(server.url)
        answers = result.answers
        answers.predicted[:] = (answers.label + 1) % 3
        server.trouble = lambda path, number: 503
        since = len(server.asked)
        job: Any = SimpleNamespace(classes=val.classes, val_set=val, settings=SimpleNamespace(seed=0))
        page = "".join(map(str, mistakes_sections(job, answers, Drawn())))
        assert page.count("no longer readable") == len(val) + 3  # the wrong ones, and one of each confused pair
        assert len(server.asked) - since == http.ATTEMPTS


def test_reading_together_keeps_the_order_and_each_its_own_error(shards: Path, serve_folder: Serve) -> None:
    near = open_val(str(shards))
    with serve_folder(shards) as server:
        far = open_val(server.url)
        mixed = Pictures(
            "mixed", near.classes, [*far.sources, *near.sources], np.concatenate([far.labels, near.labels])
        )
        indices = [20, 3, 0, 35]
        with mixed.reading(indices) as reads:
            assert [read() for read in reads] == [near.read(index % 18) for index in indices]
        assert RemoteFile(server.url, 10).read(5, 0) == b""


def test_after_a_server_has_failed_no_other_picture_of_the_batch_waits_for_it(
    shards: Path, serve_folder: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_folder(shards) as server:
        far = open_val(server.url)
    asked = []

    def fail(source: Packed, unwanted: threading.Event) -> bytes:
        asked.append(source)
        raise DataError("The server is gone.")

    monkeypatch.setattr(Packed, "read", fail)
    with far.reading(range(18)) as reads:
        for read in reads:
            with pytest.raises(DataError, match="gone"):
                read()
    assert len(asked) <= remote.PARALLEL


def test_pictures_of_an_address_are_waited_for_by_another_process(
    shards: Path, serve_folder: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "usable_processors", lambda: 1)
    with serve_folder(shards) as server:
        assert settings.default_workers(open_splits(server.url)[0], torch.device("cpu")) == 1
    assert settings.default_workers(open_splits(str(shards))[0], torch.device("cpu")) == 0
