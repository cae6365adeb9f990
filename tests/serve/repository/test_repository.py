"""A folder of models at work: what is loaded, and that nothing is lost when a version takes another one's place."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from export.engine.builders import BatchProfile
from export.triton.config import signature, tuning
from serve.core.batcher import Batcher
from serve.core.slot import Engine, EngineInfo
from serve.models.models import Models
from serve.options import ServeOptions
from serve.repository.control import Repository
from serve.repository.folder import read_config, read_folder
from serve.server import describe_models, limits_of
from zoo.errors import ArtifactError, ZooError

PATIENCE_S = 60.0
CONFIG = "max_batch_size: 4\ninstance_group [ { count: 2 } ]\ndynamic_batching { max_queue_delay_microseconds: 500 }\n"


def add_version(root: Path, name: str, version: int) -> Path:
    folder = root / name / str(version)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"stands for a graph")
    return folder


@dataclass
class Opened:
    """What was opened in place of real engines: by "name/version"."""

    runners: dict[str, Any] = field(default_factory=dict)
    options: dict[str, ServeOptions] = field(default_factory=dict)
    breaks: set[str] = field(default_factory=set)


@pytest.fixture
def opened(fake: Any, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Replaces the one call that opens artifacts by fakes."""
    noted = Opened()

    def open_fake(options: ServeOptions, say: Callable[[str], None]) -> Engine:
        assert options.engine is not None
        key = "/".join(Path(options.engine).parts[-3:-1])
        if key in noted.breaks:
            raise ArtifactError(f"{key} is broken.")
        runner = noted.runners[key] = fake()
        noted.options[key] = options
        batcher = Batcher([runner], queue_capacity=64, max_batch_size=options.max_batch_size or 8)
        info = EngineInfo(artifact="model.onnx", backend=runner.backend, device=runner.device)
        return Engine(batcher=batcher, contract=runner.contract, info=info)

    monkeypatch.setattr("serve.repository.control.open_engine", open_fake)
    return noted


@pytest.fixture
def root(tmp_path: Path) -> Path:
    add_version(tmp_path, "a", 1)
    add_version(tmp_path, "a", 2)
    add_version(tmp_path, "b", 1)
    return tmp_path


@pytest.fixture
def serve(
    root: Path, opened: Opened, serve_models: Callable[[Models], httpx.Client]
) -> Iterator[Callable[..., httpx.Client]]:
    """Starts a real server of the folder; its client."""

    def start(**options: Any) -> httpx.Client:
        row = ServeOptions(models=root, model_control=True, **options)
        return serve_models(Repository(root, row, limits_of).open_all())

    yield start
    for runner in opened.runners.values():
        runner.release()


def ask(client: httpx.Client, name: str, byte: int = 42, version: str = "") -> httpx.Response:
    picture = np.full((1, 8, 8, 3), byte, np.uint8)
    given = {"name": "pictures", "datatype": "UINT8", "shape": [1, 8, 8, 3], "data": picture.ravel().tolist()}
    path = f"/v2/models/{name}{f'/versions/{version}' if version else ''}/infer"
    return client.post(path, json={"inputs": [given]})


def load(client: httpx.Client, name: str) -> httpx.Response:
    return client.post(f"/v2/repository/models/{name}/load")


def listed(client: httpx.Client) -> dict[tuple[str, str], str]:
    return {(row["name"], row["version"]): row["state"] for row in client.post("/v2/repository/index").json()}


def test_every_model_is_served_in_its_newest_version(serve: Callable[..., httpx.Client], fake: Any) -> None:
    client = serve()
    assert ask(client, "a").json()["model_version"] == "2"
    assert ask(client, "b").json()["model_version"] == "1"
    assert client.get("/v2/models/a").json()["versions"] == ["2"]
    assert ask(client, "a", version="1").status_code == 404
    assert listed(client) == {("a", "1"): "UNAVAILABLE", ("a", "2"): "READY", ("b", "1"): "READY"}
    assert client.post("/v2/repository/index", json={"ready": True}).json()[0]["version"] == "2"
    assert client.post("/predict?model=b", content=fake.png(3)).json()["predictions"][0]["index"] == 3
    assert client.post("/predict?model=c", content=fake.png(3)).status_code == 404
    assert "model_repository" in client.get("/v2").json()["extensions"]


def test_metrics_tell_models_apart(serve: Callable[..., httpx.Client]) -> None:
    client = serve()
    ask(client, "b")
    text = client.get("/metrics").text
    assert 'zoo_pictures_total{model="a",version="2"} 0.0' in text
    assert 'zoo_pictures_total{model="b",version="1"} 1.0' in text
    assert 'zoo_requests_total{path="/v2/models/{model}/infer",status="200"} 1.0' in text
    for line in ("# TYPE zoo_pictures_total counter", "# TYPE process_open_fds gauge"):
        assert text.count(line) == 1


def test_the_config_counts_where_the_command_line_says_nothing(
    root: Path, opened: Opened, serve: Callable[..., httpx.Client]
) -> None:
    (root / "a" / "config.pbtxt").write_text(f'{CONFIG}version_policy {{ all {{ }} }}\nunknown_field: "passed over"\n')
    (root / "b" / "config.pbtxt").write_text(CONFIG)
    client = serve(max_queue_delay_ms=2.0)
    assert client.get("/v2/models/a").json()["versions"] == ["1", "2"]
    assert ask(client, "a", version="1").json()["model_version"] == "1"
    options = opened.options["a/1"]
    assert (options.max_batch_size, options.instances, options.max_queue_delay_ms) == (4, 2, 2.0)
    assert opened.options["b/1"].max_batch_size == 4


def test_a_new_version_takes_over_and_the_old_one_answers_what_it_has(
    root: Path, opened: Opened, serve: Callable[..., httpx.Client]
) -> None:
    client = serve()
    opened.runners["a/2"].hold()
    answers: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=lambda: answers.put(ask(client, "a", 7).json()), daemon=True).start()
    opened.runners["a/2"].entered.get(timeout=PATIENCE_S)
    add_version(root, "a", 3)
    loaded: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=lambda: loaded.put(load(client, "a")), daemon=True).start()
    while client.get("/v2/models/a").json()["versions"] != ["3"]:
        pass
    assert ask(client, "a").json()["model_version"] == "3"
    assert loaded.empty() and answers.empty()
    opened.runners["a/2"].release()
    assert answers.get(timeout=PATIENCE_S)["model_version"] == "2"
    assert loaded.get(timeout=PATIENCE_S).status_code == 200
    assert listed(client)[("a", "2")] == "UNAVAILABLE"


def test_swaps_under_load_lose_no_request(root: Path, serve: Callable[..., httpx.Client], fake: Any) -> None:
    client = serve()
    stop, answered = threading.Event(), threading.Semaphore(0)
    seen: list[list[tuple[int, str]]] = [[] for _ in range(4)]

    def go_on_asking(own: list[tuple[int, str]]) -> None:
        with httpx.Client(base_url=client.base_url, timeout=PATIENCE_S, trust_env=False) as mine:
            while not stop.is_set():
                reply = ask(mine, "a")
                own.append((reply.status_code, reply.json().get("model_version", reply.text)))
                answered.release()

    threads = [threading.Thread(target=go_on_asking, args=(own,)) for own in seen]
    for thread in threads:
        thread.start()
    for version in range(3, 9):
        for _ in range(3 * len(threads)):
            assert answered.acquire(timeout=PATIENCE_S)
        add_version(root, "a", version)
        assert load(client, "a").status_code == 200
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert ask(client, "a").json()["model_version"] == "8"
    for own in seen:
        assert {status for status, _ in own} <= {200}, own
        versions = [int(version) for _, version in own]
        assert versions == sorted(versions)
    assert len({version for own in seen for _, version in own}) > 1


def test_a_version_that_cannot_be_opened_changes_nothing(
    root: Path, opened: Opened, serve: Callable[..., httpx.Client]
) -> None:
    client = serve()
    add_version(root, "a", 3)
    opened.breaks.add("a/3")
    reply = load(client, "a")
    assert (reply.status_code, reply.json()["error"]) == (500, "A/3 is broken.")
    assert ask(client, "a").json()["model_version"] == "2"
    rows = client.post("/v2/repository/index").json()
    assert next(row["reason"] for row in rows if row["version"] == "3") == "a/3 is broken."


def test_a_version_that_fails_its_warm_up_changes_nothing(
    root: Path, serve: Callable[..., httpx.Client], fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve()
    add_version(root, "a", 3)

    def broken(self: Any, pictures: Any) -> Any:
        raise RuntimeError("no memory")

    with monkeypatch.context() as patched:
        patched.setattr(fake, "infer", broken)
        reply = load(client, "a")
    assert reply.status_code == 500 and "warm-up: no memory" in reply.json()["error"]
    assert ask(client, "a").json()["model_version"] == "2"


def test_an_unloaded_model_is_gone_and_comes_back(serve: Callable[..., httpx.Client]) -> None:
    client = serve()
    assert client.post("/v2/repository/models/a/unload").status_code == 200
    assert ask(client, "a").status_code == 404
    assert client.post("/predict", content=b"x").status_code == 400  # the other model looks at it
    assert listed(client)[("a", "2")] == "UNAVAILABLE"
    assert client.post("/v2/repository/models/a/unload").status_code == 404
    assert load(client, "a").status_code == 200
    assert ask(client, "a").json()["model_version"] == "2"


@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2Fa", ".hidden", "nope", "a%00", "a" * 200, "%2Fetc"])
def test_no_name_leaves_the_folder(serve: Callable[..., httpx.Client], root: Path, name: str) -> None:
    (root / ".hidden" / "1").mkdir(parents=True)
    (root / ".hidden" / "1" / "model.onnx").write_bytes(b"")
    assert load(serve(), name).status_code == 404


def test_settings_and_files_are_not_taken_from_requests(serve: Callable[..., httpx.Client]) -> None:
    parameters = {"config": "{}", "file:1/model.onnx": "AAAA"}
    reply = serve().post("/v2/repository/models/a/load", json={"parameters": parameters})
    assert reply.status_code == 400 and "not taken from requests" in reply.json()["error"]


def test_without_control_nothing_is_loaded_or_unloaded(server: Any) -> None:
    for what in ("load", "unload"):
        reply = server.client.post(f"/v2/repository/models/fake/{what}")
        assert reply.status_code == 403 and "--model-control" in reply.json()["error"]
    (row,) = server.client.post("/v2/repository/index").json()
    assert (row["name"], row["version"], row["state"]) == ("fake", "1", "READY")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda root: None, "has no models"),
        (lambda root: (root / "a").mkdir(), "has no version"),
        (lambda root: (add_version(root, "a", 1).parent / "config.pbtxt").write_text("{"), "cannot be read"),
        (
            lambda root: (add_version(root, "a", 1).parent / "config.pbtxt").write_text(
                "version_policy { specific { versions: [7] } }"
            ),
            "asks for version 7",
        ),
    ],
)
def test_a_folder_that_cannot_be_served_is_told(
    tmp_path: Path, opened: Opened, made: Callable[[Path], Any], said: str
) -> None:
    made(tmp_path)
    with pytest.raises(ZooError, match=said):
        Repository(tmp_path, ServeOptions(models=tmp_path), limits_of).open_all()


def test_the_config_that_an_export_writes_is_read(tmp_path: Path, fake: Any) -> None:
    contract = fake().contract
    profile = BatchProfile(min=1, opt=4, max=16)
    text = signature("a", contract, "onnx", profile.max) + tuning(contract, "onnx", profile)
    theirs = "instance_group [ { gpus: [ 0, 1 ] rate_limiter { priority: 2 } } ] optimization { graph { level: 1 } }"
    config = read_config(f"{text}{theirs}", "config.pbtxt")
    assert (config.name, config.max_batch_size) == ("a", 16)
    assert [list(each.dims) for each in config.input] == [[8, 8, 3]]
    assert [warm.batch_size for warm in config.model_warmup] == [1, 16]
    add_version(tmp_path, "a", 1)
    (tmp_path / "a" / "config.pbtxt").write_text(text)
    folder = read_folder(tmp_path, "a")
    assert (folder.max_batch_size, folder.instances, folder.max_queue_delay_ms) == (16, 1, 0.0)


def test_versions_are_ordered_as_numbers(tmp_path: Path) -> None:
    for version in (10, 9, 1):
        add_version(tmp_path, "a", version)
    (tmp_path / "a" / "latest").mkdir()
    (tmp_path / "a" / "config.pbtxt").write_text("version_policy { latest { num_versions: 2 } }")
    folder = read_folder(tmp_path, "a")
    assert (list(folder.artifacts), folder.served) == (["1", "9", "10"], ("9", "10"))


def test_the_banner_lists_models_and_versions(root: Path, opened: Opened) -> None:
    models = Repository(root, ServeOptions(models=root), limits_of).open_all()
    assert describe_models(models).startswith("Models: a (2), b (1). The page shows a;")
