from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from export.contract import Contract
from export.runners.compiled import AHEAD_OF_TIME, JUST_IN_TIME, Compiler
from export.runners.open import open_runner
from export.runners.pytorch import TorchRunner
from zoo.errors import MissingCapabilityError
from zoo.model.build import build_network
from zoo.model.efficientnet import EfficientNet
from zoo.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="no C++ compiler is here"
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled is kept where the test is, and is compiled anew."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def one_stage(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """The first stage of tiny, untrained: compiling it takes seconds."""
    trained, card = load_checkpoint(tiny_checkpoint)
    variant = replace(trained.variant, id="one-stage", name="one_stage", stages=trained.variant.stages[:1])
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("one") / "checkpoint.safetensors"
    save_checkpoint(path, build_network(variant, len(card.classes)).state_dict(), replace(card, variant=variant))
    return path


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore")  # of the compiler's own internals
@pytest.mark.parametrize("backend", ["torch-compile", "torch-aot"])
def test_a_compiled_network_answers_as_the_network_does_at_any_batch(
    backend: str, cache: None, one_stage: Path, digit_pictures: NDArray[np.uint8]
) -> None:
    with (
        open_runner(str(one_stage), device="cpu") as reference,
        open_runner(str(one_stage), device="cpu", threads=1, backend=backend) as runner,
    ):
        assert runner.threads == 1 and runner.max_batch_size is None
        assert runner.backend.endswith({"torch-compile": "torch.compile", "torch-aot": "AOTInductor"}[backend])
        compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        for count in (1, 2, 5, 12):
            expected, answers = reference.infer(digit_pictures[:count]), runner.infer(digit_pictures[:count])
            np.testing.assert_allclose(answers, expected, rtol=1e-4, atol=1e-4)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled  # all of it when it was opened
        out = np.empty((3, 10), np.float32)
        assert runner.infer(digit_pictures[:3], out=out) is out


@pytest.mark.parametrize("compiler", [JUST_IN_TIME, AHEAD_OF_TIME])
def test_what_pytorch_cannot_compile_is_one_error_and_threads_are_put_back(
    compiler: Compiler,
    tiny_model: tuple[EfficientNet, Checkpoint],
    tiny_contract: Contract,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("No working C++ compiler found\nin torch._inductor.config.cpp.cxx")

    monkeypatch.setattr("torch.compile", refuse)
    monkeypatch.setattr("torch._inductor.aoti_compile_and_package", refuse)
    before = torch.get_num_threads()
    with pytest.raises(MissingCapabilityError, match=r"No working C\+\+ compiler found in") as caught:
        TorchRunner(tiny_model[0], tiny_contract, threads=before + 1, compiler=compiler)
    assert "g++" in caught.value.hint
    assert torch.get_num_threads() == before
