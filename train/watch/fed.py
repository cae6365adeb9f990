"""Owns what a page shows of a network's input: augmented training pictures, the crop in validation; it trains nothing.

A run does not fail because of them: what cannot be drawn is said instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch.nn import functional as F

from train.augment.erasing import erase
from train.augment.mixing import mix_batch
from train.input.loader import Augmented, collate
from train.input.order import epoch_draws
from train.learn.job import Job
from train.learn.step import normalize
from train.progressive.recipe import TrainingStage
from train.watch.thumbnails import Drawn, embed
from zoo.data.http import is_address
from zoo.data.planes import as_shown, to_image
from zoo.data.preprocess import crop_box, prepare
from zoo.errors import BrokenPictureError, ZooError
from zoo.page.markup import Child, Markup, join, tag
from zoo.wording import percent

# Pictures of a stage, and stages: a recipe that draws its sizes at random has a hundred.
NUM_FED, NUM_STAGES = 8, 6
FED_PX, CROP_PX = 128, 240
# Of so many validation pictures the longest one shows best what a crop leaves out.
NUM_TRIED = 6
UNSEEN = " Their fourth plane, which the network is fed as well, is not drawn."
# A share of a mixed label below this is none.
LEAST_SHARE = 0.005


def fed_sections(job: Job, reached: int, drawn: Drawn) -> list[Markup]:
    """What the network was fed in the stages so far (`reached`, from 1), and what it sees in validation.

    `drawn` has what was drawn before; what is new is added. Nothing is drawn of pictures on a server: one that is away
    would keep the run waiting for a page.
    """
    if is_address(job.data):
        return []
    shown = sorted({round(place) for place in np.linspace(0, reached - 1, min(reached, NUM_STAGES)).tolist()})
    for index in shown:
        if index not in drawn.fed:
            drawn.fed[index] = _draw_stage(job, index)
    drawn.crop = drawn.crop or _draw_crop(job)
    note = (
        f"{NUM_FED} training pictures of each stage, cropped, augmented, erased and mixed as the seed decides, with "
        "their labels: if you cannot tell what they are, the recipe may be too strong."
        f"{UNSEEN if job.preprocessing.channels == 4 else ''}"
    )
    fed = tag("p", note, class_="note"), *(drawn.fed[index] for index in shown)
    return [
        tag("section", tag("h2", "What the network is fed"), *fed),
        tag("section", tag("h2", "What it sees in validation"), drawn.crop),
    ]


def fed_pictures(job: Job, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A few pictures (N, S, S, C) of the first step of stage `index`, and their labels (N, K), mixed.

    They come through the loader's own data set and the step's own functions, and are mixed among themselves.

    Raises:
        DataError: a server has them, and does not answer as it should. WorkerError: there is no memory for them.
    """
    recipe, seed = job.recipe, job.settings.seed
    stage, epoch = recipe.stages[index], sum(stage.epochs for stage in recipe.stages[:index])
    first = epoch_draws(job.train_set, recipe, stage, seed=seed, epoch=epoch)[0][:NUM_FED]
    channels = job.preprocessing.channels
    made = Augmented(job.train_set, recipe, stage, seed, epoch, channels=channels).__getitems__(first)
    batch = collate(made)
    if isinstance(batch, ZooError):
        raise batch
    pictures = normalize(batch.pictures, job.preprocessing)
    labels = batch.labels.float() if job.multi_label else F.one_hot(batch.labels, len(job.classes)).float()
    rng = np.random.default_rng((seed, epoch, 7, 0))
    erase(pictures, stage.random_erasing_prob, recipe, rng)
    mix_batch(pictures, labels, mixup_alpha=stage.mixup_alpha, cutmix_alpha=stage.cutmix_alpha, rng=rng)
    mean, std = (torch.tensor(values) for values in (job.preprocessing.mean, job.preprocessing.std))
    seen = (pictures.permute(0, 2, 3, 1) * std + mean).round().clamp(0, 255)
    return seen.to(torch.uint8).numpy(), labels.numpy()


def mixed_label(shares: NDArray[np.float32], classes: Sequence[str]) -> Markup:
    """“cat”, or “cat 70 % + dog 30 %”, the larger share first; of several labels, “cat + dog”, or “no label”."""
    order = [place for place in np.argsort(-shares, kind="stable") if shares[place] >= LEAST_SHARE]
    if not order:
        return tag("span", "no label", class_="muted")
    parts: list[Child] = []
    for place in order:
        is_whole = shares[place] > 1 - LEAST_SHARE
        share = None if is_whole else tag("span", percent(float(shares[place])), class_="muted")
        parts += [" + " if parts else None, classes[place], " " if share else None, share]
    return join(*parts)


def _draw_stage(job: Job, index: int) -> Markup:
    stage = job.recipe.stages[index]
    heading = tag("h3", f"Stage {index + 1}: {stage.image_size} px", class_="stage")
    try:
        pictures, labels = fed_pictures(job, index)
    except (ZooError, OSError) as error:
        reason = error.problem if isinstance(error, ZooError) else str(error)
        return join(heading, tag("p", f"Its pictures cannot be shown: {reason}", class_="muted"))
    if not len(pictures):
        return join(heading, tag("p", "None of the pictures chosen can be read.", class_="muted"))
    figures = [
        tag(
            "figure",
            tag("div", embed(as_shown(to_image(pixels)), FED_PX, alt="a training picture"), class_="frame"),
            tag("figcaption", mixed_label(shares, job.classes)),
        )
        for pixels, shares in zip(pictures, labels, strict=True)
    ]
    strength = tag("p", _strength(stage), class_="note")
    return join(heading, strength, tag("div", *figures, class_="pictures fed"))


def _strength(stage: TrainingStage) -> str:
    """What is done to the pictures, in the words of the stage's settings."""
    parts = {
        f"RandAugment {stage.randaugment_magnitude:.3g}": stage.randaugment_magnitude,
        f"mixup α {stage.mixup_alpha:.3g}": stage.mixup_alpha,
        f"CutMix α {stage.cutmix_alpha:.3g}": stage.cutmix_alpha,
        f"random erasing {percent(stage.random_erasing_prob)}": stage.random_erasing_prob,
    }
    return ", ".join(text for text, value in parts.items() if value) or "Cropped and flipped, no more."


def _draw_crop(job: Job) -> Markup:
    """One validation picture with what becomes the input marked, and the input."""
    found: tuple[float, int, Image.Image] | None = None
    for index in np.linspace(0, len(job.val_set) - 1, NUM_TRIED).round().astype(int).tolist():
        try:
            image = job.val_set.open(index, channels=job.preprocessing.channels)
        except BrokenPictureError:
            continue
        except (ZooError, OSError) as error:
            return tag("p", f"No picture can be shown: {error}", class_="muted")
        longest = max(image.size) / min(image.size)
        if found is None or longest > found[0]:
            found = longest, index, image
    if found is None:
        return tag("p", "None of the pictures chosen can be read.", class_="muted")
    _, index, image = found
    seen = as_shown(to_image(prepare(image, job.preprocessing)))
    whole = tag("div", embed(_marked(image, job), CROP_PX, alt="a validation picture, the crop marked"), class_="frame")
    input_ = tag("div", embed(seen, CROP_PX, alt="the network's input"), class_="frame")
    figures = (
        tag(
            "figure",
            whole,
            tag("figcaption", f"as it is, {image.width} × {image.height} px"),
            title=job.val_set.describe(index),
        ),
        tag("figure", input_, tag("figcaption", f"the input, {seen.width} × {seen.height} px")),
    )
    return join(tag("p", _way(image, job), class_="note"), tag("div", *figures, class_="pictures crop"))


def _way(image: Image.Image, job: Job) -> str:
    preprocessing = job.preprocessing
    size = preprocessing.image_size
    sizes = ", ".join(f"{stage.image_size}" for stage in job.recipe.stages[:NUM_STAGES])
    more = ", …" if len(job.recipe.stages) > NUM_STAGES else ""
    trained = f"Trained at {sizes}{more} px; tested, and exported, at {size} px."
    if preprocessing.resize == "squash":
        return f"{trained} The whole picture is squashed to a square: nothing is cut off, and its shape is lost."
    left, top, right, bottom = crop_box(image.width, image.height, preprocessing)
    side, share = round(right - left), (right - left) * (bottom - top) / (image.width * image.height)
    return (
        f"{trained} Of this picture that is the middle, {side} × {side} px or {percent(share)} of its area, made "
        f"{size} × {size}: what lies outside the frame is never seen."
    )


def _marked(image: Image.Image, job: Job) -> Image.Image:
    """A small copy of a picture on which what is cut off is darkened, and the rest framed."""
    small = as_shown(image).convert("RGB")  # a copy, in which the frame has a colour
    small.thumbnail((CROP_PX, CROP_PX), Image.Resampling.BILINEAR)
    # Of 10,000 × 10 px the small copy is 224 × 1: each side has a scale of its own, and the crop a pixel at least.
    across, down = small.width / image.width, small.height / image.height
    box = crop_box(image.width, image.height, job.preprocessing)
    left, top = min(round(box[0] * across), small.width - 1), min(round(box[1] * down), small.height - 1)
    right, bottom = max(round(box[2] * across), left + 1), max(round(box[3] * down), top + 1)
    dark = small.point(lambda value: value // 3)
    dark.paste(small.crop((left, top, right, bottom)), (left, top))
    ImageDraw.Draw(dark).rectangle((left, top, right - 1, bottom - 1), outline=(255, 156, 74), width=2)
    return dark
