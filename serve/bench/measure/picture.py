"""Owns the time of what comes before an artifact: decoding a picture and resizing it by a contract; it runs none."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from typing import Any, Literal

from zoo.data.decode import open_picture
from zoo.data.preprocess import prepare
from zoo.measure.timing import Schedule, pooled, time_call, time_in_turn
from zoo.model.spec import Preprocessing
from zoo.results import Summary, summarize
from zoo.rows import Count, Row, Text

# Half a second of each step tells it well enough.
LONGEST = Schedule(duration_ms=500.0, rounds=1)


@dataclass(frozen=True, kw_only=True)
class PictureTimes(Row):
    """What happens before the artifact: decoding one file, and resizing it by the contract to `image_size` pixels."""

    source: Text
    width_px: Count
    height_px: Count
    encoded_bytes: Count
    image_size: Count
    decode: Summary
    prepare: Summary
    format: Literal["JPEG", "PNG"] = "JPEG"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; of a JPEG they are those of the first version."""
        fields = super().to_dict()
        if self.format == "JPEG":
            del fields["format"]
        return fields


def measure_picture(preprocessing: Preprocessing, schedule: Schedule) -> PictureTimes:
    """Time what happens before the artifact, on the host's processor, one thread: no longer than the artifact is timed.

    The picture is scikit-learn's photograph `china.jpg`, 640 × 427 pixels; for four planes it is a PNG of it.
    """
    encoded, format = _photograph(preprocessing.channels)
    decode_it = partial(open_picture, encoded, channels=preprocessing.channels)
    image = decode_it()
    decode, resize = time_in_turn(
        [decode_it, partial(prepare, image, preprocessing)],
        replace(
            LONGEST,
            warmup_ms=min(LONGEST.warmup_ms, schedule.warmup_ms),
            duration_ms=min(LONGEST.duration_ms, schedule.duration_ms),
        ),
        time_call,
    )
    return PictureTimes(
        source="china.jpg of scikit-learn",
        width_px=image.width,
        height_px=image.height,
        encoded_bytes=len(encoded),
        image_size=preprocessing.image_size,
        decode=summarize(pooled(decode)),
        prepare=summarize(pooled(resize)),
        format=format,
    )


def _photograph(channels: int) -> tuple[bytes, Literal["JPEG", "PNG"]]:
    """The photograph as a file with so many planes, and its format: of four the last is its grey."""
    encoded = resources.files("sklearn.datasets.images").joinpath("china.jpg").read_bytes()
    if channels != 4:
        return encoded, "JPEG"
    image, buffer = open_picture(encoded), io.BytesIO()
    image.putalpha(image.convert("L"))
    image.save(buffer, "PNG")
    return buffer.getvalue(), "PNG"
