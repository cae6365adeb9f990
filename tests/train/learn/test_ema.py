from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from train.learn.ema import WeightAverage
from train.learn.loop import _Loop
from train.session import train_model
from zoo.model.build import build_network
from zoo.model.variants import find_variant
from zoo.weights.checkpoint import read_card


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_a_decay_of_0_follows_the_model_bit_for_bit(decay: float) -> None:
    torch.manual_seed(0)
    model = build_network(find_variant("tiny"), 3)
    average = WeightAverage(model, decay)
    for step in range(20):
        with torch.no_grad():
            for tensor in model.state_dict().values():
                if tensor.is_floating_point():
                    tensor.add_(torch.randn_like(tensor))
        average.update(model, step)
    pairs = zip(average.model.state_dict().values(), model.state_dict().values(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs) == (decay == 0)
    assert not average.model.training


@pytest.mark.parametrize("ema", [True, False])
def test_a_run_says_which_weights_it_validated_and_kept(
    ema: bool, small: Callable, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = []
    run_epoch = _Loop.run_epoch

    def keep(self: _Loop, index: int, epoch: int) -> object:
        found = run_epoch(self, index, epoch)
        models.append({name: tensor.clone() for name, tensor in self.run.model.state_dict().items()})
        return found

    monkeypatch.setattr(_Loop, "run_epoch", keep)
    outcome = train_model(small(picture_folder, tmp_path / "run", ema=ema, keep="last"))
    kept = load_file(outcome.checkpoint)
    weights = [name for name in kept if kept[name].is_floating_point()]  # not the counters of batches
    assert all(torch.equal(kept[name], models[-1][name]) for name in weights) == (not ema)
    name = "averaged" if ema else "raw"
    card = read_card(outcome.checkpoint)
    assert card.provenance["kept_weights"] == outcome.to_dict()["kept_weights"] == name
    assert (card.recipe["ema_decay"] == 0) == (not ema)
    words = "the averaged weights" if ema else "the weights themselves (no average)"
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"The checkpoint has {words} after the last epoch." in page
    assert "validated and kept" in page


def test_no_ema_is_one_option_and_a_setting_of_the_plan(zoo: Callable, in_folder: Path) -> None:
    plan = json.loads(zoo("train", "tiny", "--no-ema", "--plan", "--json").out)
    assert plan["settings"]["ema_decay"] == 0
    both = json.loads(zoo("train", "tiny", "--no-ema", "--set", "ema_decay=0.5", "--plan", "--json").out)
    assert both["settings"]["ema_decay"] == 0.5  # --set comes after the flags
    assert "ema_decay 0" in " ".join(zoo("train", "tiny", "--no-ema", "--plan").out.split())
