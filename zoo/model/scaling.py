"""Owns how one row becomes another: compound scaling as the released code does it, and by the paper's rule."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated

from zoo.errors import ZooError
from zoo.model.spec import Stage, Variant
from zoo.rows import Within, read

# How much a network may be scaled by.
Factor = Annotated[float, Within(0.1, 10)]
# The paper caps the inference size at 480 px (§3.3), because activations above it cost memory and little else.
MAX_INFERENCE_SIZE = 480
# The paper "gradually add[s] more layers to later stages (e.g. stage 5 and 6)" (§3.3) and does not say how many. M has
# 23 % and L 21 % more layers there than plain scaling of S gives, so a fifth.
FIRST_LATE_STAGE = 5
LATE_SHARE = 0.2


def scale(
    base: Variant,
    id: str,
    *,
    width: float,
    depth: float,
    train_size: int,
    eval_size: int,
    dropout: float,
    keep_90_percent: bool,
    fixed_ends: bool = False,
) -> Variant:
    """Scale channels by `width` and layers by `depth`, and round both, as the released code does.

    `fixed_ends` is the rule of Lite: stem, head, and the number of layers of the first and last stage stay as they are.
    """

    def channels(count: int) -> int:
        return round_channels(count * width, keep_90_percent=keep_90_percent)

    def layers(index: int, stage: Stage) -> int:
        fixed = fixed_ends and index in (0, len(base.stages) - 1)
        return stage.num_layers if fixed else round_layers(stage.num_layers * depth)

    stages = tuple(
        replace(stage, out_channels=channels(stage.out_channels), num_layers=layers(index, stage))
        for index, stage in enumerate(base.stages)
    )
    return replace(
        base,
        id=id,
        name=base.name.removesuffix(base.id.rpartition("-")[2]) + id.rpartition("-")[2],
        stem_channels=base.stem_channels if fixed_ends else channels(base.stem_channels),
        head_channels=base.head_channels if fixed_ends else channels(base.head_channels),
        stages=stages,
        dropout=dropout,
        train_size=train_size,
        eval_size=eval_size,
        preprocessing=base.preprocessing.at(eval_size)
        if base.preprocessing.resize == "squash"
        else replace(base.preprocessing, image_size=eval_size, resize_size=eval_size + 32),
    )


def scale_by_paper(
    base: Variant, id: str, *, width: float = 1.0, depth: float = 1.0, resolution: float = 1.0
) -> Variant:
    """Scale a network up or down by EfficientNetV2's rule (§3.3).

    This is compound scaling with two additions: the inference size never passes 480 px, and a deeper network gets extra
    layers in its later stages. S with depth 1.22 and width 1.14 has 13 and 23 layers in stages 5 and 6, where plain
    scaling gives 11 and 19. The training size keeps its share of the inference size.

    Raises:
        RowError: a factor outside 0.1 … 10.
        ZooError: a network that is not an EfficientNet.
    """
    if base.is_resnet:
        raise ZooError(
            f"{base.id} is no EfficientNet, and the rule is made for those.", "Scale s, b0 or v1-b0, for example."
        )
    for name, factor in (("width", width), ("depth", depth), ("resolution", resolution)):
        read(Factor, factor, f"--{name}")
    eval_size = min(round(base.eval_size * resolution / 8) * 8, MAX_INFERENCE_SIZE)
    train_size = round(base.train_size / base.eval_size * eval_size)
    scaled = scale(
        base,
        id,
        width=width,
        depth=depth,
        train_size=train_size,
        eval_size=max(eval_size, 16),
        dropout=base.dropout,
        keep_90_percent=base.family != "EfficientNetV2",
    )
    stages = tuple(
        replace(stage, num_layers=_with_late_layers(index, stage.num_layers, depth))
        for index, stage in enumerate(scaled.stages, start=1)
    )
    return replace(
        scaled,
        name=id,
        stages=stages,
        max_size=max(MAX_INFERENCE_SIZE, scaled.eval_size),
        source=f"{base.id} scaled by width {width:g}, depth {depth:g}, resolution {resolution:g} (V2 §3.3)",
    )


def _with_late_layers(stage: int, num_layers: int, depth: float) -> int:
    """Add half of the extra share in the first late stage and all of it after; a network made no deeper gets none."""
    share = min(LATE_SHARE, max(depth - 1.0, 0.0))
    if stage < FIRST_LATE_STAGE:
        return num_layers
    return math.ceil(num_layers * (1 + share * (0.5 if stage == FIRST_LATE_STAGE else 1.0)) - 1e-9)


def round_channels(channels: float, *, keep_90_percent: bool) -> int:
    """Round to a multiple of 8: max(8, floor((c + 4) / 8) · 8).

    `keep_90_percent` adds 8 where rounding lost more than a tenth: EfficientNet V1 and Lite do this
    (tensorflow/tpu), EfficientNetV2 does not (google/automl). 1.2 × 16 = 19.2 → 16 without it, 24 with it.
    """
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if keep_90_percent and rounded < 0.9 * channels else rounded


def round_layers(layers: float) -> int:
    """Round a scaled number of layers up (google/automl, tensorflow/tpu). 1.1 × 2 → 3."""
    return math.ceil(layers)
