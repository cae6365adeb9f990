"""Owns the paces measured on this machine before, so that a plan need not measure again; it measures none."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path

from train.options import TrainOptions
from train.progressive.budget import Pace
from train.progressive.plan import Plan
from zoo.errors import ZooError
from zoo.files import write_json
from zoo.machine import cuda_driver, usable_processors
from zoo.weights.cache import cache_folder

FILE = "training-pace.json"
# The oldest are forgotten.
MOST_KNOWN = 200


def pace_key(plan: Plan, options: TrainOptions) -> str:
    """What a pace depends on, as a hash: the machine, the network, the pictures, and how they are trained on."""
    driver, stage = cuda_driver(), plan.recipe.stages[-1]
    told = {
        "machine": [platform.node(), usable_processors(), [gpu.name for gpu in driver.gpus] if driver else []],
        "torch": version("torch"),
        "network": plan.variant.to_dict(),
        "data": options.data if options.data == "digits" else str(Path(options.data).resolve()),
        "pictures": plan.amount.to_dict(),
        "sizes": [plan.recipe.largest_size, plan.recipe.test_size, stage.batch_size, stage.randaugment_magnitude],
        "optimizer": plan.recipe.optimizer,
        "options": [options.device, options.precision, options.workers, options.augment_on],
        "checkpointed": options.checkpoint_activations,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def known_pace(key: str) -> Pace | None:
    """The pace that was measured under this key, if any."""
    try:
        return Pace.from_dict(_read()[key])
    except (KeyError, ZooError):
        return None


def remember_pace(key: str, pace: Pace) -> None:
    """Keep a pace; a cache that cannot be written keeps none."""
    entries = {name: entry for name, entry in _read().items() if name != key}
    kept = dict(list(entries.items())[-MOST_KNOWN + 1 :])
    try:
        write_json(cache_folder() / FILE, kept | {key: pace.to_dict()})
    except ZooError:
        return


def _read() -> dict[str, dict[str, float]]:
    try:
        found = json.loads((cache_folder() / FILE).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
