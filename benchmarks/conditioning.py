"""How accurately fp32 computes the networks that `zoo export --random-weights` makes: every row against its own fp64.

    python benchmarks/conditioning.py              every network at 96 px, damped and not, and damped at its own size
    python benchmarks/conditioning.py --only s --image-size 64 --undamped

A parity gate compares two orders of fp32 arithmetic. It can only tell a wrong graph from a right one where fp32 itself
is far more accurate than the gate's tolerance; fp64 is the judge of that.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from export.parity import judge
from export.precision.rows import find_precision
from export.source import BRANCH_SCALE, make_random_network
from serve.bench.kinds.conditioning import ConditioningData, ConditioningRow
from serve.bench.report.report import keep_result
from zoo.data.digits import sample_photographs
from zoo.data.pictures import load_prepared
from zoo.machine import processor_name
from zoo.model.network import Network
from zoo.model.spec import Preprocessing, Variant
from zoo.model.variants import VARIANTS
from zoo.results import Result, Subject, measured_on

HERE = Path(__file__).parent
SMALL_SIZE = 96
# Pictures to judge on: all tiles where they are small; fp64 of B7 at 600 px takes seconds a picture.
SMALL_COUNT, OWN_COUNT = 30, 8


def main() -> None:
    """Measure every network asked for, and write one result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="networks to measure")
    parser.add_argument("--image-size", type=int, help="px, instead of 96 and each network's own")
    parser.add_argument("--undamped", action="store_true", help="measure with --image-size what damping saves, too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, default=HERE)
    options = parser.parse_args()
    rows: list[ConditioningRow] = []
    for variant in VARIANTS:
        if options.only and variant.id not in options.only:
            continue
        for size, scale in arms(variant, options.image_size, undamped=options.undamped):
            rows.append(measure(variant, size, scale, options.seed))
            print(rows[-1], flush=True)
    sizes = f"{options.image_size}px" if options.image_size else ""
    subject = Subject(
        name=" ".join(filter(None, (*(options.only or ()), sizes))) or "all", threads=torch.get_num_threads()
    )
    result = Result(
        kind="conditioning",
        name="-".join(filter(None, (*(options.only or ()), sizes))) or "all",
        environment=measured_on(processor_name()),
        settings={"subjects": [subject.to_dict()], "seed": options.seed, "pictures": sample_photographs().name},
        data=ConditioningData(rows=tuple(rows)).to_dict(),
    )
    keep_result(result, options.out)


def arms(variant: Variant, image_size: int | None, *, undamped: bool) -> list[tuple[int, float]]:
    """What to measure of a network: sizes, and the scales of its residual branches."""
    if image_size:
        return [(image_size, scale) for scale in ((1.0, BRANCH_SCALE) if undamped else (BRANCH_SCALE,))]
    sizes = dict.fromkeys((SMALL_SIZE, variant.preprocessing.image_size))
    return [(SMALL_SIZE, 1.0), *((size, BRANCH_SCALE) for size in sizes)]


def measure(variant: Variant, image_size: int, branch_scale: float, seed: int) -> ConditioningRow:
    """Make a network and compare its fp32 with its fp64."""
    preprocessing = variant.preprocessing.at(image_size)
    count = SMALL_COUNT if image_size <= SMALL_SIZE else OWN_COUNT
    pictures, _, _ = load_prepared(sample_photographs().head(count), preprocessing)
    network = make_random_network(variant, preprocessing, seed=seed, branch_scale=branch_scale)
    single = logits(network, pictures, preprocessing)
    exact = logits(network.double(), pictures, preprocessing)
    parity = judge(exact, single, find_precision("fp32").tolerance)
    return ConditioningRow(
        network=variant.id,
        image_size=image_size,
        branch_scale=branch_scale,
        relative_rms_error=float(np.sqrt(np.square(single - exact).mean() / np.square(exact).mean())),
        relative_max_error=parity.relative_max_error,
        relative_mean_error=parity.relative_mean_error,
        largest_logit=parity.scale,
        spread=float(exact.std(axis=0).mean()),
        classes=len(np.unique(exact.argmax(axis=1))),
        top1_agreement=parity.top1_agreement,
        passed=parity.passed,
        n=len(pictures),
    )


@torch.no_grad()
def logits(network: Network, pictures: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float64]:
    """Logits (N, K) in the network's own precision, picture by picture, as fp64."""
    dtype = network.classifier.weight.dtype
    mean, std = (torch.tensor(values, dtype=dtype)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    answers = [network(((torch.tensor(one).permute(2, 0, 1).to(dtype) - mean) / std)[None]) for one in pictures]
    exact: NDArray[np.float64] = torch.cat(answers).double().numpy()
    return exact


if __name__ == "__main__":
    main()
