"""Owns the answer to the pictures of one request for `/predict`: of several each is queued, and fails, by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from serve.core.service import Service, together
from serve.core.slot import Engine
from serve.core.waiting import Answer
from serve.web.encoding import File
from zoo.errors import BrokenPictureError


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What came of each picture, in the order of the form: its answer and the milliseconds of decoding, or an error."""

    pictures: Sequence[File]
    found: Sequence[tuple[Answer, float] | BrokenPictureError]

    @cached_property
    def answers(self) -> list[tuple[Answer, float]]:
        """Those that are no errors."""
        return [one for one in self.found if not isinstance(one, BrokenPictureError)]

    @property
    def batch_size(self) -> int:
        """Of the largest batch that one of them was in."""
        return max(answer.batch_size for answer, _ in self.answers)

    def taken_ms(self) -> dict[str, float]:
        """The longest that one of them was in each stage: they went through them side by side."""
        return {
            "decode": max(decode_ms for _, decode_ms in self.answers),
            "queue": max(answer.queue_ms for answer, _ in self.answers),
            "compute": max(answer.compute_ms for answer, _ in self.answers),
        }

    def to_list(self, engine: Engine, top: int | None) -> list[dict[str, Any]]:
        """As the answer's JSON has them: names, and classes or what is wrong."""
        return [
            {"name": picture.name, **_said(one, engine, top)}
            for picture, one in zip(self.pictures, self.found, strict=True)
        ]


async def classify_all(service: Service, engine: Engine, pictures: Sequence[File], turn: Mapping[str, Any]) -> Answered:
    """Classify all of them; cancelling the call gives all of them up.

    Args:
        pictures: at least one.
        turn: what `Service.classify` is told of each.

    Raises:
        BrokenPictureError: all of them are broken. As `Service.classify`, but for that error: what fails one of them
            fails the request.
    """
    if len(pictures) == 1:
        return Answered(pictures=pictures, found=[await service.classify(engine, pictures[0].content, **turn)])
    found = await together(_classify(service, engine, picture.content, turn) for picture in pictures)
    first = found[0]
    if isinstance(first, BrokenPictureError) and all(isinstance(one, BrokenPictureError) for one in found):
        raise first
    return Answered(pictures=pictures, found=found)


async def _classify(
    service: Service, engine: Engine, content: bytes, turn: Mapping[str, Any]
) -> tuple[Answer, float] | BrokenPictureError:
    try:
        return await service.classify(engine, content, **turn)
    except BrokenPictureError as error:
        return error


def _said(one: tuple[Answer, float] | BrokenPictureError, engine: Engine, top: int | None) -> dict[str, Any]:
    if isinstance(one, BrokenPictureError):
        return {"error": one.problem[:1].upper() + one.problem[1:], "hint": one.hint}
    answer, _ = one
    return {"predictions": [best.to_dict() for best in answer.named(engine.contract, top)]}
