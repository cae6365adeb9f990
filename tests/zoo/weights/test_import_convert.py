"""Weights in from other projects' files and out to them again, by the commands people type."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zoo.errors import CheckpointError, DataError, MissingCapabilityError
from zoo.model.variants import find_variant
from zoo.weights.bring_in import import_weights, read_class_names
from zoo.weights.cache import file_of
from zoo.weights.checkpoint import load_checkpoint, read_card
from zoo.weights.formats.foreign import read_foreign
from zoo.weights.origins import ORIGINS
from zoo.weights.table import find_weights

Zoo = Callable[..., "object"]
NETWORK = "tf_efficientnetv2_b0"


def lively(model: nn.Module) -> nn.Module:
    """Give batch norms statistics of their own; seeded."""
    generator = torch.Generator().manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.data.uniform_(0.4, 1.2, generator=generator)
            layer.bias.data.uniform_(-0.5, 0.5, generator=generator)
            layer.running_mean.uniform_(-0.5, 0.5, generator=generator)
            layer.running_var.uniform_(0.5, 1.5, generator=generator)
            layer.num_batches_tracked.fill_(1234)
    return model.eval()


def made(constructor: str) -> nn.Module:
    """Run the line of Python that `zoo convert` prints, as its reader would."""
    return eval(constructor, {"timm": timm, "torchvision": torchvision, "torch": torch, "partial": partial}).eval()


def logits_of(model: nn.Module) -> Tensor:
    with torch.inference_mode():
        answer: Tensor = model(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2)))
    return answer


def same(one: nn.Module, other: nn.Module) -> bool:
    expected = logits_of(other)
    return (logits_of(one) - expected).abs().max().item() <= 1e-4 * expected.abs().max().item()


@pytest.fixture(scope="module")
def b0() -> nn.Module:
    torch.manual_seed(0)
    return lively(timm.create_model(NETWORK))


@pytest.fixture(scope="module")
def b0_file(b0: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("timm") / "b0.pth"
    torch.save(b0.state_dict(), path)
    return path


def read(path: Path) -> tuple[dict[str, Tensor], str]:
    foreign = read_foreign(path)
    return dict(foreign.tensors), foreign.part


def test_in_and_out_again_is_the_same_file(zoo: Zoo, in_folder: Path, b0: nn.Module, b0_file: Path) -> None:
    said = json.loads(zoo("import", "b0", b0_file, "--from", "timm", "-o", "x.safetensors", "--json").out)
    assert (said["checkpoint"], said["model"], said["num_classes"]) == ("x.safetensors", "b0", 1000)
    assert (said["head"], said["padding"], said["weights"]) == ("kept", "same", None)
    assert said["preprocessing"] == find_weights("b0.timm-in1k").preprocessing.to_dict()
    model, card = load_checkpoint(Path("x.safetensors"))
    assert same(model, b0)
    assert card.classes[281] == "tabby"
    assert card.provenance["origin"] == "timm"

    for name in ("back.pth", "back.safetensors"):
        answer = zoo("convert", "x.safetensors", "--to", "timm", "-o", name)
        path, constructor = answer.out.splitlines()
        assert (path, constructor) == (name, f'timm.create_model("{NETWORK}", num_classes=1000)')
        back, _ = read(Path(name))
        expected = b0.state_dict()
        assert back.keys() == expected.keys()
        assert all(torch.equal(back[key], value) and back[key].dtype == value.dtype for key, value in expected.items())


def test_other_padding_and_epsilon_travel_as_arguments_or_are_said(zoo: Zoo, in_folder: Path) -> None:
    torch.manual_seed(0)
    theirs = lively(torchvision.models.efficientnet_b0())
    torch.save(theirs.state_dict(), "b0.pth")
    assert zoo("import", "v1-b0", "b0.pth", "--from", "torchvision").out == "v1-b0-torchvision.safetensors\n"
    card = read_card(Path("v1-b0-torchvision.safetensors"))
    assert (card.padding, card.variant.batch_norm_eps) == ("symmetric", 1e-5)

    said = json.loads(zoo("convert", "v1-b0-torchvision.safetensors", "--to", "timm", "-o", "t.pth", "--json").out)
    assert said["notes"] == []
    in_timm = made(said["constructor"])
    in_timm.load_state_dict(torch.load("t.pth", weights_only=True))
    assert same(in_timm, theirs)

    zoo("import", "v1-b0", "t.pth", "--from", "timm", "-o", "google.safetensors")  # now as if it came from Google
    answer = zoo("convert", "google.safetensors", "--to", "torchvision", "-o", "v.pth")
    assert "These weights expect 'same' padding and torchvision pads 'symmetric'" in answer.err
    in_torchvision = made(answer.out.splitlines()[1])
    in_torchvision.load_state_dict(torch.load("v.pth", weights_only=True))
    assert {layer.eps for layer in in_torchvision.modules() if isinstance(layer, nn.BatchNorm2d)} == {1e-3}


def test_another_number_of_classes_keeps_the_backbone_and_says_so(
    zoo: Zoo, in_folder: Path, b0: nn.Module, b0_file: Path
) -> None:
    answer = zoo("import", "b0", b0_file, "--from", "timm", "--num-classes", "5", "-o", "five.safetensors")
    assert "The head is new, for 5 classes (the file has 1000): train it before use." in answer.err
    model, card = load_checkpoint(Path("five.safetensors"))
    assert card.classes == tuple(f"class {index}" for index in range(5))
    assert (card.provenance["head"], card.provenance["file_classes"]) == ("new", 1000)
    assert torch.equal(model.head.conv.weight, b0.conv_head.weight)
    assert model.classifier.weight.shape == (5, 1280)
    assert 0.2 < model.classifier.weight.abs().max().item() <= 5**-0.5  # initialised as the paper's code does

    Path("names.txt").write_text("cat\n\ndog\nürchin\n")
    zoo("import", "b0", b0_file, "--from", "timm", "--classes", "names.txt", "-o", "three.safetensors")
    assert read_card(Path("three.safetensors")).classes == ("cat", "dog", "ürchin")
    zoo("import", "b0", b0_file, "--from", "timm", "--num-classes", "5", "-o", "again.safetensors")
    assert load_file("again.safetensors").keys() == load_file("five.safetensors").keys()
    assert Path("again.safetensors").read_bytes() == Path("five.safetensors").read_bytes()


def test_a_files_own_classes_keep_their_head(zoo: Zoo, in_folder: Path, b0_file: Path) -> None:
    """A fine-tuned file: three classes, no names in it."""
    tensors, _ = read(b0_file)
    tensors["classifier.weight"], tensors["classifier.bias"] = torch.ones(3, 1280), torch.ones(3)
    save_file(tensors, "three.safetensors")
    assert json.loads(zoo("import", "b0", "three.safetensors", "--from", "timm", "--json").out)["num_classes"] == 3
    Path("names.txt").write_text("a\nb\nc\n")
    answer = zoo("import", "b0", "three.safetensors", "--from", "timm", "--classes", "names.txt", "-o", "n.safetensors")
    assert "head is new" not in answer.err
    model, card = load_checkpoint(Path("n.safetensors"))
    assert card.classes == ("a", "b", "c")
    assert torch.equal(model.classifier.weight, tensors["classifier.weight"])
    answer = zoo("import", "b0", "three.safetensors", "--from", "timm", "--classes", "names.txt", "--num-classes", "4")
    assert (answer.code, answer.out) == (1, "")
    assert "There are 3 class names for 4 classes." in answer.err


def test_a_file_without_a_head_needs_a_number_of_classes(in_folder: Path, b0_file: Path) -> None:
    tensors, _ = read(b0_file)
    save_file({key: value for key, value in tensors.items() if "classifier" not in key}, "features.safetensors")
    variant, origin = find_variant("b0"), ORIGINS["timm"]
    with pytest.raises(CheckpointError, match=r"2 missing \(classifier\.bias, classifier\.weight\)"):
        import_weights(variant, origin, Path("features.safetensors"))
    imported = import_weights(variant, origin, Path("features.safetensors"), num_classes=7)
    assert imported.card.provenance["file_classes"] is None
    assert "the file has no head" in imported.notes[-1]


def test_wrong_keys_are_one_error_in_the_files_own_names(zoo: Zoo, in_folder: Path, b0_file: Path) -> None:
    tensors, _ = read(b0_file)
    del tensors["conv_stem.weight"]
    tensors["blocks.1.0.extra"] = torch.zeros(2)
    tensors["bn1.bias"] = torch.zeros(7)
    torch.save(tensors, "bad.pth")
    answer = zoo("import", "b0", "bad.pth", "--from", "timm")
    assert (answer.code, answer.out) == (1, "")
    assert "bad.pth does not fit timm's tf_efficientnetv2_b0" in answer.err
    assert "1 missing (conv_stem.weight)" in answer.err
    assert "1 unknown (blocks.1.0.extra)" in answer.err
    assert "1 misshapen (bn1.bias (7,) instead of (32,))" in answer.err
    assert list(in_folder.glob("*.safetensors")) == []


def test_the_network_a_file_is_for_is_recognised(zoo: Zoo, in_folder: Path, b0_file: Path) -> None:
    expected = f"Its keys are those of timm's {NETWORK}: `zoo import b0 --from timm`."
    assert expected in zoo("import", "b1", b0_file, "--from", "timm").err
    assert expected in zoo("import", "s", b0_file, "--from", "torchvision").err
    answer = zoo("import", "b0", b0_file, "--from", "torchvision")
    assert "torchvision has no b0." in answer.err
    assert "It has s, m, l, v1-b0" in answer.err


@pytest.mark.parametrize(
    ("nest", "part"),
    [
        (lambda state: {"state_dict": {}, "state_dict_ema": state, "epoch": 3}, "state_dict_ema"),
        (lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}}, "state_dict"),
        (
            lambda state: {"model_ema": {"n_averaged": torch.tensor(9)} | {f"module.{k}": v for k, v in state.items()}},
            "model_ema",
        ),
        (lambda state: {key: value for key, value in state.items() if "num_batches" not in key}, ""),
    ],
)
def test_files_of_training_scripts_are_read(
    in_folder: Path, b0: nn.Module, nest: Callable[[dict[str, Tensor]], object], part: str
) -> None:
    torch.save(nest(b0.state_dict()), "training.pth.tar")
    imported = import_weights(find_variant("b0"), ORIGINS["timm"], Path("training.pth.tar"))
    assert same(imported.model, b0)
    assert any(part in note for note in imported.notes)


def test_half_precision_is_widened(in_folder: Path, b0: nn.Module) -> None:
    save_file({key: v.half() if v.is_floating_point() else v for key, v in b0.state_dict().items()}, "h.safetensors")
    imported = import_weights(find_variant("b0"), ORIGINS["timm"], Path("h.safetensors"))
    assert {value.dtype for value in imported.model.state_dict().values()} == {torch.float32, torch.int64}
    assert all(parameter.requires_grad for parameter in imported.model.parameters())


class Code:
    """Unpickling this would make a folder."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("pwned",)


def test_a_file_with_code_in_it_is_refused_and_nothing_runs(zoo: Zoo, in_folder: Path) -> None:
    torch.save({"model": Code()}, "code.pth")
    answer = zoo("import", "b0", "code.pth", "--from", "timm")
    assert answer.code == 1
    assert "holds more than tensors, or is damaged; nothing in it was run" in answer.err
    assert not Path("pwned").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("cut.pth", None, "truncated or not a PyTorch file"),
        ("empty.pth", b"", "truncated or not a PyTorch file"),
        ("text.pth", b"hello", "truncated or not a PyTorch file"),
        ("pickle.pth", pickle.dumps([1, 2], protocol=2), "is damaged|not a PyTorch file"),
        ("cut.safetensors", b"\x10\0\0\0\0\0\0\0{}", "truncated or not a safetensors file"),
        ("weights.npz", b"", "is in no format this project reads"),
        ("absent.pth", "absent", "There is no file absent.pth"),
    ],
)
def test_damaged_and_foreign_files_are_clear_errors(
    in_folder: Path, b0_file: Path, name: str, content: bytes | str | None, said: str
) -> None:
    if content is None:
        Path(name).write_bytes(b0_file.read_bytes()[:100_000])
    elif isinstance(content, bytes):
        Path(name).write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        read_foreign(Path(name))


def test_formats_of_missing_packages_say_how_to_get_them(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.weights.formats.keras.find_spec", lambda name: None)
    monkeypatch.setattr("zoo.weights.formats.google.find_spec", lambda name: None)
    for name, hint in (("b0.h5", "pip install h5py"), ("b0.keras", "pip install h5py")):
        Path(name).touch()
        with pytest.raises(MissingCapabilityError) as caught:
            read_foreign(Path(name))
        assert caught.value.hint == hint
    Path("model.ckpt.index").touch()
    with pytest.raises(MissingCapabilityError) as caught:
        read_foreign(Path("model.ckpt"))
    assert "pip install tensorflow-cpu" in caught.value.hint


@pytest.mark.parametrize(("text", "said"), [("a\nb\na\n", "a more than once"), ("one\n\n", "1 class names")])
def test_class_names_must_differ(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(DataError, match=said):
        read_class_names(tmp_path / "names.txt")
    with pytest.raises(DataError, match="cannot be read"):
        read_class_names(tmp_path / "absent.txt")


def test_real_published_weights_are_recognised_and_go_back_bit_for_bit(zoo: Zoo, in_folder: Path) -> None:
    row = find_weights("lite0.imagenet1k")
    pytest.importorskip(row.module, reason="needs the weights extra")
    file = file_of(row)
    answer = zoo("import", "lite0", file, "--from", "lukemelas", "-o", "lite0.safetensors")
    assert "This is the published file lite0.imagenet1k." in answer.err
    card = read_card(Path("lite0.safetensors"))
    assert (card.provenance["weights"], card.provenance["sha256"]) == (row.id, row.sha256_prefix)
    answer = zoo("convert", "lite0.safetensors", "--to", "lukemelas", "-o", "back.pth")
    assert answer.out.splitlines()[1] == 'EfficientNet.from_name("efficientnet-lite0", num_classes=1000)'
    back, (expected, _) = torch.load("back.pth", weights_only=True), read(file)
    assert back.keys() == expected.keys()
    assert all(torch.equal(back[key], value) for key, value in expected.items())


def test_a_weights_id_chooses_the_preprocessing_of_an_unknown_file(zoo: Zoo, in_folder: Path) -> None:
    torch.manual_seed(0)
    torch.save(torchvision.models.efficientnet_b1(num_classes=3).state_dict(), "mine.pth")
    for model, resize in (("v1-b1", 255), ("v1-b1.torchvision-imagenet1k", 256)):
        said = json.loads(zoo("import", model, "mine.pth", "--from", "torchvision", "--json").out)
        assert (said["preprocessing"]["resize_size"], said["weights"]) == (resize, None)
        assert said["checkpoint"] == "v1-b1-torchvision.safetensors"
    answer = zoo("import", "v1-b1.timm-aa-in1k", "mine.pth", "--from", "torchvision")
    assert "v1-b1.timm-aa-in1k are weights of timm, not of torchvision." in answer.err


def test_outputs_must_have_an_ending_that_says_what_they_are(zoo: Zoo, in_folder: Path, b0_file: Path) -> None:
    answer = zoo("import", "b0", b0_file, "--from", "timm", "-o", "b0.pth")
    assert answer.code == 2
    assert "does not end in .safetensors" in answer.err
    zoo("import", "b0", b0_file, "--from", "timm", "-o", "b0.safetensors")
    answer = zoo("convert", "b0.safetensors", "--to", "timm", "-o", "b0.onnx")
    assert answer.code == 1
    assert "ends in neither .pth nor .safetensors" in answer.err
    assert not Path("b0.onnx").exists()
