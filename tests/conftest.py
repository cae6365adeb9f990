"""Shared by all tests: one thread per worker, no network of our own, and the expensive things made once."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile

# Before torch is imported: two test workers with two threads each on two cores wait for one another at barriers.
os.environ["OMP_NUM_THREADS"] = "1"
# Weights and paces that the person at this machine keeps are neither used nor changed.
os.environ["ZOO_CACHE"] = tempfile.mkdtemp(prefix="zoo-tests-")

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from difflib import unified_diff
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image, ImageDraw

from train.progressive.budget import Pace
from zoo import http
from zoo.data.http import AUTHORIZATION_VARIABLE
from zoo.model.spec import Variant

# A property is not a stopwatch: on a busy machine a deadline fails for no reason.
settings.register_profile("zoo", deadline=None)
settings.load_profile("zoo")


@dataclass(frozen=True)
class Answer:
    """What a command did: exit code, results and remarks."""

    code: int
    out: str
    err: str


@pytest.fixture
def zoo(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """Run the real command line in this process: `zoo("train", "tiny")`."""
    from zoo.cli import main

    def run(*arguments: str | Path) -> Answer:
        monkeypatch.setattr("sys.argv", ["zoo", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capfd.readouterr()
        return Answer(code, said.out, said.err)

    return run


@pytest.fixture
def at_width(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """`at_width(60)`: stdout is a terminal of so many columns, without colours; None: it is piped."""

    def choose(columns: int | None) -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setattr(sys.stdout, "isatty", lambda: columns is not None, raising=False)
        if columns is not None:
            monkeypatch.setenv("COLUMNS", str(columns))
            monkeypatch.setenv("TERM", "xterm")

    return choose


GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--accept-goldens", action="store_true", help="Record what the tests find under tests/golden/.")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`golden("counts.txt", text)`: the text is the recorded one; `pytest --accept-goldens` records it.

    With `tolerance=1e-3` every number may be off by a thousandth of the recorded one; the words may not.
    """

    def compare(name: str, found: str, *, tolerance: float = 0.0) -> None:
        path = GOLDEN / name
        recorded = path.read_text(encoding="utf-8") if path.is_file() else ""
        if found == recorded or (tolerance and is_near(found, recorded, tolerance)):
            return
        if request.config.getoption("--accept-goldens"):
            path.write_text(found, encoding="utf-8")
            return
        lines = unified_diff(recorded.splitlines(), found.splitlines(), "recorded", "found", lineterm="")
        accept = f"If that is meant: pytest '{request.node.nodeid}' --accept-goldens, and say why in the commit."
        pytest.fail("\n".join([f"tests/golden/{name} is not what was found:", *lines, "", accept]), pytrace=False)

    return compare


NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]\d+)?")


def is_near(found: str, recorded: str, tolerance: float) -> bool:
    """Whether two texts have the same words, and numbers that differ by at most a share of the recorded one."""
    if NUMBER.split(found) != NUMBER.split(recorded):
        return False
    pairs = zip(map(float, NUMBER.findall(found)), map(float, NUMBER.findall(recorded)), strict=True)
    return all(abs(number - wanted) <= tolerance * abs(wanted) for number, wanted in pairs)


@pytest.fixture(autouse=True)
def a_known_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose pace is known, 2 ms a picture at 100 px: `--plan` measures nothing and says the same always."""
    pace = Pace(train_s=0, train_s_per_px=2e-7, validate_s=0, validate_s_per_px=5e-8)
    monkeypatch.setattr("train.progressive.known_paces.known_pace", lambda key: pace)


@pytest.fixture(scope="session")
def frameworks_loaded_by() -> Callable[..., list[str]]:
    """Runs a command in a fresh process and says which frameworks it has loaded when it has printed its answer."""

    def run(*arguments: str | Path) -> list[str]:
        program = (
            "import json, sys\nfrom zoo.cli import cli\n"
            f"cli({[str(argument) for argument in arguments]!r}, standalone_mode=False)\n"
            "heavy = ('torch', 'torchvision', 'onnxruntime', 'sklearn', 'numpy')\n"
            "print(json.dumps([name for name in heavy if name in sys.modules]))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        *answer, loaded = done.stdout.splitlines()
        assert answer
        found: list[str] = json.loads(loaded)
        return found

    return run


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_pictures(root: Path, classes: Sequence[str], count: int, *, size: int = 40, seed: int = 0) -> None:
    """Write `count` noisy JPEGs per class; each class has a colour of its own, so that it can be learnt."""
    rng = np.random.default_rng(seed)
    for index, name in enumerate(classes):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        base = np.array([(index * 97) % 256, (index * 53 + 80) % 256, (index * 151 + 30) % 256])
        for number in range(count):
            pixels = np.clip(base + rng.normal(0, 25, (size, size, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:03d}.jpg")


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train/ and val/ of three classes, 12 and 6 pictures each. Copy it before you damage it."""
    root = tmp_path_factory.mktemp("pictures")
    write_pictures(root / "train", ("blue", "green", "red"), 12)
    write_pictures(root / "val", ("blue", "green", "red"), 6, seed=1)
    return root


@pytest.fixture(scope="session")
def shrink() -> Callable[[Variant], Variant]:
    """`shrink(row)`: an EfficientNet's row with at most two layers a stage and small widths, all else as it is.

    Widths that were alike stay alike, so that the same blocks are added to their input.
    """

    def small(variant: Variant) -> Variant:
        widths = sorted({variant.stem_channels, *(stage.out_channels for stage in variant.stages)})
        narrow = {width: 8 * place for place, width in enumerate(widths, start=1)}
        stages = tuple(
            replace(stage, num_layers=min(stage.num_layers, 2), out_channels=narrow[stage.out_channels])
            for stage in variant.stages
        )
        stem = narrow[variant.stem_channels]
        return replace(variant, id="small", name="small", stem_channels=stem, head_channels=64, stages=stages)

    return small


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of `tiny`, trained briefly on the digits: a real checkpoint for every test that needs one."""
    from train.options import TrainOptions
    from train.session import train_model

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    sizes = {"epochs": 4, "image_size": 32, "batch_size": 32}
    train_model(TrainOptions(model="tiny", out=folder, device="cpu", learning_rate=1e-2, **sizes))
    return folder


SHAPES = {"circle": (220, 60, 40), "square": (50, 190, 70), "triangle": (60, 80, 230)}


def write_shapes(root: Path, count: int, *, seed: int = 0) -> Path:
    """Write `count` pictures with several coloured shapes or none, and labels.csv; returns that file.

    The first four fifths are for training, of the rest one half to validate on and one to test.
    """
    rng = np.random.default_rng(seed)
    lines = ["path,labels,split"]
    for number in range(count):
        image = Image.fromarray(rng.integers(90, 130, (32, 32, 3), np.uint8))
        pen = ImageDraw.Draw(image)
        there = [name for name in SHAPES if rng.random() < 0.5]
        for name in there:
            left, top = (int(side) for side in rng.integers(0, 20, 2))
            box = (left, top, left + 11, top + 11)
            if name == "circle":
                pen.ellipse(box, fill=SHAPES[name])
            elif name == "square":
                pen.rectangle(box, fill=SHAPES[name])
            else:
                pen.polygon([(left, top + 11), (left + 6, top), (left + 11, top + 11)], fill=SHAPES[name])
        image.save(root / f"{number:03d}.png")
        split = "train" if number < 0.8 * count else "val" if number < 0.9 * count else "test"
        lines.append(f"{number:03d}.png,{';'.join(there)},{split}")
    labels = root / "labels.csv"
    labels.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return labels


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """labels.csv of 200 pictures of coloured shapes, several in a picture, or none."""
    return write_shapes(tmp_path_factory.mktemp("shapes"), 200)


@pytest.fixture(scope="session")
def shapes_run(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """The run folder of `tiny`, trained briefly on the shapes: a checkpoint that answers several labels."""
    from train.options import TrainOptions
    from train.session import train_model

    folder = tmp_path_factory.mktemp("runs") / "shapes"
    sizes = {"epochs": 8, "image_size": 32, "batch_size": 16}
    gentle = ("crop_scale=0.6,1", "stages.all.randaugment_magnitude=0", "test_size=32")
    options = TrainOptions(
        model="tiny",
        data=str(shapes),
        out=folder,
        device="cpu",
        workers=0,
        learning_rate=1e-2,
        overrides=gentle,
        **sizes,
    )
    train_model(options)
    return folder


class ShardServer(ThreadingHTTPServer):
    """Serves a folder with ranges. `trouble(path, number of the request)` says what goes wrong, None for nothing:

    a status to answer with; "silent", no answer comes; "drop", the connection ends within the body; "whole", Range is
    ignored; "grown", the file has another size; "elsewhere", another range is sent.
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), ShardHandler)
        self.root = root
        self.trouble: Callable[[str, int], int | str | None] = lambda path, number: None
        self.asked: list[tuple[str, str | None]] = []
        self.authorizations: set[str | None] = set()
        self.connections = 0
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/shards/"

    def ranges(self) -> list[tuple[str, str]]:
        """Requests for pictures, sorted; opening asks for the first byte of every shard."""
        return sorted((path, asked) for path, asked in self.asked if asked and asked != "bytes=0-0")


class ShardHandler(BaseHTTPRequestHandler):
    server: ShardServer
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.authorizations.add(self.headers.get("Authorization"))
        self.server.asked.append((self.path, asked))
        path = self.server.root / unquote(urlsplit(self.path).path).removeprefix("/shards/")
        trouble = self.server.trouble(self.path, len(self.server.asked))
        if trouble == "silent":
            self.server.closing.wait()
            self.close_connection = True
            return None
        if isinstance(trouble, int) or not path.is_file():
            return self.send_error(trouble if isinstance(trouble, int) else 404)
        content = path.read_bytes()
        first, last = 0, len(content) - 1
        if asked and trouble != "whole":
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
            first, last = (first + 1, last + 1) if trouble == "elsewhere" else (first, last)
        body = content[first : last + 1]
        self.send_response(206 if asked and trouble != "whole" else 200)
        if asked and trouble != "whole":
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content) + (trouble == 'grown')}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if trouble == "drop" else body)
        self.close_connection = self.close_connection or trouble == "drop"
        return None

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(root: Path) -> Iterator[ShardServer]:
    """A server of a folder while the block runs."""
    with ShardServer(root) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield running
        finally:
            running.closing.set()
            http._pool.cache_clear()  # its connections end, and with them the server's threads
            running.shutdown()
            thread.join()


@pytest.fixture
def serve_folder(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], AbstractContextManager[ShardServer]]:
    """`with serve_folder(path) as server`: a web server of this process; failures are tried again without a pause."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv(AUTHORIZATION_VARIABLE, raising=False)
    monkeypatch.setattr(http, "BACKOFF_S", 0.0)
    return serving
