"""Owns whether a run's pictures have the planes that are asked for, said before the first step; it decodes a few."""

from __future__ import annotations

from collections.abc import Iterable

from zoo.data.pictures import Pictures, Stored
from zoo.errors import BrokenPictureError, DataError

# So many pictures of a set are tried. If none of them has the planes, all others would be left out one by one.
TRIED = 4


def check_planes(sets: Iterable[Pictures], channels: int) -> None:
    """Refuse sets in which no picture tried can be had in so many planes; only a fourth is neither made nor dropped.

    Raises:
        DataError: names the first picture and what it has. Or a server that has them fails.
    """
    for pictures in sets:
        if 4 not in (channels, pictures.array_channels):
            continue
        tried = pictures.head(TRIED)
        lacking = [error for index in range(len(tried)) if (error := _lacks(tried, index, channels))]
        if lacking and len(lacking) == len(tried):
            raise DataError(lacking[0].problem, lacking[0].hint)


def _lacks(pictures: Pictures, index: int, channels: int) -> BrokenPictureError | None:
    """Why a picture that can be read has not these planes; None where it has, or is broken all the same."""
    stored: Stored | None = None
    try:
        stored = pictures.read(index)
        pictures.decode(index, stored, channels=channels)
    except BrokenPictureError as error:
        if isinstance(stored, bytes):
            return error if _is_readable(pictures, index, stored) else None
        return error if stored is not None else None
    return None


def _is_readable(pictures: Pictures, index: int, stored: bytes) -> bool:
    try:
        pictures.decode(index, stored)
    except BrokenPictureError:
        return False
    return True
