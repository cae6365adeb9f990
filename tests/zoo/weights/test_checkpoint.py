from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from zoo import __version__
from zoo.errors import CheckpointError
from zoo.model.efficientnet import EfficientNet
from zoo.model.variants import find_variant
from zoo.weights.checkpoint import Checkpoint, load_checkpoint, read_card, save_checkpoint


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, EfficientNet, Checkpoint]:
    variant = find_variant("tiny")
    model = EfficientNet(variant, 3)
    card = Checkpoint(
        variant=variant,
        classes=("é", "b", "c"),
        preprocessing=variant.preprocessing.at(48),
        padding="same",
        recipe={"name": "x"},
        provenance={"data": "digits"},
    )
    path = tmp_path / "a" / "checkpoint.safetensors"
    save_checkpoint(path, model.state_dict(), card)
    return path, model, card


def test_a_checkpoint_comes_back_whole(saved: tuple[Path, EfficientNet, Checkpoint]) -> None:
    path, model, card = saved
    loaded, read = load_checkpoint(path)
    assert read == card == read_card(path)
    assert not loaded.training
    assert loaded.padding == "same"
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def test_a_truncated_checkpoint_is_one_clear_error(saved: tuple[Path, EfficientNet, Checkpoint]) -> None:
    path = saved[0]
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file"):
        load_checkpoint(path)


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"w": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="no readable zoo header"):
        load_checkpoint(path)


def test_a_later_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "later.safetensors"
    save_file({"w": torch.zeros(1)}, path, metadata={"zoo": json.dumps({"format": "zoo-checkpoint-9"})})
    with pytest.raises(CheckpointError, match="zoo-checkpoint-9"):
        load_checkpoint(path)


def test_a_header_says_its_format_and_version_first(saved: tuple[Path, EfficientNet, Checkpoint]) -> None:
    with safe_open(saved[0], framework="numpy") as file:
        fields = json.loads(file.metadata()["zoo"])
    assert list(fields.items())[:2] == [("format", "zoo-checkpoint-1"), ("zoo_version", __version__)]
    assert list(fields)[2:] == ["variant", "classes", "preprocessing", "padding", "recipe", "provenance"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda fields: fields.pop("variant"),
        lambda fields: fields["variant"].update(stem_channels="24"),
        lambda fields: fields.update(classes="abc"),
        lambda fields: fields.update(padding="none"),
        lambda fields: fields.update(provenance=3),
    ],
)
def test_a_damaged_header_is_refused(
    damage: Callable[[dict[str, Any]], object], saved: tuple[Path, EfficientNet, Checkpoint]
) -> None:
    path, _, card = saved
    fields = card.to_dict()
    damage(fields)
    save_file({"w": torch.zeros(1)}, path, metadata={"zoo": json.dumps(fields)})
    with pytest.raises(CheckpointError, match=f"{path.name} carries no readable zoo header"):
        read_card(path)


def test_a_card_is_read_without_torch(saved: tuple[Path, EfficientNet, Checkpoint]) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom zoo.weights.checkpoint import read_card\n"
        f"print(read_card(Path({str(saved[0])!r})).variant.id, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "tiny False\n"


def test_missing_unknown_and_misshapen_keys_are_listed(saved: tuple[Path, EfficientNet, Checkpoint]) -> None:
    path, model, card = saved
    state = dict(model.state_dict())
    state["extra.weight"] = torch.zeros(1)
    state["classifier.weight"] = torch.zeros(3, 5)
    del state["stem.conv.weight"]
    save_checkpoint(path, state, card)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    said = caught.value.problem
    assert "1 missing (stem.conv.weight)" in said
    assert "1 unknown (extra.weight)" in said
    assert "classifier.weight (3, 5) instead of (3, 32)" in said


def test_a_failed_write_leaves_the_old_file_and_nothing_else(saved: tuple[Path, EfficientNet, Checkpoint]) -> None:
    path, _, card = saved
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_checkpoint(path, {}, Checkpoint(**{**vars(card), "recipe": {"not": object()}}))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
