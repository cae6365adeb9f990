"""What a model is: rows, modules, weights, and how a picture becomes its input. Importing it loads no framework."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# The Python API: where `zoo.NAME` is, imported when it is first used. Being text, as the table of commands is, it
# points upwards without importing upwards. docs/python-api.md says what each does.
API = {
    "TrainOptions": "train.options",
    "plan_training": "train.progressive.plan",
    "train_model": "train.session",
    "ExportOptions": "export.options",
    "export_model": "export.pipeline",
    "inspect_artifact": "export.inspection.card",
    "require_signature": "export.signature",
    "load_model": "zoo.weights.resolve",
    "open_runner": "export.runners.open",
    "open_data": "export.evaluate",
    "evaluate": "export.evaluate",
    "predict": "export.predict",
}


def __getattr__(name: str) -> Any:
    """A name of the API.

    Raises:
        AttributeError: no such name.
        ImportError: a file of the user's, such as train.py, hides a package of ours.
    """
    if name not in API:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}; it has {', '.join(API)}")
    module = API[name]
    try:
        value = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        hiding = getattr(sys.modules.get(package), "__file__", None)
        if not (error.name or "").startswith(f"{package}.") or hiding is None:
            raise
        raise ImportError(f"zoo.{name} is in the package {package}, which {hiding} hides: rename that file.") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *API])
