"""Owns what calibration pictures tell of a float32 graph: the values of its tensors and of what its layers read.

It changes no graph and chooses no range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto

from export.precision.rows import NO_FUSED_CLIPS, NO_FUSED_PAIRS
from export.precision.wiring import Wiring, copied, groups_of, is_depthwise
from export.weights_apart import lent_to
from zoo.machine import usable_cores

Floats = NDArray[np.float64]
# What a graph takes: pictures (N, S, S, C) uint8, or normalised planes (N, C, S, S) float32.
Inputs = NDArray[np.uint8] | NDArray[np.float32]
BINS = 2048
# Of a picture's tensor so many values at most go into its histogram; its extremes are exact.
VALUES_A_PICTURE = 32_768
# What layers read is needed for a covariance of at most some thousand inputs: 256 · 32 are 8,192 samples. Many pictures
# tell more than many places: of a classifier a picture is one sample, and Lite0 has 1,280 inputs there.
PICTURES_FOR_MOMENTS, PLACES_A_PICTURE = 512, 32
# Samples of a layer's input that wait for one product of matrices.
SAMPLES_AT_ONCE = 1024
# Activations of a picture that are held at once: 2**28 bytes, of all tensors.
BYTES_AT_ONCE = 2**28


@dataclass
class Histogram:
    """The values of a tensor: `counts` of equal bins from −reach to reach, and the extremes as they were."""

    reach: float = 0.0
    counts: Floats = field(default_factory=lambda: np.zeros(BINS))
    low: float = np.inf
    high: float = -np.inf

    def add(self, values: NDArray[np.float32]) -> None:
        """Count some more values; where they reach beyond the last bin, every two bins become one."""
        low, high = float(values.min()), float(values.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        farthest = max(-low, high, 1e-9)
        if not self.reach:
            self.reach = float(2.0 ** np.ceil(np.log2(farthest)))
        while farthest > self.reach:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(merged, BINS // 4)
            self.reach *= 2
        step = 2 * self.reach / BINS
        places = np.minimum(((values + self.reach) / step).astype(np.int64), BINS - 1)
        self.counts = self.counts + np.bincount(places, minlength=BINS)

    @property
    def centres(self) -> Floats:
        """The middle of each bin."""
        centres: Floats = (np.arange(BINS, dtype=np.float64) + 0.5) * (2 * self.reach / BINS) - self.reach
        return centres


@dataclass
class Moments:
    """Mean (G, D) and covariance (G, D, D) of what a layer reads; G is 1, or the channels of a depthwise convolution.

    D is what one of its outputs is a sum of: C · kh · kw, or kh · kw. `places` are a picture's output pixels.
    """

    places: int = 0
    n: int = 0
    total: Floats | None = None
    squares: Floats | None = None
    _waiting: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, samples: NDArray[np.float32]) -> None:
        """Add samples (G, N, D)."""
        self._waiting.append(samples)
        # A product costs D² numbers that are widened and added, however few samples it is of.
        if sum(waiting.shape[1] for waiting in self._waiting) >= SAMPLES_AT_ONCE:
            self._add_waiting()

    def _add_waiting(self) -> None:
        if not self._waiting:
            return
        samples = np.concatenate(self._waiting, axis=1)
        self._waiting.clear()
        exact = samples.astype(np.float64) if samples.shape[0] > 1 else samples
        total: Floats = exact.sum(axis=1, dtype=np.float64)
        squares: Floats = (exact.transpose(0, 2, 1) @ exact).astype(np.float64)
        self.n += samples.shape[1]
        self.total = total if self.total is None else self.total + total
        self.squares = squares if self.squares is None else self.squares + squares

    @property
    def mean(self) -> Floats:
        """(G, D)."""
        self._add_waiting()
        assert self.total is not None
        return self.total / self.n

    @property
    def covariance(self) -> Floats:
        """(G, D, D)."""
        mean = self.mean
        assert self.squares is not None
        covariance: Floats = self.squares / self.n - mean[:, :, None] * mean[:, None, :]
        return covariance


@dataclass(frozen=True)
class Statistics:
    """Histograms by tensor, and moments by the name of the layer that reads; `n` pictures were seen."""

    histograms: Mapping[str, Histogram]
    moments: Mapping[str, Moments]
    n: int


def open_session(model: ModelProto) -> ort.InferenceSession:
    """A session on the processor, on the cores this process may use."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = usable_cores()
    off: tuple[str, ...] = ()
    if any(weight.data_type == TensorProto.FLOAT8E4M3FN for weight in model.graph.initializer):
        options.add_session_config_entry(NO_FUSED_PAIRS, "1")
        off = NO_FUSED_CLIPS
    with lent_to(options, model) as graph:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=off)


def run_tensors(
    model: ModelProto,
    names: Sequence[str],
    pictures: Inputs,
    receive: Callable[[int, Mapping[str, NDArray[np.float32]]], None],
) -> None:
    """Run pictures through a graph and hand over its tensors `names`, with the pictures done before."""
    opened, taken = copied(model), model.graph.input[0].name
    asked = [name for name in names if name != taken]
    for name in asked:
        opened.graph.output.append(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session, done, step = open_session(opened), 0, 1
    while done < len(pictures):
        given = pictures[done : done + step]
        found = {taken: given} | dict(zip(asked, session.run(asked, {taken: given}), strict=True))
        receive(done, found)
        done += step
        held = sum(tensor.nbytes for tensor in found.values()) / max(1, len(next(iter(found.values()))))
        step = max(1, min(8, int(BYTES_AT_ONCE / held)))


def collect(
    model: ModelProto,
    pictures: Inputs,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Statistics:
    """See what pictures make of every tensor that may be quantized.

    About as long as a validation of as many pictures; the same pictures give the same statistics.
    """
    wiring, rng = Wiring(model), np.random.default_rng(0)
    histograms = {name: Histogram() for name in watched(wiring)}
    moments = {node.name: Moments() for node in wiring.layers}

    def receive(done: int, found: Mapping[str, NDArray[np.float32]]) -> None:
        for name, histogram in histograms.items():
            histogram.add(_some(found[name]))
        if done < PICTURES_FOR_MOMENTS:
            for node in wiring.layers:
                _add_moments(moments[node.name], node, wiring.weight(node.input[1]), found[node.input[0]], rng)
        on_progress(done, len(pictures))

    run_tensors(model, list(histograms), pictures, receive)
    return Statistics(histograms, moments, len(pictures))


def watched(wiring: Wiring) -> tuple[str, ...]:
    """Every tensor that a layout may quantize: what layers and residual additions read and make, and activations."""
    names: list[str] = []
    for node in wiring.nodes:
        if node in wiring.layers:
            names += [node.input[0], node.output[0]]
            if activation := wiring.activation_of(node):
                names.append(activation.output[0])
    for node in wiring.sums:
        names += [*node.input, node.output[0]]
    return tuple(name for name in dict.fromkeys(names) if name != wiring.logits)


def _some(tensor: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values spread over a tensor, with its extremes."""
    flat = tensor.reshape(-1)
    step = max(1, flat.size // (VALUES_A_PICTURE * len(tensor)))
    if step == 1:
        return flat
    step += 1 - step % 2  # an odd step does not stay on one column of a map, whose width is even
    return np.concatenate([flat[::step], [flat.min(), flat.max()]]).astype(np.float32)


def _add_moments(
    moments: Moments,
    node: NodeProto,
    weight: NDArray[np.float32],
    tensor: NDArray[np.float32],
    rng: np.random.Generator,
) -> None:
    if node.op_type == "Gemm":
        moments.places = 1
        moments.add(tensor[None])
        return
    settings: dict[str, Any] = {
        attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute
    }
    top, left, bottom, right = settings.get("pads", (0, 0, 0, 0))
    (kh, kw), (down, across) = weight.shape[2:], settings.get("strides", (1, 1))
    padded = np.pad(tensor, ((0, 0), (0, 0), (top, bottom), (left, right)))
    height, width = (padded.shape[2] - kh) // down + 1, (padded.shape[3] - kw) // across + 1
    moments.places = height * width
    chosen = rng.permutation(height * width)[:PLACES_A_PICTURE]
    rows, columns = chosen // width * down, chosen % width * across
    # (N, C, P) for each of the filter's places → (N, C, kh · kw, P)
    patches = np.stack([padded[:, :, rows + y, columns + x] for y in range(kh) for x in range(kw)], axis=2)
    pictures, channels, taps, places = patches.shape
    groups = groups_of(node)
    if is_depthwise(node, weight):
        moments.add(patches.transpose(1, 0, 3, 2).reshape(channels, pictures * places, taps))
    elif groups == 1:
        moments.add(
            patches.reshape(pictures, channels * taps, places).transpose(0, 2, 1).reshape(1, -1, channels * taps)
        )
