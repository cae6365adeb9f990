"""Owns the 8-bit forms of a graph: calibrated once, then made with any blocks left out; it chooses no pictures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from onnx import ModelProto

from export.precision.qdq import Layout, insert_pairs
from export.precision.ranges import Method, choose_range
from export.precision.rounding import FP8_MAX, Rounded, fp8_grid, int8_grid, keep_steps, round_weight
from export.precision.statistics import Inputs, Statistics, collect
from export.precision.wiring import Wiring, block_of, part_of, point_of
from zoo.errors import ArtifactError
from zoo.model.eight_bits import INT8_MAX

METHOD: Method = "mse"


@dataclass(frozen=True)
class Calibrated:
    """A float32 graph with what calibration pictures tell of it; ranges and rounded weights are made when needed.

    `trained` are the ranges of a network that was trained for int8, by point: then weights and ranges of int8 are those
    that it learned, and the pictures choose neither.
    """

    model: ModelProto
    statistics: Statistics
    method: Method = METHOD
    trained: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    _rounded: dict[bool, dict[str, Rounded]] = field(default_factory=dict)
    _ranges: dict[tuple[str, bool, Method], tuple[float, float]] = field(default_factory=dict)

    def quantized(self, *, layout: Layout, kept: Collection[str] = (), float8: bool = False) -> ModelProto:
        """The graph in 8 bits, but for the modules `kept`; see `export.precision.qdq.insert_pairs`."""
        if float8 not in self._rounded:
            self._rounded[float8] = self._round_all(float8)
        if self.trained and not float8:
            return insert_pairs(self.model, self._rounded[float8], self._trained_range, layout=layout, kept=kept)
        # Float8's steps are as fine for small numbers as for large ones: it has nothing to gain from clipping.
        method = "min-max" if float8 else self.method

        def ranges(tensor: str, symmetric: bool) -> tuple[float, float]:
            key = tensor, symmetric, method
            if key not in self._ranges:
                self._ranges[key] = choose_range(self.statistics.histograms[tensor], method, symmetric=symmetric)
            return self._ranges[key]

        return insert_pairs(self.model, self._rounded[float8], ranges, layout=layout, kept=kept, float8=float8)

    def _trained_range(self, tensor: str, symmetric: bool) -> tuple[float, float]:
        point = point_of(tensor)
        if point not in self.trained:
            raise ArtifactError(
                f"The checkpoint was trained for int8 without a range for {point}.",
                "Train it again with this version's --qat.",
            )
        low, high = self.trained[point]
        return (-max(-low, high), max(-low, high)) if symmetric else (low, high)

    def _round_all(self, float8: bool) -> dict[str, Rounded]:
        wiring, moments = Wiring(self.model), self.statistics.moments
        if self.trained and not float8:
            return {node.name: keep_steps(wiring.weight(node.input[1])) for node in wiring.layers}
        grid, largest = (fp8_grid, FP8_MAX) if float8 else (int8_grid, INT8_MAX)
        return {
            node.name: round_weight(wiring.weight(node.input[1]), moments[node.name], grid, largest)
            for node in wiring.layers
        }

    def macs(self, *, parts: bool = False) -> dict[str, int]:
        """Multiply-adds of a picture, by block or by its parts, in the order of the graph."""
        wiring, macs = Wiring(self.model), dict[str, int]()
        for node in wiring.layers:
            name = (part_of if parts else block_of)(node.name)
            own = wiring.weight(node.input[1]).size * self.statistics.moments[node.name].places
            macs[name] = macs.get(name, 0) + own
        return macs


def calibrate(
    model: ModelProto,
    pictures: Inputs,
    *,
    method: Method = METHOD,
    trained: Mapping[str, tuple[float, float]] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Calibrated:
    """Run calibration pictures through a float32 graph; the same pictures give the same graph."""
    return Calibrated(model, collect(model, pictures, on_progress=on_progress), method, trained or {})
