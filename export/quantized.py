"""Owns how an export gets its 8-bit graphs: calibration pictures, one calibration, a choice for each back end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from onnx import ModelProto
from torch import nn

from export.interface import as_input
from export.options import ExportOptions
from export.parity import same_answers
from export.precision.qdq import Layout
from export.precision.quantize import Calibrated, calibrate
from export.precision.rows import Precision, find_precision
from export.precision.scores import QuantizationCard
from export.precision.sensitivity import Scale, choose_kept, keep_named
from export.precision.statistics import Inputs
from export.precision.wiring import block_of, part_of
from export.runners.runner import are_finite, not_finite
from export.source import Source
from export.watch import Watch
from zoo.data.digits import sample_photographs
from zoo.data.folder import picture_files
from zoo.data.open import is_labels, open_splits, was_recorded
from zoo.data.pictures import Pictures, load_prepared
from zoo.data.shards import is_shards
from zoo.errors import DataError, ZooError, look_up

# Enough for the tail of every tensor; NVIDIA's guide and published practice take 500 (developer guide, "Post-Training
# Quantization").
NUM_CALIBRATION = 512
# Compared for every block, and the choice is made by them: of 128 one answer is 0.8 %. Of larger pictures than 224 px
# fewer, as many pixels: 43 of 384 px.
MOST_COMPARED, FEWEST_COMPARED, PIXELS_COMPARED = 128, 32, 128 * 224**2
# The method of a card whose ranges and weights are those of `zoo train --qat`.
TRAINED = "trained"


@dataclass
class Quantization:
    """The 8-bit graphs of one export; pictures are opened, and the graph calibrated, when the first is asked for."""

    options: ExportOptions
    source: Source
    exported: ModelProto
    watch: Watch
    chosen: Pictures | None = None  # to calibrate on; None: those of `calibration_pictures`
    scales: dict[tuple[str, str], Scale] = field(default_factory=dict)
    _cards: dict[tuple[str, str], QuantizationCard] = field(default_factory=dict)

    @cached_property
    def pictures(self) -> tuple[str, Inputs]:
        """The calibration pictures: their name, and themselves as the graph takes them."""
        chosen = self.chosen or calibration_pictures(self.options, self.source)
        self.watch.step(f"Read {len(chosen)} pictures of {Path(chosen.name).name} to calibrate on")
        prepared, _, broken = load_prepared(chosen, self.source.contract.preprocessing)
        if not len(prepared):
            raise DataError(
                f"None of {len(broken)} pictures of {chosen.name} can be decoded: {broken[0]}", "Pass --calib."
            )
        return Path(chosen.name).name, as_input(prepared, self.source.contract)

    @cached_property
    def calibrated(self) -> Calibrated:
        """The exported graph with what these pictures tell of it."""
        name, pictures = self.pictures
        self.watch.step(f"Calibrate on {len(pictures)} pictures of {name}")

        def on_progress(done: int, total: int) -> None:
            self.watch.progress(f"{done}/{total}", done, total)

        return calibrate(self.exported, pictures, trained=self._trained, on_progress=on_progress)

    @property
    def _trained(self) -> dict[str, tuple[float, float]]:
        """The ranges of a checkpoint that was trained for int8."""
        checkpoint = self.source.checkpoint
        return {row.point: (row.low, row.high) for row in checkpoint.ranges} if checkpoint else {}

    def _was_trained_for(self, precision: Precision) -> bool:
        return bool(self._trained) and precision.id == "int8"

    @property
    def calibrated_on(self) -> tuple[str, int]:
        """The name of the calibration pictures, and their number."""
        name, pictures = self.pictures
        return name, len(pictures)

    def make(self, precision: Precision, layout: Layout) -> tuple[ModelProto, QuantizationCard]:
        """The graph in 8 bits for a back end, the blocks that cannot bear them left in float, and what was found.

        Raises:
            DataError: there are no pictures to calibrate on.
        """
        key = precision.id, layout.id
        if key not in self._cards:
            self._cards[key] = self._choose(precision, layout)
        return self.with_kept(precision, layout, self._cards[key].choice.kept), self._cards[key]

    def with_kept(self, precision: Precision, layout: Layout, kept: Collection[str]) -> ModelProto:
        """The graph in 8 bits for a back end, the modules `kept` left in float."""
        return self.calibrated.quantized(layout=layout, kept=kept, float8=precision.id == "fp8")

    def _scale(self, precision: Precision, layout: Layout) -> Scale:
        """What scores the 8-bit graphs of one form."""
        key, contract = (precision.id, layout.id), self.source.contract
        if key not in self.scales:
            count = PIXELS_COMPARED // contract.preprocessing.image_size**2
            scale = Scale(
                self.exported,
                lambda kept: self.with_kept(precision, layout, kept),
                _spread(self.pictures[1], min(max(count, FEWEST_COMPARED), MOST_COMPARED)),
                lambda reference, logits: same_answers(reference, logits, contract.thresholds),
            )
            if unusable := int((~are_finite(scale.reference)).sum()):
                raise not_finite("The network itself", unusable, len(scale.reference))
            self.scales[key] = scale
        return self.scales[key]

    def _choose(self, precision: Precision, layout: Layout) -> QuantizationCard:
        name, pictures = self.pictures
        calibrated = self.calibrated
        parts = calibrated.macs(parts=True)
        scale = self._scale(precision, layout)
        if self.options.keep or self._was_trained_for(precision):
            self.watch.step(f"Compare {precision.id} with fp32, in {layout.id}'s form")
            choice = keep_named(scale, self.options.keep, parts)
        else:
            self.watch.step(f"Find the blocks that cannot bear {precision.id}, in {layout.id}'s form")
            choice = choose_kept(
                scale,
                calibrated.macs(),
                parts,
                target=self.options.agreement,
                on_progress=lambda done, total: self.watch.progress(f"block {done}/{total}", done, total),
            )
        return QuantizationCard(
            layout=layout.id,
            method=TRAINED if self._was_trained_for(precision) else calibrated.method,
            pictures=name,
            n=len(pictures),
            choice=choice,
        )


def check_quantization(options: ExportOptions) -> None:
    """Refuse, before long work, options of quantization where nothing is quantized.

    Raises:
        ZooError: names the option.
    """
    chosen = {options.precision, options.trt} - {None}
    if any(find_precision(str(id)).calibrated for id in chosen):
        return
    defaults = ExportOptions(model=options.model)
    for option in ("calib", "keep", "agreement"):
        if getattr(options, option) != getattr(defaults, option):
            raise ZooError(
                f"--{option} has no effect: nothing is quantized.", "Add --precision int8, or --trt int8 or fp8."
            )


def calibration_pictures(options: ExportOptions, source: Source, count: int = NUM_CALIBRATION) -> Pictures:
    """Choose pictures to calibrate on: of every class alike, at most `count`, and never those to validate on.

    The first of these: the train split of `--calib`; that of the data the checkpoint recorded, if it is still there;
    of random weights, photographs that come with scikit-learn.

    Raises:
        DataError: there are none, or they cannot be used.
    """
    provenance = source.checkpoint.provenance if source.checkpoint else {}
    recorded, seed = provenance.get("data"), int(provenance.get("seed") or 0)
    if options.calib and Path(options.calib).is_dir() and not is_shards(Path(options.calib)):
        return stratified(_of_folder(Path(options.calib)), count)
    data = options.calib or recorded
    if not data and source.checkpoint is None:
        return sample_photographs(source.contract.preprocessing.channels)
    if not data:
        raise DataError(
            f"{source.label} does not say which pictures it was trained on, and 8 bits are calibrated on such ones.",
            "Pass --calib FOLDER: some hundred pictures like those it will see, one folder per class.",
        )
    if not options.calib and not (data == "digits" or Path(data).exists() or is_labels(data)):
        raise DataError(
            f"{data}, on which {source.label} was trained, is not here, and 8 bits are calibrated on it.",
            "Pass --calib FOLDER: some hundred pictures like those it will see, one folder per class.",
        )
    own = was_recorded(data, recorded)
    train, _ = open_splits(data, seed=seed if own else 0, group_by=provenance.get("group_by") if own else None)
    return stratified(train, count)


def _of_folder(root: Path) -> Pictures:
    """All pictures of a folder, or of its train/; nobody asks for their classes, so any folders inside will do."""
    files = [file for file, _ in picture_files(root / "train" if (root / "train").is_dir() else root, Counter())]
    if not files:
        raise DataError(
            f"{root} has no pictures to calibrate on.", "Pass some hundred like those the network will see."
        )
    groups, labels = np.unique([str(file.parent) for file in files], return_inverse=True)
    return Pictures(str(root), tuple(groups.tolist()), files, labels.astype(np.int64))


def stratified(pictures: Pictures, count: int) -> Pictures:
    """At most `count` pictures, of every class as many, or all it has; of each spread over those it has.

    Of pictures with several labels they are spread over all.
    """
    if pictures.multi_label or count >= len(pictures):
        return pictures.head(count)
    by_class = [np.flatnonzero(pictures.labels == label) for label in range(len(pictures.classes))]
    # In turns: the first of each class, then the second of each, …
    spread = [np.random.default_rng(label).permutation(own) for label, own in enumerate(by_class)]
    turns = [own[turn] for turn in range(max(map(len, spread))) for own in spread if turn < len(own)]
    return pictures.at(np.array(turns[:count], np.int64))


def _spread(pictures: Inputs, count: int) -> Inputs:
    chosen: Inputs = pictures[
        np.unique(np.linspace(0, len(pictures) - 1, min(count, len(pictures))).round().astype(int))
    ]
    return chosen


def check_kept(keep: Collection[str], network: nn.Module) -> None:
    """Refuse, before long work, a block or a part of one that a network does not have.

    Raises:
        UnknownNameError: names the nearest.
    """
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    parts = [part_of(name) for name in layers]
    known = {name: name for name in (*map(block_of, layers), *parts)}
    for path in keep:
        if not any(part.startswith(f"{path}.") for part in parts):
            hint = "Blocks are named as `stages.3.block.0`, `stem`, `head`, `classifier`."
            look_up(known, path, kind="block", hint=hint)
