from __future__ import annotations

import gc

from zoo.heap import OBJECTS_BEFORE_A_LOOK, look_for_cycles_less


def test_the_collector_looks_at_new_objects_less_often_and_at_old_ones_as_before() -> None:
    before = gc.get_threshold()
    try:
        look_for_cycles_less()
        assert gc.get_threshold() == (OBJECTS_BEFORE_A_LOOK, *before[1:])
    finally:
        gc.set_threshold(*before)
