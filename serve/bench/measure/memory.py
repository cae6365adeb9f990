"""Owns whether a batch can fit into this machine's memory at all; it allocates nothing, and knows no GPU.

A batch that is too large does not fail: the system ends the process, or another one, and what was measured is lost.
"""

from __future__ import annotations

from zoo.errors import ZooError
from zoo.machine import usable_memory
from zoo.model.counts import Part, parts
from zoo.model.spec import Variant

# Bytes of a pixel of a picture as it is fed, and of a value in the network on a processor.
PIXEL_BYTES, VALUE_BYTES = 1, 4


def least_batch_bytes(variant: Variant | None, image_size: int, channels: int, batch_size: int) -> int:
    """Bytes that a batch takes at least, while its largest block is computed.

    The pictures, and the block's maps: what goes in and what comes out of its first convolution. S at 384 px takes
    7.5 MB for each picture, in its second stage: (24 · 192² + 96 · 96²) values and 3 · 384² pixels. Without a variant,
    of a network that nobody knows, it is the pictures and their float32 form.
    """
    pixels = channels * image_size**2
    maps = [pixels] if variant is None else [_values(part) for part in parts(variant, image_size=image_size)]
    return batch_size * (PIXEL_BYTES * pixels + VALUE_BYTES * max(maps))


def check_batch(
    batch_size: int,
    image_size: int,
    *,
    on: str = "cpu",
    variant: Variant | None = None,
    channels: int = 3,
    memory: int | None = None,
) -> None:
    """Refuse a batch that this machine has no memory for.

    Args:
        batch_size: pictures at once.
        image_size: their side in pixels.
        on: what computes; of a GPU's memory nothing is known here, and where it is full an error says so.
        variant: the network, where it is one of the zoo's.
        channels: of the pictures.
        memory: bytes, instead of what `usable_memory` finds.

    Raises:
        ZooError: it takes more than there is.
    """
    if on != "cpu":
        return
    need = least_batch_bytes(variant, image_size, channels, batch_size)
    there = usable_memory() if memory is None else memory
    if need > there:
        fitting = max(batch_size * there // need, 1)
        raise ZooError(
            f"{batch_size:,} pictures of {image_size} px at once take {need / 1e9:,.1f} GB at least, and this machine "
            f"has {there / 1e9:,.1f} GB.",
            f"Pass a smaller --batch-size, well below {fitting:,}.",
        )


def _values(part: Part) -> int:
    """Values of a part's input, and of what its first convolution makes of it.

    The 1×1 convolution that widens an MBConv's map leaves its size; the others make the smaller map at once.
    """
    outer = part.in_channels * (part.size * part.stride) ** 2
    if part.operator == "mbconv" and part.expand_ratio > 1:
        return outer * (1 + part.expand_ratio)
    if part.operator == "conv":
        return outer + part.out_channels * part.size**2
    if part.operator == "fused_mbconv":
        return outer + part.in_channels * part.expand_ratio * part.size**2
    return outer  # others only what goes in
