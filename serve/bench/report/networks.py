"""Owns the tables of the networks that were measured: every part of one, its size and its share of the work."""

from __future__ import annotations

from collections.abc import Iterable

from serve.bench.kind import Network
from zoo.model.counts import Part, parts
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS
from zoo.page.elements import table
from zoo.page.markup import Child, Markup, join, tag
from zoo.wording import OPERATOR_NAMES, count, percent


def known_networks(measured: Iterable[Network]) -> list[tuple[Variant, int, int]]:
    """Each network at each size and number of classes once, by name and size; an id that no row has is left out.

    An id means the row that was measured under it, which may be a checkpoint's own, else the zoo's.
    """
    measured = list(measured)
    rows = {variant.id: variant for variant in VARIANTS}
    rows |= {network.id: network for network, _, _ in measured if isinstance(network, Variant)}
    found = {
        (rows[network] if isinstance(network, str) else network, image_size, num_classes)
        for network, image_size, num_classes in measured
        if not isinstance(network, str) or network in rows
    }
    return sorted(found, key=lambda one: (one[0].name, *one[1:]))


def network_table(variant: Variant, image_size: int, num_classes: int) -> Markup:
    """A network, part by part."""
    listed = list(parts(variant, image_size=image_size, num_classes=num_classes))
    macs, params = sum(part.macs for part in listed), sum(part.num_params for part in listed)
    rows = [_part_cells(part, macs) for part in listed]
    rows.append(["", tag("strong", "total"), "", "", "", "", count(params), count(macs), ""])
    heads = ("", "operator", "channels", "blocks", "stride", "output px", "params", "MACs", "share of MACs")
    caption = f"{variant.name} at {image_size} px with {num_classes:,} classes"
    return table(heads, rows, caption=caption, words=(0, 1, 8))


def _part_cells(part: Part, macs: int) -> list[Child]:
    share = part.macs / macs
    kernel = "" if part.operator == "head" else f" {part.kernel_size}×{part.kernel_size}"
    if part.operator in ("mbconv", "fused_mbconv"):
        kernel += f", expand {part.expand_ratio}"
    meter = tag("span", class_=f"meter {part.operator}", style=f"--share:{share * 100:.2f}%")
    return [
        {"conv": "stem", "head": "head"}.get(part.operator, str(part.index)),
        f"{OPERATOR_NAMES[part.operator]}{kernel}",
        f"{part.in_channels}→{part.out_channels}",
        str(part.num_layers),
        str(part.stride),
        str(part.size),
        count(part.num_params),
        count(part.macs),
        join(meter, " ", percent(share)),
    ]
