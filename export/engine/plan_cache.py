"""Owns the plans that earlier exports built, so that the same one is not built twice; it builds none.

    ZOO_CACHE/plans/KEY/card.json      the plan's SHA-256 and `BuildCard`
                        plan
                        log

KEY is the SHA-256 of everything that makes a plan what it is. Two builds differ byte for byte, so the bytes are no key.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp

from export.engine.builders import BuildCard, EngineSettings
from export.engine.tensorrt_api import TensorRT
from zoo.errors import RowError
from zoo.files import json_text, sha256_of
from zoo.machine import Gpu
from zoo.weights.cache import cache_folder

# Counted up when `export.engine.native` makes another plan of the same settings.
RECIPE = 1
# What the cache may hold: dozens of plans of S in fp16 (45 MB). Those used longest ago go first.
LARGEST_CACHE_BYTES = 4 * 2**30
CARD, PLAN, LOG = "card.json", "plan", "log"


def plan_key(
    graph: bytes | Path, settings: EngineSettings, tensorrt: TensorRT, *, targets: Sequence[str], gpu: Gpu | None
) -> str:
    """What a plan's kernels depend on, as a name: graph, settings, builder and its version, and for which GPUs.

    Args:
        graph: the ONNX file's bytes, weights included; or the file, which has the hash of weights that it lacks.
        settings: what the engine is to be.
        tensorrt: who builds.
        targets: compute capabilities of an ahead-of-time builder, resolved.
        gpu: the GPU that it is built on, None where it is built without.
    """
    fields = {
        "recipe": RECIPE,
        "onnx": sha256_of(graph) if isinstance(graph, Path) else hashlib.sha256(graph).hexdigest(),
        "settings": settings.to_dict() | {"targets": list(targets)},
        "builder": tensorrt.builder.id,
        "version": tensorrt.version,
        "gpu": gpu.to_dict() if gpu else None,
    }
    return hashlib.sha256(json_text(fields, indent=None).encode()).hexdigest()


def find_plan(key: str) -> tuple[bytes, BuildCard, str] | None:
    """A plan that was built before, its card and the builder's messages; None where there is none.

    One that is not the file its card describes is removed: a plan is executable content.
    """
    folder = _folder() / key
    try:
        fields = json.loads((folder / CARD).read_text(encoding="utf-8"))
        plan, said = (folder / PLAN).read_bytes(), (folder / LOG).read_text(encoding="utf-8")
        if fields["sha256"] == hashlib.sha256(plan).hexdigest():
            card = BuildCard.from_dict(fields["card"])
            os.utime(folder)  # used last
            return plan, card, said
    except (OSError, ValueError, KeyError, TypeError, RowError):
        pass  # not there, or damaged: it is built again
    shutil.rmtree(folder, ignore_errors=True)
    return None


def keep_plan(key: str, plan: bytes, card: BuildCard, said: str) -> str | None:
    """Keep a plan for later exports, whole or not at all; return why it could not be kept.

    A full disk or a home that is read-only is no reason to lose a plan that took minutes.
    """
    folder = _folder()
    made = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        made = Path(mkdtemp(prefix=".new-", dir=folder))
        (made / PLAN).write_bytes(plan)
        (made / LOG).write_text(said, encoding="utf-8", errors="backslashreplace")
        fields = {"sha256": sha256_of(made / PLAN), "card": card.to_dict()}
        (made / CARD).write_text(json_text(fields), encoding="utf-8")
        if not (folder / key).exists():  # another export may have been as fast
            made.rename(folder / key)
        _drop_oldest(folder)
    except OSError as error:
        return f"The plan was not kept for later exports in {folder.name}: {error.strerror}."
    finally:
        if made:
            shutil.rmtree(made, ignore_errors=True)
    return None


def _drop_oldest(folder: Path) -> None:
    kept = sorted((entry for entry in folder.iterdir() if not entry.name.startswith(".")), key=_used, reverse=True)
    total = 0
    for entry in kept:
        total += sum(file.stat().st_size for file in entry.iterdir())
        if total > LARGEST_CACHE_BYTES and entry != kept[0]:
            shutil.rmtree(entry, ignore_errors=True)


def _used(entry: Path) -> float:
    return entry.stat().st_mtime


def _folder() -> Path:
    return cache_folder() / "plans"
