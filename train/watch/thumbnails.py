"""Owns small pictures of a page: drawn once, kept while they are shown; which are shown, and why, is other files'."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from zoo.data.pictures import Pictures
from zoo.data.planes import as_shown
from zoo.errors import BrokenPictureError, DataError
from zoo.model.spec import RGB
from zoo.page.elements import embedded_image
from zoo.page.markup import Markup, tag

THUMBNAIL_PX = 112
UNREADABLE = tag("span", "no longer readable", class_="muted")


@dataclass
class Drawn:
    """What earlier pages of a run have drawn.

    `thumbnails` are pictures by their index in the validation set, `fed` what the network was fed by stage, `crop` what
    it sees in validation. `channels`: how many planes the pictures are decoded to; a fourth is not drawn.
    """

    thumbnails: dict[int, Markup] = field(default_factory=dict)
    fed: dict[int, Markup] = field(default_factory=dict)
    crop: Markup | None = None
    channels: int = RGB

    def update(self, pictures: Pictures, wanted: Iterable[int]) -> None:
        """Forget the thumbnails no longer wanted and draw the missing ones.

        Where the pictures' server is gone, the page goes without the rest.
        """
        indices = list(dict.fromkeys(wanted))
        for index in self.thumbnails.keys() - set(indices):
            del self.thumbnails[index]
        try:
            for index in indices:
                if index not in self.thumbnails:
                    self.thumbnails[index] = draw_thumbnail(pictures, index, self.channels)
        except DataError:
            return

    def figure(self, pictures: Pictures, index: int, *caption: Markup) -> Markup:
        """A thumbnail with what is said of it; its tip is the picture's name."""
        frame = tag("div", self.thumbnails.get(index, UNREADABLE), class_="frame")
        return tag("figure", frame, tag("figcaption", *caption), title=pictures.describe(index))


def draw_thumbnail(pictures: Pictures, index: int, channels: int = RGB) -> Markup:
    """A picture as an img element that carries its own bytes, at most `THUMBNAIL_PX` on a side."""
    source = pictures.sources[index]
    name = source.name if isinstance(source, Path) else f"picture {index}"
    try:
        image = as_shown(pictures.open(index, min_size=THUMBNAIL_PX, channels=channels))
    except BrokenPictureError:  # it was readable when it was validated: gone or changed since
        return UNREADABLE
    return embed(image, THUMBNAIL_PX, alt=name)


def embed(image: Image.Image, side_px: int, *, alt: str) -> Markup:
    """An image as an img element, at most `side_px` on a side; a much smaller one is shown pixel by pixel."""
    small = max(image.size) < side_px // 2
    image.thumbnail((side_px, side_px), Image.Resampling.BILINEAR)
    return embedded_image(image, "PNG" if small else "JPEG", alt=alt, class_="small" if small else None)
