from __future__ import annotations

import pytest

from zoo.model.counts import parts
from zoo.model.variants import VARIANTS
from zoo.wording import OPERATOR_COLOURS, OPERATOR_NAMES, times


@pytest.mark.parametrize(("ratio", "text"), [(1.04, "1.04×"), (1.8, "1.8×"), (12.4, "12×")])
def test_ratios_are_never_rounded_to_one(ratio: float, text: str) -> None:
    assert times(ratio) == text


def test_every_operator_of_every_network_has_a_name_and_a_colour() -> None:
    operators = {part.operator for variant in VARIANTS for part in parts(variant)}
    assert operators == set(OPERATOR_NAMES) == set(OPERATOR_COLOURS)
