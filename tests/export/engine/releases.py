"""Owns what the Python bindings of TensorRT's releases really are: reads it out of NVIDIA's own wheels, without a GPU.

    pip download --no-deps -d wheels tensorrt-cu12-bindings==10.0.1 tensorrt-cu12-bindings==10.9.0.34
    pip download --no-deps -d wheels tensorrt-cu13-bindings==10.16.1.11 …11.0.0.114 …11.4.0.106
    python tests/export/engine/releases.py wheels           # checks releases.json, runs the tests
    python tests/export/engine/releases.py wheels --write   # writes it

The wheels hold the bindings alone. They load TensorRT's libraries, of which they call eleven functions: a library that
has these, and does nothing, is enough to import them (it needs a C compiler). The tests then run with the real enums,
loggers and monitors of that release.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).with_suffix(".json")
CALLERS = ("export/engine", "export/runners/tensorrt.py", "export/refit.py")
# Of these classes it is recorded what our code names.
KINDS = (
    *(
        "Builder",
        "IBuilderConfig",
        "INetworkDefinition",
        "ITensor",
        "IOptimizationProfile",
        "OnnxParser",
        "ParserError",
    ),
    *(
        "ILogger",
        "IProgressMonitor",
        "IProfiler",
        "IHostMemory",
        "ITimingCache",
        "Runtime",
        "ICudaEngine",
        "IExecutionContext",
    ),
    *("Refitter", "OnnxParserRefitter", "ISerializationConfig", "Dims"),
    *("BuilderFlag", "NetworkDefinitionCreationFlag", "ProfilingVerbosity", "MemoryPoolType", "TensorIOMode"),
    *("HardwareCompatibilityLevel", "SerializationFlag", "DataType", "ComputeCapability"),
)
# What our classes override is called by TensorRT, and only by it.
OVERRIDDEN = ("log", "report_layer_time", "phase_start", "phase_finish", "step_complete", "__init__")
FUNCTIONS = (
    *("createInferBuilder_INTERNAL", "createInferRuntime_INTERNAL", "createInferRefitter_INTERNAL"),
    *("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getBuilderPluginRegistry"),
    *("getPluginRegistry", "initLibNvInferPlugins", "getLogger", "getNvOnnxParserVersion", "getInferLibVersion"),
)
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")


@cache
def names_in_our_code() -> frozenset[str]:
    """Every name behind a dot in the files that call TensorRT."""
    files = [file for caller in CALLERS for file in (sorted((ROOT / caller).glob("*.py")) or [ROOT / caller])]
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    return frozenset(node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute))


def read_release(module: Any) -> dict[str, Any]:
    """What our code may call of imported bindings: by class its methods, properties, and members of an enum."""
    wanted = names_in_our_code() | set(OVERRIDDEN)
    found = {}
    for kind in KINDS:
        cls = getattr(module, kind, None)
        if cls is None:  # only TensorRT-RTX has them all
            continue
        if members := getattr(cls, "__members__", None):
            found[kind] = {"members": {name: int(value) for name, value in members.items()}}
            continue
        members = {name: inspect.getattr_static(cls, name) for name in sorted(wanted) if hasattr(cls, name)}
        own = {name: member for name, member in members.items() if not _is_objects(cls, name)}
        found[kind] = {
            "methods": {name: _signatures(name, getattr(cls, name)) for name in own if name not in _properties(own)},
            "properties": _properties(own),
        }
    return found


def _properties(members: dict[str, Any]) -> list[str]:
    return [name for name, member in members.items() if isinstance(member, property)]


def _is_objects(cls: Any, name: str) -> bool:
    return name == "__init__" and "__init__(self" not in (cls.__init__.__doc__ or "")


def _signatures(name: str, method: Any) -> list[str]:
    """The parameters of every overload, without `self` and in the types' last names: "flag: BuilderFlag"."""
    lines = re.findall(rf"^(?:\d+\. )?{name}\((.*)\) -> ", method.__doc__ or "", re.MULTILINE)
    taken = [line for line in lines if line != "*args, **kwargs"]
    return [", ".join(map(_plain, list(_parameters(line))[1:])) for line in taken]


def _parameters(text: str) -> Iterator[str]:
    depth, part = 0, ""
    for letter in text:
        depth += (letter in "[(<{") - (letter in "])>}")
        if letter == "," and not depth:
            yield part.strip()
            part = ""
        else:
            part += letter
    if part.strip():
        yield part.strip()


def _plain(parameter: str) -> str:
    name, _, rest = parameter.partition(": ")
    kind, equals, _ = rest.partition(" = ")
    kind = re.sub(r"\w+\.", "", kind)
    kind = {"SupportsInt": "int", "Buffer": "bytes", "buffer": "bytes", "capsule": "int"}.get(kind, kind)
    return f"{name}: {kind}{' = …' if equals else ''}"


def release_of(version: str) -> str:
    """10.16.1.11 → 10.16."""
    return ".".join(version.split(".")[:2])


def make_importable(wheel: Path, folder: Path) -> dict[str, str]:
    """Unpack a wheel of bindings beside libraries that do nothing; the environment in which it can be imported."""
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    (major,) = re.findall(r"bindings-(\d+)\.", wheel.name)
    source = folder / "nothing.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS))
    for library in LIBRARIES:
        file = f"lib{library}.so.{major}"
        command = ["cc", "-shared", "-fPIC", str(source), f"-Wl,-soname,{file}", "-o", str(folder / file)]
        subprocess.run(command, check=True)
    paths = os.pathsep.join((str(folder), str(ROOT)))
    return os.environ | {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": paths}


def main(wheels: Path, write: bool) -> int:
    """Read, or check, every wheel of a folder, and TensorRT-RTX where it is installed; return the exit code."""
    found, failed = {}, []
    for wheel in sorted(wheels.glob("tensorrt_cu*_bindings-*.whl")):
        with tempfile.TemporaryDirectory() as made:
            environment = make_importable(wheel, Path(made))
            command = [sys.executable, __file__, "--read", "tensorrt_bindings"]
            read = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            version, api = json.loads(read)
            found[release_of(version)] = api
            if not write:
                tests = Path(__file__).with_name("test_every_release.py")
                command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--show-capture=no"]
                command += [str(tests)]
                environment |= {"ZOO_TENSORRT_RELEASE": release_of(version)}
                failed += (
                    [version] if subprocess.run(command, env=environment, check=False, cwd=ROOT).returncode else []
                )
    read = subprocess.run(
        [sys.executable, __file__, "--read", "tensorrt_rtx"], check=False, capture_output=True, text=True
    )
    if read.returncode == 0:
        version, api = json.loads(read.stdout)
        found[f"rtx-{release_of(version)}"] = api
    order = sorted(found, key=lambda name: (name.startswith("rtx"), *map(int, name.removeprefix("rtx-").split("."))))
    found = {name: found[name] for name in order}
    if write:
        GOLDEN.write_text(_a_line_a_class(found), encoding="utf-8")
    elif found != json.loads(GOLDEN.read_text(encoding="utf-8")):
        failed.append(GOLDEN.name)
    sys.stdout.write(f"{', '.join(found)}: {'failed: ' + ', '.join(failed) if failed else 'as recorded'}\n")
    return bool(failed)


def _a_line_a_class(found: dict[str, Any]) -> str:
    releases = []
    for release, api in found.items():
        lines = ",\n".join(f"  {json.dumps(kind)}: {json.dumps(members)}" for kind, members in api.items())
        releases.append(f" {json.dumps(release)}: {{\n{lines}\n }}")
    return "{\n" + ",\n".join(releases) + "\n}\n"


if __name__ == "__main__":
    if sys.argv[1] == "--read":
        bindings = importlib.import_module(sys.argv[2])
        sys.stdout.write(json.dumps([bindings.__version__, read_release(bindings)]))
    else:
        sys.exit(main(Path(sys.argv[1]), "--write" in sys.argv))
