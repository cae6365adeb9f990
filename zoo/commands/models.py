"""Owns the commands that show and make rows: list, show, scale. They import no framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from zoo.model.scaling import Factor
from zoo.model.spec import COLOR_ORDERS
from zoo.options import Arg, OneOf, Opt, json_option, takes
from zoo.rows import Row
from zoo.wording import OPERATOR_COLOURS, OPERATOR_NAMES

if TYPE_CHECKING:
    from zoo.console import FittingTable
    from zoo.model.counts import Part
    from zoo.model.spec import Variant
    from zoo.weights.spec import Weights


@click.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """Show every network: parameters, MACs, sizes, published accuracy, weights.

    Top-1 is that of the first weights named, which `zoo pull MODEL` fetches: on ImageNet's validation pictures, as
    their authors published it, at the size beside it. ft, ns: more pictures than ImageNet-1k's were trained on.
    """
    from zoo.console import print_json
    from zoo.model.variants import VARIANTS

    rows = [summary_of(variant) for variant in VARIANTS]
    if as_json:
        print_json(rows)
    else:
        _print_models(rows)


def summary_of(variant: Variant) -> dict[str, Any]:
    """One line of `zoo list --json`: MACs at the eval size, trainable parameters at 1,000 classes."""
    from zoo.model.counts import count_macs, count_params
    from zoo.weights.table import weights_of

    weights = weights_of(variant.id)
    return {
        "id": variant.id,
        "family": variant.family,
        "num_params": count_params(variant),
        "macs": count_macs(variant),
        "train_size": variant.train_size,
        "eval_size": variant.eval_size,
        "weights": [row.id for row in weights],
        "accuracy": None if not weights else _published(weights[0]),
    }


def _published(weights: Weights) -> dict[str, Any]:
    """A published accuracy on ImageNet-1k's validation pictures as shares of 1, and the side of the input."""
    return {"weights": weights.id, "image_size": weights.preprocessing.image_size} | weights.accuracy.to_dict()


@click.command("show")
@click.argument("model")
@click.option("--image-size", type=click.IntRange(16), help="Pixels a side  [default: the eval size]")
@click.option("--channels", type=OneOf(tuple(COLOR_ORDERS)), help="Planes of a picture  [default: MODEL's own, 3]")
@json_option
def show_model(model: str, image_size: int | None, channels: int | None, as_json: bool) -> None:
    """Show MODEL stage by stage: operator, channels, layers, stride, parameters, MACs."""
    from rich.markup import escape

    from zoo.console import print_json
    from zoo.model.counts import parts
    from zoo.weights.resolve import find_model_variant

    variant = find_model_variant(model, channels)
    size = image_size or variant.eval_size
    stages = list(parts(variant, image_size=size))
    if as_json:
        shown = {"image_size": size, "stages": [asdict(part) for part in stages]}
        print_json(summary_of(variant) | shown)
    else:
        about = escape(f"({variant.id}) at {size} px. {variant.source}")
        _print_stages(f"[bold]{escape(variant.name)}[/] {about}", stages)


@dataclass(frozen=True, kw_only=True)
class ScaleOptions(Row):
    """What `zoo scale` can be told."""

    model: Annotated[str, Arg("MODEL")]
    depth: Annotated[Factor, Opt("Layers, times this.")] = 1.0
    width: Annotated[Factor, Opt("Channels, times this, in multiples of 8.")] = 1.0
    resolution: Annotated[Factor, Opt("Image size, times this, up to 480 px.")] = 1.0
    id: Annotated[str | None, Opt("Name of the new network  [default: the file's]")] = None
    out: Annotated[Path, Opt("Row file to write: NAME.toml.", flags=("-o", "--out"))]


@click.command("scale")
@takes(ScaleOptions)
@json_option
def scale_model(options: ScaleOptions, as_json: bool) -> None:
    """Write a row file: MODEL scaled by the paper's rule, to be edited, trained and exported like any other.

    Compound scaling with two additions (EfficientNetV2 §3.3): the inference size is capped at 480 px, and a deeper
    network gets extra layers in its later stages.

    \b
    zoo scale s --depth 1.2 --width 1.1 -o mynet.toml
    zoo show mynet.toml
    zoo train mynet.toml --data pictures/
    """
    from zoo.console import print_json
    from zoo.model.row_files import write_new_row
    from zoo.model.scaling import scale_by_paper
    from zoo.weights.resolve import ROW_SUFFIX, find_model_variant

    out, depth, width, resolution = options.out, options.depth, options.width, options.resolution
    if out.suffix != ROW_SUFFIX:
        raise click.BadParameter(f"{out} does not end in {ROW_SUFFIX}.", param_hint="--out")
    base = find_model_variant(options.model)
    scaled = scale_by_paper(base, options.id or out.stem, depth=depth, width=width, resolution=resolution)
    asked = base.eval_size * resolution
    if asked > scaled.eval_size + 8:
        click.echo(f"The inference size is capped at {scaled.eval_size} px; asked for were {asked:.0f}.", err=True)
    made_by = f"`zoo scale {options.model} --depth {depth:g} --width {width:g} --resolution {resolution:g}`"
    row = write_new_row(out, scaled, made_by)
    before, after = summary_of(base), summary_of(row)
    if as_json:
        print_json(after | {"file": str(out)})
        return
    click.echo(out)
    click.echo(
        f"{before['num_params'] / 1e6:.2f} → {after['num_params'] / 1e6:.2f} M parameters, "
        f"{before['macs'] / 1e9:.3g} → {after['macs'] / 1e9:.3g} GMACs, "
        f"{base.eval_size} → {row.eval_size} px. `zoo show {out}` draws it."
    )


def _print_models(rows: Sequence[dict[str, Any]]) -> None:
    from zoo.console import FittingTable, results_console

    table = FittingTable("model", "family")
    for column in ("params, M", "GMACs", "train px", "eval px", "top-1"):
        table.add_column(column, justify="right")
    table.add_column("weights")
    for row in rows:
        accuracy = row["accuracy"]
        table.add_row(
            f"[bold]{row['id']}[/]",
            row["family"],
            f"{row['num_params'] / 1e6:.2f}",
            f"{row['macs'] / 1e9:.3g}",
            str(row["train_size"]),
            str(row["eval_size"]),
            f"{accuracy['top1']:.1%} at {accuracy['image_size']}" if accuracy else "",
            ", ".join(row["weights"]) or "train it",
        )
    results_console().print(table)


def _print_stages(title: str, stages: Sequence[Part]) -> None:
    from zoo.console import results_console

    total_params = sum(part.num_params for part in stages)
    total_macs = sum(part.macs for part in stages)
    console = results_console()
    console.print(title)
    console.print(stage_table(stages))
    console.print(f"{total_params:,} parameters, {total_macs / 1e9:.3g} GMACs, 1,000 classes")


def stage_table(stages: Sequence[Part]) -> FittingTable:
    """A network stage by stage: operator, channels, layers, stride, parameters, MACs and their shares."""
    from zoo.console import FittingTable

    total_macs = sum(part.macs for part in stages)
    table = FittingTable("stage", "operator")
    for column in ("kernel", "stride", "expand", "SE", "channels", "layers", "out px", "params", "MMACs"):
        table.add_column(column, justify="right")
    table.add_column("share of MACs")
    for part in stages:
        name, style = OPERATOR_NAMES[part.operator], OPERATOR_COLOURS[part.operator]
        bar = "█" * round(30 * part.macs / total_macs) or "▏"
        table.add_row(
            str(part.index),
            f"[{style}]{name}[/]",
            f"{part.kernel_size}×{part.kernel_size}",
            str(part.stride),
            str(part.expand_ratio),
            f"{part.se_ratio:g}" if part.se_ratio else "",
            f"{part.in_channels} → {part.out_channels}",
            str(part.num_layers),
            str(part.size),
            f"{part.num_params:,}",
            f"{part.macs / 1e6:,.1f}",
            f"[{style}]{bar}[/] {part.macs / total_macs:.0%}",
        )
    return table
