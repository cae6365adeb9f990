"""The programs of `zoo inspect --snippet`, run as a reader would: in a process of their own, without this project."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from export.contract import Contract, Form
from export.engine.builders import CLASSIC, RTX, BatchProfile, BuildCard
from export.graph import export_onnx
from export.inspection.snippet import cpp_snippet, python_snippet
from export.options import ExportOptions
from export.passport import FileCard, read_passport, write_passport
from export.pipeline import export_model
from zoo.errors import ZooError
from zoo.model.build import build_network
from zoo.model.spec import Preprocessing
from zoo.model.variants import find_variant

Zoo = Callable[..., Any]
BUILT = BuildCard(
    name=RTX.id,
    version="1.7",
    targets=("8.6",),
    profile=BatchProfile(min=2, opt=2, max=3),
    gpu=None,
    build_s=1.5,
    warnings=(),
)
# Where the headers of ONNX Runtime are, such as of Debian's libonnxruntime-dev; the library is the wheel's own.
HEADERS = [os.environ.get("ONNXRUNTIME_INCLUDE", ""), "/usr/include/onnxruntime", "/usr/local/include/onnxruntime"]


@pytest.fixture
def pictures(in_folder: Path) -> list[str]:
    """A grey-level picture, a wide one, a small one, one that is partly transparent, and one lying on its side."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (50, 40), np.uint8)).save("grey.png")
    Image.fromarray(rng.integers(0, 256, (61, 143, 3), np.uint8)).save("wide.png")
    Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8)).save("small.png")
    Image.fromarray(rng.integers(0, 256, (50, 60, 4), np.uint8)).save("clear.png")
    lying = Image.fromarray(rng.integers(0, 256, (30, 80, 3), np.uint8))
    exif = lying.getexif()
    exif[0x0112] = 6
    lying.save("lying.jpg", exif=exif)
    return ["grey.png", "wide.png", "small.png", "clear.png", "lying.jpg"]


def run_snippet(text: str, *pictures: str, path: Path | None = None) -> list[list[str]]:
    """What the program prints, in a process in which this project cannot be imported."""
    Path("snippet.py").write_text(text, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PYTHONPATH": str(path)} if path else {}
    command = [sys.executable, "-P", "snippet.py", *pictures]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


def predicted(zoo: Zoo, artifact: str, *pictures: str) -> list[list[str]]:
    """What `zoo predict` says, as a snippet prints it."""
    rows = map(json.loads, zoo("predict", artifact, *pictures, "--json").out.splitlines())
    return [[row["picture"], each["class"], f"{each['score']:.6f}"] for row in rows for each in row["predictions"]]


def assert_alike(found: list[list[str]], wanted: list[list[str]], *, tolerance: float) -> None:
    assert [row[:-1] for row in found] == [row[:-1] for row in wanted]
    assert [float(row[-1]) for row in found] == pytest.approx([float(row[-1]) for row in wanted], abs=tolerance)


@pytest.mark.parametrize("form", [{}, {"input": "float", "softmax": True}], ids=["usual", "float"])
def test_the_python_program_of_a_graph_answers_as_predict_does(
    form: dict[str, Any], tiny_checkpoint: Path, pictures: list[str], zoo: Zoo
) -> None:
    export_model(ExportOptions(model=str(tiny_checkpoint), parity=False, **form))
    text = zoo("inspect", "tiny.onnx", "--snippet", "python").out
    assert not re.search(r"^\s*(import|from) (zoo|export)", text, re.MULTILINE)
    found = run_snippet(text, *pictures)
    assert len(found) == 5 * len(pictures)
    assert_alike(found, predicted(zoo, "tiny.onnx", *pictures), tolerance=2e-6)


def test_the_python_program_crops_and_names_labels_as_predict_does(
    shapes_run: Path, pictures: list[str], zoo: Zoo
) -> None:
    """Several labels a picture, and a contract that crops, which a graph carries in its metadata."""
    import onnx

    export_model(ExportOptions(model=str(shapes_run), parity=False))
    graph = onnx.load("tiny.onnx")
    (entry,) = (each for each in graph.metadata_props if each.key == "zoo")
    fields = json.loads(entry.value)
    size = fields["contract"]["preprocessing"]["image_size"]
    fields["contract"]["preprocessing"] |= {"resize": "crop", "resize_size": size + 5, "interpolation": "bicubic"}
    fields["contract"]["thresholds"] = [0.05, 0.1, 0.02]
    entry.value = json.dumps(fields)
    onnx.save(graph, "tiny.onnx")
    found = run_snippet(zoo("inspect", "tiny.onnx", "--snippet", "python").out, *pictures)
    assert found
    assert_alike(found, predicted(zoo, "tiny.onnx", *pictures), tolerance=2e-6)


@pytest.mark.parametrize("channels", [1, 4])
def test_the_python_program_opens_grey_and_four_planes_as_predict_does(
    channels: int, pictures: list[str], zoo: Zoo
) -> None:
    variant = find_variant("tiny").with_channels(channels)
    preprocessing = variant.preprocessing.at(32)
    contract = Contract(model="tiny", classes=("a", "b", "c"), preprocessing=preprocessing)
    torch.manual_seed(0)
    graph = export_onnx(build_network(variant, 3), contract, checkpoint={})
    Path("tiny.onnx").write_bytes(graph.SerializeToString())
    those = pictures if channels == 1 else ["clear.png"]
    found = run_snippet(zoo("inspect", "tiny.onnx", "--snippet", "python").out, *those)
    assert len(found) == 3 * len(those)
    assert_alike(found, predicted(zoo, "tiny.onnx", *those), tolerance=2e-6)


# A device that is the host: the program of a plan runs on it, and ONNX Runtime computes what the engine would.
FAKE_TENSORRT = """
import ctypes, numpy as np, onnxruntime
session = onnxruntime.InferenceSession("tiny.onnx", providers=["CPUExecutionProvider"])
class Logger:
    WARNING = 2
    def __init__(self, level): assert level == 2
class Context:
    def __init__(self): self.places = {}
    def set_input_shape(self, name, shape):
        assert 2 <= shape[0] <= 3
        self.name, self.shape = name, shape
        return True
    def set_tensor_address(self, name, place): self.places[name] = place; return True
    def execute_async_v3(self, stream):
        assert stream == 7
        kind = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}[session.get_inputs()[0].type]
        batch = np.empty(self.shape, kind)
        ctypes.memmove(batch.ctypes.data, self.places[self.name], batch.nbytes)
        for value, array in zip(session.get_outputs(), session.run(None, {self.name: batch})):
            ctypes.memmove(self.places[value.name], array.ctypes.data, array.nbytes)
        return True
class Engine:
    def create_execution_context(self): return Context()
class Runtime:
    def __init__(self, logger): pass
    def deserialize_cuda_engine(self, data): return Engine() if data == b"engine" else None
"""
FAKE_CUDA = """
import ctypes
class cudaError_t: cudaSuccess = 0
class cudaMemcpyKind: cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost = 1, 2
memory = {}
def cudaMalloc(count):
    buffer = ctypes.create_string_buffer(count)
    memory[ctypes.addressof(buffer)] = buffer
    return 0, ctypes.addressof(buffer)
def cudaFree(place): del memory[place]; return (0,)
def cudaStreamCreate(): return 0, 7
def cudaStreamSynchronize(stream): return (0,)
def cudaMemcpyAsync(to, source, count, kind, stream): ctypes.memmove(to, source, count); return (0,)
def cudaGetErrorString(code): return 0, b"broken"
"""


@pytest.mark.parametrize("form", [{}, {"input": "float", "softmax": True, "topk": 2}], ids=["usual", "all"])
def test_the_python_program_of_a_plan_answers_as_the_graph_does(
    form: dict[str, Any], tiny_checkpoint: Path, pictures: list[str], in_folder: Path, zoo: Zoo
) -> None:
    """Five pictures are a full batch and one that is padded."""
    made = export_model(ExportOptions(model=str(tiny_checkpoint), parity=False, **form))
    Path("tiny.plan").write_bytes(b"engine")
    passport = read_passport(made.onnx)
    files = replace(passport.files, plan=FileCard.of(Path("tiny.plan"), "fp32"))
    write_passport(made.passport_file, replace(passport, files=files, builder=BUILT))
    fakes = in_folder / "fakes"
    (fakes / "cuda" / "bindings").mkdir(parents=True)
    (fakes / "tensorrt_rtx.py").write_text(FAKE_TENSORRT)
    for name, text in (("__init__", ""), ("bindings/__init__", ""), ("bindings/runtime", FAKE_CUDA)):
        (fakes / "cuda" / f"{name}.py").write_text(text)
    found = run_snippet(zoo("inspect", "tiny.plan", "--snippet", "python").out, *pictures, path=fakes)
    assert_alike(found, predicted(zoo, "tiny.onnx", *pictures), tolerance=2e-6)


@pytest.mark.skipif(not find_spec("tensorrt_rtx") or not find_spec("cuda"), reason="no TensorRT-RTX or cuda-bindings")
def test_real_bindings_have_everything_the_program_calls() -> None:
    import tensorrt_rtx as trt
    from cuda.bindings import runtime

    text = python_snippet("s.plan", contract_of(Form()), sha256="0" * 64, built=BUILT)
    for name in re.findall(r"\bcuda\.(\w+)", text):
        assert name == "bindings" or hasattr(runtime, name), name
    for name in re.findall(r"\btrt\.(\w+)", text):
        assert hasattr(trt, name), name
    for name in re.findall(r"\bcontext\.(\w+)", text):
        assert hasattr(trt.IExecutionContext, name), name


def test_what_a_passport_says_cannot_become_a_program() -> None:
    """A stranger's passport names any version, and a stranger's file is called anything."""
    evil = '1") + __import__("os").system("true") + ("{0}\n"""\n*/'
    built = replace(BUILT, version=evil, targets=(evil,))
    contract = contract_of(Form())
    python = python_snippet(f"{evil}.plan", contract, sha256="0" * 64, built=built)
    tree = ast.parse(python)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "__import__"]
    cpp = cpp_snippet(f"{evil}.plan", contract, sha256="0" * 64, built=built)
    assert "__import__" not in re.sub(r'"(\\.|[^"\\])*"|//[^\n]*', "", cpp), "only within texts and comments"


def test_a_checkpoint_has_no_program(tiny_checkpoint: Path, zoo: Zoo) -> None:
    answer = zoo("inspect", tiny_checkpoint, "--snippet", "python")
    assert answer.code == 1 and "needs this project" in answer.err and answer.out == ""
    answer = zoo("inspect", tiny_checkpoint, "--snippet", "python", "--json")
    assert answer.code == 2 and "--json has no effect with --snippet" in answer.err


# C++.


def contract_of(form: Form, *, labels: bool = False, crop: bool = False) -> Contract:
    resize: dict[str, Any] = {"resize": "crop", "resize_size": 40, "interpolation": "bicubic"} if crop else {}
    return Contract(
        model="s",
        classes=('cat "Tom"', "Hündin", "back\\slash"),
        preprocessing=Preprocessing(image_size=32, mean=(1.5, 2.0, 3.0), std=(4.0, 5.0, 6.0), **resize),
        thresholds=(0.5, 0.25, 0.125) if labels else None,
        form=form,
    )


GREY = Preprocessing(image_size=32, mean=(1.5,), std=(4.0,), color_order="grey")
EVERY_CONTRACT = {
    "grey": replace(contract_of(Form(input="float")), preprocessing=GREY),
    "usual": contract_of(Form()),
    "all": contract_of(Form(input="float", output="probabilities", topk=2), crop=True),
    "labels": contract_of(Form(), labels=True),
    "shares": contract_of(Form(output="probabilities"), labels=True, crop=True),
}
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
# What the program uses of ONNX Runtime's C++ API 1.21, for machines without its headers.
ONNXRUNTIME_STUB = """
#include <cstddef>
#include <cstdint>
#include <vector>
#define ORT_TSTR(x) x
enum OrtLoggingLevel { ORT_LOGGING_LEVEL_WARNING };
enum OrtAllocatorType { OrtArenaAllocator };
enum OrtMemType { OrtMemTypeDefault };
namespace Ort {
struct Env { Env(OrtLoggingLevel, const char*); };
struct SessionOptions {};
struct RunOptions { RunOptions(std::nullptr_t); };
struct MemoryInfo { static MemoryInfo CreateCpu(OrtAllocatorType, OrtMemType); };
struct Value {
    template <typename T>
    static Value CreateTensor(const MemoryInfo&, T*, std::size_t, const std::int64_t*, std::size_t);
    template <typename T> const T* GetTensorData() const;
};
struct Session {
    Session(const Env&, const char*, const SessionOptions&);
    std::vector<Value> Run(
        const RunOptions&, const char* const*, const Value*, std::size_t, const char* const*, std::size_t);
};
}
"""
# And of TensorRT 10's NvInfer.h, which no package index has.
TENSORRT_STUB = """
#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>
namespace nvinfer1 {
struct Dims { std::int32_t nbDims; std::int64_t d[8]; };
struct Dims4 : Dims { Dims4(std::int64_t, std::int64_t, std::int64_t, std::int64_t); };
class ILogger {
public:
    enum class Severity : std::int32_t { kINTERNAL_ERROR, kERROR, kWARNING, kINFO, kVERBOSE };
    virtual void log(Severity severity, char const* msg) noexcept = 0;
    virtual ~ILogger() = default;
};
struct IExecutionContext {
    virtual ~IExecutionContext();
    bool setInputShape(char const*, Dims const&) noexcept;
    bool setTensorAddress(char const*, void*) noexcept;
    bool enqueueV3(cudaStream_t) noexcept;
};
struct ICudaEngine { virtual ~ICudaEngine(); IExecutionContext* createExecutionContext() noexcept; };
struct IRuntime { virtual ~IRuntime(); ICudaEngine* deserializeCudaEngine(void const*, std::size_t) noexcept; };
IRuntime* createInferRuntime(ILogger&) noexcept;
}
"""


def compiles(text: str, *includes: Path | str) -> None:
    Path("snippet.cpp").write_text(text, encoding="utf-8")
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", *(f"-I{each}" for each in includes)]
    done = subprocess.run(["g++", *flags, "snippet.cpp"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_compiler
@pytest.mark.parametrize("name", EVERY_CONTRACT)
def test_the_cpp_program_of_a_graph_compiles(name: str, in_folder: Path) -> None:
    Path("onnxruntime_cxx_api.h").write_text(ONNXRUNTIME_STUB)
    compiles(cpp_snippet("s.onnx", EVERY_CONTRACT[name]), in_folder)


def test_four_planes_have_no_program_in_cpp() -> None:
    contract = contract_of(Form())
    four = replace(contract, preprocessing=contract.preprocessing.with_channels(4))
    with pytest.raises(ZooError, match=r"takes 4 planes \(.*\); the program in C\+\+ reads PPM or PGM"):
        cpp_snippet("s.onnx", four)


@needs_compiler
@pytest.mark.parametrize("builder", [RTX, CLASSIC], ids=lambda row: row.id)
@pytest.mark.parametrize("name", ["usual", "all"])
def test_the_cpp_program_of_a_plan_compiles(name: str, builder: Any, in_folder: Path) -> None:
    """With CUDA's own headers and declarations of TensorRT's."""
    headers = _cuda_headers()
    if headers is None:
        pytest.skip("no CUDA headers")
    Path("NvInfer.h").write_text(TENSORRT_STUB)
    text = cpp_snippet("s.plan", EVERY_CONTRACT[name], sha256="0" * 64, built=replace(BUILT, name=builder.id))
    compiles(text, in_folder, headers)
    assert ("-lnvinfer" in text) == (builder is CLASSIC)


def _cuda_headers() -> Path | None:
    """Those of a wheel: of CUDA's own, or of Triton, PyTorch's compiler."""
    found = Path(sys.prefix).glob("lib/python*/site-packages/**/include/cuda_runtime_api.h")
    return next((path.parent for path in found if (path.parent / "crt" / "host_defines.h").is_file()), None)


@needs_compiler
def test_the_cpp_program_of_a_graph_answers_as_predict_does(
    tiny_checkpoint: Path, pictures: list[str], in_folder: Path, zoo: Zoo
) -> None:
    """With ONNX Runtime's own headers where they are, and the library of its wheel."""
    import onnxruntime

    headers = next((path for path in HEADERS if path and Path(path, "onnxruntime_cxx_api.h").is_file()), None)
    library = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"), None)
    if headers is None or library is None:
        pytest.skip("ONNX Runtime's C++ headers are not here: set ONNXRUNTIME_INCLUDE")
    export_model(ExportOptions(model=str(tiny_checkpoint), parity=False))
    Path("snippet.cpp").write_text(zoo("inspect", "tiny.onnx", "--snippet", "cpp").out, encoding="utf-8")
    subprocess.run(["g++", "-std=c++17", "-O1", f"-I{headers}", "snippet.cpp", library, "-o", "classify"], check=True)
    Path("libonnxruntime.so.1").symlink_to(library)
    environment = os.environ | {"LD_LIBRARY_PATH": str(in_folder)}
    for picture in ("wide.png", "small.png"):
        Image.open(picture).save("picture.ppm")
        command = ["./classify", "picture.ppm"]
        said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        found = [[picture, *line.split("\t")] for line in said.splitlines()]
        assert_alike(found, predicted(zoo, "tiny.onnx", picture), tolerance=5e-3)
