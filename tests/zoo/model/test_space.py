"""Spaces of networks: every network they can draw is built, counted and run, and a wrong space says what is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.errors import RowError, ZooError
from zoo.model.blocks import blocks_of
from zoo.model.build import build_network
from zoo.model.counts import count_macs, count_params
from zoo.model.row_files import load_row, write_row
from zoo.model.space import Candidate, Space
from zoo.model.spaces import CONTROL, PAPER, REFERENCES, SMALL, SPACES, find_space, load_space, write_space
from zoo.model.spec import Variant
from zoo.model.variants import find_variant

CLASSES = 10


def single_choices(space: Space) -> list[Candidate]:
    """The smallest network of a space with each choice of each stage put in: all its blocks, in few networks."""
    least = [next(stage for stage in choices.choices() if stage is not None) for choices in space.stages]
    return [
        Candidate(stages=(*least[:place], choice, *least[place + 1 :]))
        for place, choices in enumerate(space.stages)
        for choice in choices.choices()
        if choice is None or choice.num_layers <= 2  # more layers are more of the same block
    ]


def macs_of(network: torch.nn.Module, image_size: int) -> int:
    """Multiply-adds of convolutions and linear layers in one forward pass, counted as it runs."""
    counted = []

    def of_conv(layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        counted.append(layer.weight[0].numel() * output[0].numel())  # type: ignore[union-attr]

    layers = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)]
    hooks = [layer.register_forward_hook(of_conv) for layer in layers]
    with torch.no_grad():
        logits = network(torch.zeros(1, 3, image_size, image_size))
    for hook in hooks:
        hook.remove()
    assert logits.shape == (1, CLASSES) and torch.isfinite(logits).all()
    return sum(counted)


def built_as_counted(variant: Variant) -> None:
    network = build_network(variant, CLASSES).eval()
    assert sum(weights.numel() for weights in network.parameters()) == count_params(variant, CLASSES)
    assert macs_of(network, 32) == count_macs(variant, 32, CLASSES)


def test_every_network_of_the_control_space_is_built_counted_and_run() -> None:
    candidates = list(CONTROL.candidates())
    assert len(candidates) == len({candidate.code for candidate in candidates}) == CONTROL.size == 24
    for candidate in candidates:
        built_as_counted(CONTROL.variant(candidate))


def test_every_choice_of_every_stage_of_the_small_space_is_built_counted_and_run() -> None:
    for candidate in single_choices(SMALL):
        built_as_counted(SMALL.variant(candidate))


@pytest.mark.parametrize("space", [PAPER, SMALL], ids=lambda space: space.id)
def test_networks_drawn_from_a_space_are_built_counted_and_run(space: Space) -> None:
    rng = np.random.default_rng(0)
    for _ in range(6):
        built_as_counted(space.variant(space.draw(rng)))


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.id)
def test_all_that_is_drawn_is_in_the_space_and_its_blocks_are_among_the_spaces(space: Space) -> None:
    rng = np.random.default_rng(1)
    blocks = set(space.blocks())
    assert len(blocks) == len(space.blocks())
    for _ in range(100):
        candidate = space.draw(rng)
        assert space.holds(candidate)
        variant = space.variant(candidate)
        assert set(blocks_of(variant, space.image_size)) <= blocks
        assert len(blocks_of(variant)) == 2 + sum(stage.num_layers for stage in variant.stages)


def test_every_block_of_the_control_space_is_in_one_of_its_networks() -> None:
    used = {block for one in CONTROL.candidates() for block in blocks_of(CONTROL.variant(one), CONTROL.image_size)}
    assert used == set(CONTROL.blocks())


def test_every_choice_is_drawn() -> None:
    rng = np.random.default_rng(2)
    assert {CONTROL.draw(rng).code for _ in range(400)} == {candidate.code for candidate in CONTROL.candidates()}


def test_published_tables_are_candidates_and_the_backbone_is_exactly_in_the_papers_space() -> None:
    for id in REFERENCES:
        for space in (PAPER, SMALL):
            assert space.holds(space.candidate_of(find_variant(id)))
    backbone, found = find_variant("v1-b0"), PAPER.variant(PAPER.candidate_of(find_variant("v1-b0")))
    assert found.stages == backbone.stages
    assert count_params(found) == count_params(backbone)
    own, kept = find_variant("b0"), PAPER.candidate_of(find_variant("b0"))
    assert [stage.num_layers for stage in kept.stages if stage] == [stage.num_layers for stage in own.stages]
    assert kept.stages[6] is None


def test_a_table_that_does_not_fit_says_why() -> None:
    with pytest.raises(ZooError, match="resnet50 is not in the space paper: A stage of bottleneck"):
        PAPER.candidate_of(find_variant("resnet50"))
    longer = replace(PAPER, stages=(*PAPER.stages, replace(PAPER.stages[-1], num_layers=(1,))))
    with pytest.raises(ZooError, match="may not vanish"):
        longer.candidate_of(find_variant("s"))
    with pytest.raises(ZooError, match="is not in the space control"):
        CONTROL.variant(SMALL.draw(np.random.default_rng(0)))


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.id)
def test_a_space_survives_its_file(space: Space, tmp_path: Path) -> None:
    write_space(tmp_path / "my.toml", space)
    assert load_space(tmp_path / "my.toml") == find_space(str(tmp_path / "my.toml")) == space
    with pytest.raises(ZooError, match="there already"):
        write_space(tmp_path / "my.toml", space)


def test_a_found_networks_row_survives_its_file(tmp_path: Path) -> None:
    found = SMALL.variant(SMALL.draw(np.random.default_rng(3)))
    write_row(tmp_path / "winner.toml", found, "")
    assert load_row(tmp_path / "winner.toml") == found


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("num_layers = [1]", "num_layers = [0, 1]", "Every stage may vanish"),
        ("num_layers = [1]", "num_layers = []", "num_layers is empty"),
        ("num_layers = [1]", "num_layers = [1, 1]", "a choice twice: 1, 1"),
        ('operators = ["mbconv"', 'operators = ["bottleneck"', "mbconv or fused_mbconv"),
        ("stride = 2", "stride = 3", "expected one of 1, 2"),
        ("stem_channels = 8", "stem_chanels = 8", "Did you mean stem_channels"),
        ("step_time = -0.07", "step_time = 0.07", "reward.step_time is 0.07"),
        ('id = "control"', "id = control", "not TOML"),
    ],
)
def test_a_wrong_space_says_what_is_wrong(old: str, new: str, said: str, tmp_path: Path) -> None:
    write_space(tmp_path / "my.toml", CONTROL)
    text = (tmp_path / "my.toml").read_text()
    assert old in text
    (tmp_path / "my.toml").write_text(text.replace(old, new))
    with pytest.raises(ZooError, match=said):
        load_space(tmp_path / "my.toml")


def test_a_space_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="no space file"):
        load_space(tmp_path / "none.toml")
    with pytest.raises(ZooError, match="Did you mean paper"):
        find_space("papr")


def test_name_source_and_reward_do_not_make_another_space() -> None:
    assert replace(SMALL, id="mine", source="mine").sha256 == SMALL.sha256 != PAPER.sha256
    assert replace(SMALL, reward=replace(SMALL.reward, params=0)).sha256 == SMALL.sha256
    assert replace(SMALL, image_size=48).sha256 != SMALL.sha256


def test_a_space_with_nothing_in_it_is_refused() -> None:
    with pytest.raises(RowError, match="nothing in it"):
        replace(CONTROL, stages=tuple(replace(stage, num_layers=(0,)) for stage in CONTROL.stages))
    with pytest.raises(RowError, match="stages is empty"):
        replace(CONTROL, stages=())


def test_a_row_holds_only_what_its_fields_can() -> None:
    with pytest.raises(RowError):
        replace(CONTROL, image_size=4)
