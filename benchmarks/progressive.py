"""Progressive learning beside its controls: the same network, pictures, epochs and seeds; accuracy and time of each.

    python benchmarks/progressive.py DATA                      the processor: `tiny` to 128 px, three seeds
    python benchmarks/progressive.py DATA --model s --epochs 30 --batch-size 128 --lr 2e-3 --device cuda

DATA is what `zoo train --data` takes; what is committed was measured on 500 training and 200 test pictures of each
class of CIFAR-10, as an .npz file.

Four arms: size and regularisation rise together (Algorithm 1); the size alone rises, regularised throughout as at the
end (Howard 2018; the paper's Table 13); neither does, regularised as at the beginning, or as at the end. All are tested
alike, at a tenth above the last training size. The arms of a seed run after one another, seed by seed, so that a
machine that slows down slows all of them. Finished runs are kept in --work: the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from serve.bench.kinds.progressive import ArmRow, ProgressiveData
from serve.bench.report.report import keep_result
from train.folder import find_run
from train.options import TrainOptions
from train.progressive.recipe import Recipe, find_recipe
from train.progressive.schedule import progressive_stages
from train.recipes import fixed, progressive_resize
from train.session import train_model
from train.settings import choose_precision
from zoo.console import log_console
from zoo.data.open import open_splits
from zoo.files import write_json
from zoo.machine import choose_device, processor_name
from zoo.model.spec import Variant
from zoo.model.variants import find_variant
from zoo.results import Result, Subject, measured_on

HERE = Path(__file__).parent
STAGES = 4
FIRST_SIZE_SHARE = 128 / 300  # as Table 6 has it for S


def fixed_light(base: Recipe) -> Recipe:
    """The last stage's size throughout, regularised as in the first: is it the regularisation that costs?"""
    stage = replace(base.stages[0], epochs=base.epochs, image_size=base.largest_size)
    return replace(base, name="fixed, light", source="control", stages=(stage,))


ARMS: dict[str, Callable[[Recipe], Recipe]] = {
    "progressive": lambda base: base,
    "size only": progressive_resize.control,
    "fixed, light": fixed_light,
    "fixed": fixed.control,
}


def main() -> None:
    """Train every arm with every seed, and write one result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="what `zoo train --data` takes")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=128, help="px of the last stage")
    parser.add_argument("--batch-size", type=int, default=64, help="the same in every stage and arm")
    parser.add_argument("--lr", type=float, default=8e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--work", type=Path, default=Path("build/progressive"), help="where the runs are kept")
    parser.add_argument("-o", "--out", type=Path, default=HERE)
    options = parser.parse_args()
    variant = find_variant(options.model)
    device = torch.device(choose_device(options.device))
    base = base_recipe(variant, options)
    rows = [run_arm(variant, arm, base, options, seed) for seed in options.seeds for arm in ARMS]
    train_set, val_set = open_splits(options.data)
    precision = choose_precision("auto", device)
    subject = Subject(
        name=f"{variant.id}-{options.image_size}px-{len(train_set)}-of-{Path(options.data).stem}-{options.epochs}-epochs",
        batch_sizes=(options.batch_size,),
        precision=precision,
        threads=torch.get_num_threads() if device.type == "cpu" else None,
    )
    result = Result(
        kind="progressive",
        name=f"{variant.id}-{options.image_size}px-{len(train_set)}-{precision}",
        environment=measured_on(torch.cuda.get_device_name() if device.type == "cuda" else processor_name()),
        settings={
            "subjects": [subject.to_dict()],
            "mode": f"{options.epochs} epochs of {len(train_set):,} pictures of {Path(options.data).stem}, tested on "
            f"{len(val_set):,} at {base.test_size} px; time is of training, validation apart; arms in turn",
            "model": variant.id,
            "pictures": len(train_set),
            "recipe": base.to_dict(),
            "precision": precision,
            "threads": subject.threads,
        },
        data=ProgressiveData(rows=tuple(rows)).to_dict(),
    )
    keep_result(result, options.out)


def base_recipe(variant: Variant, options: argparse.Namespace) -> Recipe:
    """`folder` for small pictures and short runs: gentler, one batch size for all stages."""
    last = options.image_size
    return replace(
        find_recipe("folder", variant),
        name="progressive",
        stages=progressive_stages(
            epochs=options.epochs,
            image_size=(round(last * FIRST_SIZE_SHARE), last),
            randaugment_magnitude=(1, 5),
            mixup_alpha=(0.0, 0.1),
            dropout=(0.1, 0.3),
            stochastic_depth_prob=(0.1, 0.1),
            batch_size=(options.batch_size,) * STAGES,
        ),
        test_size=round(last * 1.1),
        learning_rate=options.lr,
        warmup_epochs=1.0,
        ema_decay=0.99,
        crop_scale=(0.4, 1.0),
    )


def run_arm(variant: Variant, arm: str, base: Recipe, options: argparse.Namespace, seed: int) -> ArmRow:
    """One run, or what is kept of it."""
    folder = options.work / f"{arm.replace(' ', '-')}-{seed}"
    kept = folder.with_suffix(".json")
    recipe = ARMS[arm](base)
    settings = {"data": options.data, "model": variant.id, "recipe": json.loads(json.dumps(recipe.to_dict()))}
    if kept.is_file():
        said = json.loads(kept.read_text(encoding="utf-8"))
        if said["settings"] == settings:
            return ArmRow.from_dict(said["row"])
    used = processor_seconds()
    resumed = find_run(folder) == "interrupted"
    asked = TrainOptions(
        model=variant.id, data=options.data, out=folder, device=options.device, seed=seed, resume=resumed
    )
    # The pictures of seed 0 for every seed of a run.
    outcome = train_model(asked, recipe=recipe, pictures=open_splits(options.data), console=log_console())
    row = ArmRow(
        arm=arm,
        seed=seed,
        top1=outcome.result.top1,
        seconds=sum(epoch.seconds for epoch in outcome.history),
        processor_seconds=None if resumed else processor_seconds() - used,
        epochs=tuple(epoch.to_dict() for epoch in outcome.history),
    )
    write_json(kept, {"settings": settings, "row": row.to_dict()})
    print(f"{arm:12} seed {seed}  {100 * row.top1:.1f} %  {row.seconds:.0f} s of training", flush=True)
    return row


def processor_seconds() -> float:
    """Processor time of this process and its finished children."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in both)


if __name__ == "__main__":
    main()
