"""Owns what a folder of models holds: names, versions, files, settings; it opens no artifact.

The layout is Triton's, which `zoo export --triton` writes: DIR/NAME/config.pbtxt, DIR/NAME/1/model.onnx.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from export.triton.config import MODEL_FILES
from export.triton.repository import CONFIG
from serve.core.failures import UnknownModelError
from serve.models.models import NAMES
from serve.rpc.schema import message_class
from zoo.errors import ArtifactError, ZooError

_ANEW = "An export writes it anew where there is none."


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A model as its folder describes it.

    `artifacts` leads from every version to its file, the oldest first; `served` are those that `config.pbtxt` asks
    for, the newest one unless it says otherwise. None: it says nothing.
    """

    name: str
    artifacts: dict[str, Path]
    served: tuple[str, ...]
    max_batch_size: int | None = None
    instances: int | None = None
    max_queue_delay_ms: float | None = None


def find_names(root: Path) -> list[str]:
    """The models of a folder, by name: every folder in it whose name is one of a model.

    Raises:
        ZooError: it is no folder.
    """
    try:
        return sorted(path.name for path in root.iterdir() if path.is_dir() and NAMES.fullmatch(path.name))
    except OSError as error:
        raise ZooError(
            f"{root} cannot be read: {error.strerror}.", "`zoo export MODEL --triton DIR` makes it."
        ) from error


def read_folder(root: Path, name: str) -> ModelFolder:
    """What a model's folder holds now.

    Raises:
        UnknownModelError: no such model, or a name that is none. ArtifactError: no version in it, or a bad config.
    """
    if not NAMES.fullmatch(name) or not (root / name).is_dir():
        raise UnknownModelError(
            f"There is no model {name[:80]!r} in the repository.", "`/v2/repository/index` lists all."
        )
    artifacts = {}
    for path in (root / name).iterdir():
        if path.name.isascii() and path.name.isdigit() and not path.name.startswith("0"):
            files = [path / file for file in MODEL_FILES.values() if (path / file).is_file()]
            if files:
                artifacts[path.name] = files[0]
    if not artifacts:
        raise ArtifactError(
            f"The model {name} has no version: no folder 1, 2, … with {' or '.join(MODEL_FILES.values())} in it.",
            "`zoo export MODEL --triton DIR` adds one.",
        )
    artifacts = dict(sorted(artifacts.items(), key=lambda item: int(item[0])))
    config = _config_of(root / name / CONFIG)
    groups, batching = config.instance_group, config.dynamic_batching
    return ModelFolder(
        name=name,
        artifacts=artifacts,
        served=_wanted(config.version_policy, list(artifacts), name),
        max_batch_size=config.max_batch_size or None,
        instances=(groups[0].count or None) if groups else None,
        max_queue_delay_ms=batching.max_queue_delay_microseconds / 1000.0 if batching.ListFields() else None,
    )


def read_config(text: str, name: str) -> Any:
    """A config.pbtxt as a message; fields that this server does not know are passed over.

    Raises:
        ArtifactError: it is no text of protobuf.
    """
    config = message_class("ModelConfig")()
    try:
        text_format.Parse(text, config, allow_unknown_field=True)
    except (text_format.ParseError, RecursionError) as error:
        raise ArtifactError(f"{name} cannot be read: {error}", _ANEW) from error
    return config


def _config_of(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", _ANEW) from error
    return read_config(text, str(path))


def _wanted(policy: Any, versions: list[str], name: str) -> tuple[str, ...]:
    """The versions that a version_policy asks for; Triton's default is the newest one."""
    chosen = policy.WhichOneof("policy_choice")
    if chosen == "all":
        return tuple(versions)
    if chosen == "specific":
        asked = tuple(map(str, policy.specific.versions))
        if missing := [version for version in asked if version not in versions]:
            raise ArtifactError(
                f"The version_policy of {name} asks for version {missing[0]}, which is not there.",
                f"There are {', '.join(versions)}.",
            )
        return asked
    return tuple(versions[-max(1, policy.latest.num_versions) :])
