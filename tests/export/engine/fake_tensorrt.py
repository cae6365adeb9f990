"""Owns a TensorRT without TensorRT: the recorded Python API of a release over a native layer that ONNX Runtime plays.

`fake_tensorrt(api)` is a module whose classes have exactly the methods, parameters, properties and enum members that
NVIDIA's bindings of that release have (`releases.py` read them out of its wheels); a call that those would not take is
an error here too. With the real bindings imported, enums and the classes that ours inherit from are theirs.

A plan is the ONNX graph with a header. So a build, a refit and an inference really change and compute answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, numpy_helper

INHERITED = ("ILogger", "IProgressMonitor")
HEADER = b"fake plan\n"


class CallError(AssertionError):
    """A call that the bindings of this release would not take."""


def fake_tensorrt(api: dict[str, Any], version: str, *, cuda: Any = None, real: Any = None) -> Any:
    """Make the module.

    Args:
        api: of one release, as `releases.read_release` reads it.
        version: what `__version__` says.
        cuda: the `FakeCuda` that engines run on; None where nothing runs.
        real: the imported bindings of this release, whose enums and base classes are then used.
    """
    module = SimpleNamespace(__version__=version, calls=[], state=SimpleNamespace(cuda=cuda, fails=False, said=[]))
    for kind, members in api.items():
        if real is not None and ("members" in members or kind in INHERITED):
            setattr(module, kind, getattr(real, kind))
        elif "members" in members:
            setattr(module, kind, _Member(kind, members["members"]))
        else:
            setattr(module, kind, _class(module, kind, members))
    module.nptype = lambda dtype: np.dtype(_NUMPY[dtype.name])
    return module


class _Member(Enum):
    """As in pybind11 an enum member is no number, but becomes one by `int`."""

    def __int__(self) -> int:
        return int(self.value)


_NUMPY = {"UINT8": "uint8", "FLOAT": "float32", "INT64": "int64", "HALF": "float16"}
_DTYPES = {"uint8": "UINT8", "float32": "FLOAT", "int64": "INT64", "float16": "HALF"}


def _class(module: Any, kind: str, members: dict[str, Any]) -> type:
    methods, properties = members["methods"], members["properties"]

    def setter(self: Any, name: str, value: Any) -> None:
        if name not in properties and not name.startswith("_"):
            raise CallError(f"{kind} has no {name} in TensorRT {module.__version__}")
        object.__setattr__(self, name, value)

    body: dict[str, Any] = {} if kind in INHERITED else {"__setattr__": setter}
    body |= {"__bytes__": lambda self: self._data} if kind == "IHostMemory" else {}
    for name, overloads in methods.items():
        if kind not in INHERITED:
            body[name] = _method(module, kind, name, overloads)
    if "__init__" not in methods and kind not in INHERITED:
        body["__init__"] = _no_constructor
    return type(kind, (), body)


def _no_constructor(self: Any) -> None:
    raise CallError(f"{type(self).__name__}: No constructor defined!")


def _new(module: Any, kind: str) -> Any:
    """An object as the native layer makes it."""
    cls = getattr(module, kind)
    return cls.__new__(cls)


def _method(module: Any, kind: str, name: str, overloads: list[str]) -> Callable[..., Any]:
    does = NATIVE.get((kind, name), lambda module, self, *values: None)

    def call(self: Any, *values: Any, **named: Any) -> Any:
        reasons = [why for text in overloads if (why := _misfit(text, values, named))]
        if overloads and len(reasons) == len(overloads):
            raise CallError(f"{kind}.{name} of TensorRT {module.__version__}: {'; '.join(reasons)}")
        module.calls.append(f"{kind}.{name}")
        return does(module, self, *values, **named)

    return call


def _misfit(signature: str, values: tuple[Any, ...], named: dict[str, Any]) -> str:
    """Why a call does not fit one overload; "" where it does."""
    parameters = [part.partition(": ")[::2] for part in signature.split(", ") if part]
    names = [name for name, _ in parameters]
    if len(values) > len(names) or set(named) - set(names):
        return f"takes ({signature})"
    given = dict(zip(names, values, strict=False)) | named
    for name, kind in parameters:
        if name not in given and not kind.endswith("…"):
            return f"{name} is missing"
        if name in given and not _fits(given[name], kind.removesuffix(" = …")):
            return f"{name} is {given[name]!r}, not {kind}"
    return ""


def _fits(value: Any, kind: str) -> bool:
    plain = {
        "int": int,
        "str": str,
        "bool": bool,
        "bytes": (bytes, bytearray, memoryview),
        "tuple": tuple,
        "list": list,
    }
    if kind in plain:
        return isinstance(value, plain[kind]) and (kind != "int" or not isinstance(value, bool))  # type: ignore[arg-type]
    if kind == "Dims":
        return isinstance(value, tuple)
    return kind in (each.__name__ for each in type(value).__mro__)


def _set(target: Any, **fields: Any) -> None:
    for name, value in fields.items():
        object.__setattr__(target, name, value)


def _host_memory(module: Any, data: bytes) -> Any:
    memory = _new(module, "IHostMemory")
    _set(memory, _data=data)
    return memory


# ---- building


def _create_network(module: Any, builder: Any, flags: int = 0) -> Any:
    network = _new(module, "INetworkDefinition")
    _set(network, _strongly_typed=bool(flags & 1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)))
    return network


def _parse(module: Any, parser: Any, model: bytes, path: str = "") -> bool:
    _set(parser, num_errors=0)
    try:
        graph = onnx.load_from_string(model)
    except DecodeError:
        _set(parser, num_errors=1)
        return False
    inputs = []
    for value in graph.graph.input:
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
        tensor = _new(module, "ITensor")
        shape = tuple(dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim)
        _set(tensor, name=value.name, shape=shape, dtype=getattr(module.DataType, _DTYPES[kind]))
        inputs.append(tensor)
    _set(parser._network, num_inputs=len(inputs), _inputs=inputs, _graph=model)
    return True


def _parser_error(module: Any, parser: Any, index: int) -> Any:
    error = _new(module, "ParserError")
    _set(error, _words=("node", "Failed to parse the ONNX model"))
    return error


def _create_config(module: Any, builder: Any) -> Any:
    config = _new(module, "IBuilderConfig")
    _set(config, _flags={int(module.BuilderFlag.TF32)}, _profiles=[], _pools={}, _targets={}, _timings=None)
    return config


def _add_profile(module: Any, config: Any, profile: Any) -> int:
    config._profiles.append(profile._shapes)
    return len(config._profiles) - 1


def _set_timing_cache(module: Any, config: Any, cache: Any, ignore_mismatch: bool) -> bool:
    if cache._timings is None:
        return False
    _set(config, _timings=cache)
    return True


def _create_timing_cache(module: Any, config: Any, serialized_timing_cache: bytes) -> Any:
    cache = _new(module, "ITimingCache")
    try:
        stored = json.loads(serialized_timing_cache or json.dumps({"version": module.__version__, "timings": []}))
        timings = stored["timings"] if stored["version"] == module.__version__ else None
    except ValueError:
        timings = None
    _set(cache, _timings=timings)
    return cache


def _combine(module: Any, cache: Any, input_cache: Any, ignore_mismatch: bool) -> bool:
    if input_cache._timings is None:
        return False
    cache._timings.extend(each for each in input_cache._timings if each not in cache._timings)
    return True


def _serialize_timings(module: Any, cache: Any) -> Any:
    stored = {"version": module.__version__, "timings": sorted(cache._timings)}
    return _host_memory(module, json.dumps(stored).encode())


def _build(module: Any, builder: Any, network: Any, config: Any) -> Any:
    graph = onnx.load_from_string(network._graph)
    monitor = getattr(config, "progress_monitor", None)
    convolutions = [node.name for node in graph.graph.node if node.op_type == "Conv"]
    if monitor:
        monitor.phase_start("Building Engine", None, len(convolutions))
    for step, name in enumerate(convolutions):
        if config._timings is not None and name not in config._timings._timings:
            config._timings._timings.append(name)
        if monitor and not monitor.step_complete("Building Engine", step):
            return None
    if monitor:
        monitor.phase_finish("Building Engine")
    if module.state.fails or not network._strongly_typed or not config._profiles:
        builder._logger.log(module.ILogger.Severity.ERROR if hasattr(module.ILogger, "Severity") else 1, "no tactic")
        return None
    flags = module.BuilderFlag
    fields = {
        "version": module.__version__,
        "profiles": config._profiles,
        "flags": sorted(config._flags),
        "pools": config._pools,
        "level": getattr(config, "builder_optimization_level", None),
        "compat": getattr(getattr(config, "hardware_compatibility_level", None), "name", None),
        "verbosity": config.profiling_verbosity.name,
        "stripped": int(flags.STRIP_PLAN) in config._flags,
        "refittable": bool({int(flags.REFIT), int(flags.REFIT_IDENTICAL)} & config._flags),
        "carries_runtime": int(flags.VERSION_COMPATIBLE) in config._flags,
    }
    return _host_memory(module, plan_of(fields, graph))


def plan_of(fields: dict[str, Any], graph: ModelProto) -> bytes:
    """A plan's bytes; the weights of a stripped one are zeros."""
    if fields["stripped"]:
        kept = ModelProto()
        kept.CopyFrom(graph)
        for weight in kept.graph.initializer:
            values = numpy_helper.to_array(weight)
            if values.dtype.kind == "f":
                weight.CopyFrom(numpy_helper.from_array(np.zeros_like(values), weight.name))
        graph = kept
    return HEADER + json.dumps(fields).encode() + b"\n" + graph.SerializeToString()


def fields_of(plan: bytes) -> dict[str, Any]:
    """What was asked of the builder of a plan."""
    return json.loads(plan.removeprefix(HEADER).partition(b"\n")[0])  # type: ignore[no-any-return]


# ---- running


def _deserialize(module: Any, runtime: Any, serialized_engine: bytes) -> Any:
    if not serialized_engine.startswith(HEADER):
        return None
    fields, _, graph = serialized_engine.removeprefix(HEADER).partition(b"\n")
    engine = _new(module, "ICudaEngine")
    settings = json.loads(fields)
    if settings["version"] != module.__version__:
        return None
    if settings["carries_runtime"] and not getattr(runtime, "engine_host_code_allowed", False):
        return None
    model = onnx.load_from_string(graph)
    named = {value.name: (value, "INPUT") for value in model.graph.input}
    named |= {value.name: (value, "OUTPUT") for value in model.graph.output}
    _set(engine, _fields=settings, _graph=model, _named=named, num_io_tensors=len(named))
    _set(engine, num_optimization_profiles=len(settings["profiles"]))
    return engine


def _tensor_shape(module: Any, engine: Any, name: str) -> tuple[int, ...]:
    return tuple(dim.dim_value or -1 for dim in engine._named[name][0].type.tensor_type.shape.dim)


def _tensor_dtype(module: Any, engine: Any, name: str) -> Any:
    kind = onnx.helper.tensor_dtype_to_np_dtype(engine._named[name][0].type.tensor_type.elem_type).name
    return getattr(module.DataType, _DTYPES[kind])


def _create_context(module: Any, engine: Any) -> Any:
    import onnxruntime

    context = _new(module, "IExecutionContext")
    session = onnxruntime.InferenceSession(engine._graph.SerializeToString(), providers=["CPUExecutionProvider"])
    _set(context, _engine=engine, _session=session, _addresses={}, _profile=0, _shapes={}, _profiles_used=[])
    return context


def _set_input_shape(module: Any, context: Any, name: str, shape: Any) -> bool:
    least, _, most = context._engine._fields["profiles"][context._profile][name]
    context._shapes[name] = tuple(shape)
    return bool(least[0] <= shape[0] <= most[0])


def _set_profile(module: Any, context: Any, profile_index: int, stream_handle: int) -> bool:
    _set(context, _profile=profile_index)
    module.calls.append(f"profile {profile_index}")
    return True


def _execute(module: Any, context: Any, stream_handle: int) -> bool:
    cuda = module.state.cuda
    engine, memory = context._engine, cuda.memory

    def compute() -> None:
        given = {}
        for name, shape in context._shapes.items():
            dtype = np.dtype(_NUMPY[_tensor_dtype(module, engine, name).name])
            size = int(np.prod(shape)) * dtype.itemsize
            given[name] = memory[context._addresses[name]][:size].view(dtype).reshape(shape)
        names = [value.name for value in engine._graph.graph.output]
        for name, values in zip(names, context._session.run(names, given), strict=True):
            memory[context._addresses[name]][: values.nbytes] = np.ascontiguousarray(values).view(np.uint8).ravel()

    cuda.queue.append(compute)
    return True


# ---- refitting


def _refit_from_bytes(module: Any, parser: Any, model: bytes, path: str = "") -> bool:
    new = {weight.name: weight for weight in onnx.load_from_string(model).graph.initializer}
    refitter = parser._refitter
    wanted = {weight.name: tuple(weight.dims) for weight in refitter._engine._graph.graph.initializer}
    _set(refitter, _new={name: weight for name, weight in new.items() if wanted.get(name) == tuple(weight.dims)})
    _set(parser, num_errors=0)
    return True


def _missing(module: Any, refitter: Any) -> list[str]:
    return [w.name for w in refitter._engine._graph.graph.initializer if w.name not in refitter._new]


def _refit(module: Any, refitter: Any) -> bool:
    engine = refitter._engine
    if not engine._fields["refittable"]:
        return False
    for weight in engine._graph.graph.initializer:
        weight.CopyFrom(refitter._new[weight.name])
    engine._fields["stripped"] = False
    return True


def _serialize_with_config(module: Any, engine: Any, config: Any) -> Any:
    fields = engine._fields | {"refittable": "INCLUDE_REFIT" in config._flags}
    return _host_memory(module, plan_of(fields | {"stripped": "EXCLUDE_WEIGHTS" in config._flags}, engine._graph))


def _made(kind: str, **fields: Any) -> Callable[..., Any]:
    def make(module: Any, owner: Any) -> Any:
        made = _new(module, kind)
        _set(made, **{name: type(value)(value) for name, value in fields.items()})
        return made

    return make


NATIVE: dict[tuple[str, str], Callable[..., Any]] = {
    ("Builder", "__init__"): lambda module, self, logger: _set(self, _logger=logger),
    ("Builder", "create_network"): _create_network,
    ("Builder", "create_builder_config"): _create_config,
    ("Builder", "create_optimization_profile"): _made("IOptimizationProfile", _shapes={}),
    ("Builder", "build_serialized_network"): _build,
    ("INetworkDefinition", "get_input"): lambda module, self, index: self._inputs[index],
    ("OnnxParser", "__init__"): lambda module, self, network, logger: _set(self, _network=network),
    ("OnnxParser", "parse"): _parse,
    ("OnnxParser", "get_error"): _parser_error,
    ("ParserError", "node_name"): lambda module, self: self._words[0],
    ("ParserError", "desc"): lambda module, self: self._words[1],
    ("IOptimizationProfile", "set_shape"): lambda module, self, *shape: self._shapes.update({shape[0]: shape[1:]}),
    ("IBuilderConfig", "add_optimization_profile"): _add_profile,
    ("IBuilderConfig", "set_flag"): lambda module, self, flag: self._flags.add(int(flag)),
    ("IBuilderConfig", "clear_flag"): lambda module, self, flag: self._flags.discard(int(flag)),
    ("IBuilderConfig", "set_memory_pool_limit"): lambda module, self, pool, size: self._pools.update({pool.name: size}),
    ("IBuilderConfig", "set_compute_capability"): lambda module, self, target, index: True,
    ("IBuilderConfig", "create_timing_cache"): _create_timing_cache,
    ("IBuilderConfig", "set_timing_cache"): _set_timing_cache,
    ("IBuilderConfig", "get_timing_cache"): lambda module, self: self._timings,
    ("ITimingCache", "combine"): _combine,
    ("ITimingCache", "serialize"): _serialize_timings,
    ("Runtime", "deserialize_cuda_engine"): _deserialize,
    ("ICudaEngine", "get_tensor_name"): lambda module, self, index: list(self._named)[index],
    ("ICudaEngine", "get_tensor_mode"): lambda module, self, name: getattr(module.TensorIOMode, self._named[name][1]),
    ("ICudaEngine", "get_tensor_dtype"): _tensor_dtype,
    ("ICudaEngine", "get_tensor_shape"): _tensor_shape,
    ("ICudaEngine", "get_tensor_profile_shape"): lambda module, self, name, index: self._fields["profiles"][index][
        name
    ],
    ("ICudaEngine", "create_execution_context"): _create_context,
    ("ICudaEngine", "create_serialization_config"): _made("ISerializationConfig", _flags={"EXCLUDE_WEIGHTS"}),
    ("ICudaEngine", "serialize_with_config"): _serialize_with_config,
    ("ISerializationConfig", "set_flag"): lambda module, self, flag: self._flags.add(flag.name) or True,
    ("ISerializationConfig", "clear_flag"): lambda module, self, flag: self._flags.discard(flag.name) or True,
    ("IExecutionContext", "set_tensor_address"): lambda m, self, name, memory: (
        not self._addresses.update({name: memory})
    ),
    ("IExecutionContext", "set_input_shape"): _set_input_shape,
    ("IExecutionContext", "set_optimization_profile_async"): _set_profile,
    ("IExecutionContext", "execute_async_v3"): _execute,
    ("Refitter", "__init__"): lambda module, self, engine, logger: _set(self, _engine=engine, _new={}),
    ("Refitter", "get_missing_weights"): _missing,
    ("Refitter", "refit_cuda_engine"): _refit,
    ("OnnxParserRefitter", "__init__"): lambda module, self, refitter, logger: _set(self, _refitter=refitter),
    ("OnnxParserRefitter", "refit_from_bytes"): _refit_from_bytes,
}
