"""Owns what a stage costs on paper: multiply-adds and the bytes its layers move at least; it measures nothing.

Bytes are those of an engine that keeps nothing between layers: every convolution reads its input and its weights once
and writes its output once; norms and activations ride along, a residual is read by the layer that adds it, and a
squeeze reads the map to pool it and reads and writes it to scale it. An engine that fuses more moves less, one that
computes an activation apart moves more, so it is a yardstick and not what a memory controller counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from zoo.model.counts import output_size, squeeze_channels, stage_cost
from zoo.model.spec import Stage

# Bytes of one value, of a weight as of an activation.
VALUE_BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}


@dataclass(frozen=True)
class Work:
    """What a stage does for one batch: multiply-adds, and bytes moved at least."""

    macs: int
    bytes_moved: int

    @property
    def flops(self) -> int:
        """Two floating-point operations a multiply-add."""
        return 2 * self.macs

    @property
    def intensity(self) -> float:
        """Floating-point operations for each byte moved."""
        return self.flops / self.bytes_moved


@dataclass(frozen=True)
class _Layer:
    """Numbers a layer reads and writes for one picture, and its weights, which a batch shares."""

    values: int
    weights: int = 0


def stage_work(stage: Stage, in_channels: int, in_size: int, *, batch_size: int, precision: str) -> Work:
    """What a stage does for a batch of maps of `in_channels` and `in_size` pixels a side."""
    layers = list(_layers(stage, in_channels, in_size))
    values = batch_size * sum(layer.values for layer in layers) + sum(layer.weights for layer in layers)
    _, macs = stage_cost(stage, in_channels, in_size)
    return Work(macs=batch_size * macs, bytes_moved=VALUE_BYTES[precision] * values)


def _layers(stage: Stage, in_channels: int, in_size: int) -> Iterator[_Layer]:
    channels, size = in_channels, in_size
    for index in range(stage.num_layers):
        yield from _block(stage, channels, size, stride=stage.stride if index == 0 else 1)
        channels, size = stage.out_channels, output_size(size, stage.stride if index == 0 else 1)


def _block(stage: Stage, channels: int, size: int, *, stride: int) -> Iterator[_Layer]:
    """The layers of one block in order; a residual's second read stands with the last one."""
    out, expanded, kernel = stage.out_channels, channels * stage.expand_ratio, stage.kernel_size**2
    outer, inner = size**2, output_size(size, stride) ** 2
    residual = channels * outer if stride == 1 and channels == out else 0
    fused = stage.operator == "fused_mbconv"
    if fused and stage.expand_ratio == 1:
        yield from _squeeze(stage, channels, channels * outer)
        yield _Layer(channels * outer + out * inner + residual, channels * out * kernel)
        return
    if fused:
        yield _Layer(channels * outer + expanded * inner, channels * expanded * kernel)
    else:
        if stage.expand_ratio > 1:
            yield _Layer((channels + expanded) * outer, channels * expanded)
        yield _Layer(expanded * (outer + inner), expanded * kernel)
    yield from _squeeze(stage, channels, expanded * inner)
    yield _Layer((expanded + out) * inner + residual, expanded * out)


def _squeeze(stage: Stage, channels: int, map_values: int) -> Iterator[_Layer]:
    """Pool (read the map), two dense layers, scale (read and write the map)."""
    if not stage.se_ratio:
        return
    squeezed = squeeze_channels(channels, stage.se_ratio)
    wide = channels if stage.operator == "fused_mbconv" and stage.expand_ratio == 1 else channels * stage.expand_ratio
    yield _Layer(map_values + wide)
    yield _Layer(wide + squeezed, wide * squeezed)
    yield _Layer(squeezed + wide, squeezed * wide)
    yield _Layer(2 * map_values + wide)
