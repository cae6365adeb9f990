"""Owns what is said of a MODEL or an ARTIFACT that is none: what it is instead, and where that goes; it opens nothing.

A wrong guess sends people the wrong way, so a name is only compared with ids where it could be one.
"""

from __future__ import annotations

from pathlib import Path

from zoo.errors import UnknownNameError, unknown_name
from zoo.model.variants import VARIANTS
from zoo.weights.table import WEIGHTS

MODEL = "a model is an id, a checkpoint, a run folder or a row file (.toml)"
LISTED = "a network of the zoo is expected, by its id or the id of published weights"
ARTIFACT = "an artifact is an .onnx, a .plan, a checkpoint, a run folder or a model's id"
EXPORTED_SUFFIXES = (".onnx", ".plan")
RUNS_ON_ARTIFACTS = "`zoo predict`, `zoo evaluate`, `zoo serve` and `zoo bench latency` take one."
PICTURES_COME_LAST = "Pictures come after it: `zoo predict ARTIFACT PICTURE…`, `zoo train MODEL --data FOLDER`."

# What a run has in its folder that is not finished, and what finishes it.
BEGUN = ("state.pt", "metrics.jsonl")
FINISH_IT = "wait for it, or go on with the command that began it and --resume."


def is_unfinished(folder: Path) -> bool:
    """Whether a folder has a run that goes on, or was interrupted."""
    return any((folder / name).is_file() for name in BEGUN) and not (folder / "checkpoint.safetensors").is_file()


def no_model(name: str, expected: str = MODEL) -> UnknownNameError:
    """Describe a name that stands for no model.

    Args:
        name: what was given; nothing that is what was expected.
        expected: what would have been one.
    """
    path = Path(name)
    if expected == LISTED and (path.suffix in (".safetensors", ".toml") or (path / "checkpoint.safetensors").is_file()):
        kind = "a row file" if path.suffix == ".toml" else "a checkpoint"
        return UnknownNameError(f"{name} is {kind}; {expected}.", "`zoo list` shows the ids.")
    told = _by_suffix(path)
    if told:
        there = "" if path.exists() else " (and there is no such file)"
        return UnknownNameError(f"{name} is {told[0]}{there}; {expected}.", told[1])
    if path.is_dir():
        return UnknownNameError(f"The folder {name} has no checkpoint.safetensors; {expected}.", _of_folder(path))
    made_by = "`zoo export MODEL` makes the first two, " if expected == ARTIFACT else ""
    hint = f"{made_by}`zoo list` shows the ids."
    if path.is_file():
        return UnknownNameError(f"{name} is a file of another kind; {expected}.", hint)
    head = name.partition(".")[0]
    if "." in name and any(head in (row.id, row.name) for row in VARIANTS):
        return _no_weights(name, head)
    if any(letter in name for letter in "./\\"):  # no id has one
        return UnknownNameError(f"There is no file or folder {name}; {expected}.", hint)
    return unknown_name("model", name, [row.id for row in VARIANTS], "`zoo list` shows all.")


def _by_suffix(path: Path) -> tuple[str, str] | None:
    """What a file is by its ending, and where it goes; None where the ending says nothing."""
    from zoo.data.arrays import SUFFIX as ARRAYS
    from zoo.data.decode import picture_suffixes
    from zoo.weights.formats.keras import KERAS_SUFFIXES
    from zoo.weights.formats.pytorch import PYTORCH_SUFFIXES

    suffix = path.suffix.lower()
    if suffix in EXPORTED_SUFFIXES:
        return "an exported artifact", f"{RUNS_ON_ARTIFACTS} Its checkpoint is what everything else takes."
    if path.name.lower().endswith((*PYTORCH_SUFFIXES, *KERAS_SUFFIXES)):
        return "another project's weights file", f"`zoo import MODEL {path} --from …` makes a checkpoint of it."
    if suffix in picture_suffixes():
        return "a picture", PICTURES_COME_LAST
    if suffix == ".json":
        return "a passport or a result", "Pass the .onnx, the .plan or the checkpoint that it is about."
    if suffix in (ARRAYS, ".tar"):
        return "data", "Data goes to --data."
    return None


def _of_folder(folder: Path) -> str:
    if is_unfinished(folder):
        return f"The run in it is not finished: {FINISH_IT}"
    runs = sorted(path.parent for path in folder.glob("*/checkpoint.safetensors"))
    if runs:
        return f"It holds runs; pass one of them: {', '.join(map(str, runs[:3]))}{', …' if len(runs) > 3 else ''}."
    return "Is it a folder of pictures? They go to --data, or after the artifact. `zoo list` shows the ids."


def _no_weights(name: str, head: str) -> UnknownNameError:
    variant = next(row.id for row in VARIANTS if head in (row.id, row.name))
    own = [row.id for row in WEIGHTS if row.variant == variant]
    if not own:
        problem = f"Unknown weights {name!r}: none of {variant} are published."
        return UnknownNameError(problem, f"`zoo train {variant}` makes some.")
    return unknown_name("weights", name, own, f"Of {variant} there are {', '.join(own)}.")
