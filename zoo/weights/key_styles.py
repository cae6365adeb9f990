"""Owns how other projects name the same weights: one row per project, used in both directions; it touches no tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from zoo.model.spec import Stage, Variant
from zoo.rows import Row, Text

BlockKind = Literal["fused-1", "fused", "mbconv-1", "mbconv"]
# The tensors of a module.
CONV = ("weight",)
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
DENSE = ("weight", "bias")
# By the last word of the module's name; in torchvision's ResNets a shortcut is (convolution, norm).
LEAVES: dict[str, tuple[str, ...]] = dict.fromkeys(("conv", "conv1", "conv2", "conv3", "0"), CONV)
LEAVES |= dict.fromkeys(("norm", "bn1", "bn2", "bn3", "1"), NORM)


@dataclass(frozen=True, kw_only=True)
class KeyStyle(Row):
    """The names that one project gives to our modules.

    `outer` maps stem, head and classifier; `inner` maps the parts of a block, by its kind. `block(stage, index, flat)`
    names block number `index` of stage `stage` (from 1); `flat` is its number through all stages, from 0. `joint`
    stands between a block and its part. The tensors of a module always have PyTorch's names (`weight`,
    `running_mean`): readers of other formats translate them.
    """

    outer: Callable[[Variant], dict[str, str]]
    inner: dict[BlockKind, dict[str, str]]
    block: Callable[[int, int, int], str]
    joint: str = "."
    source: Text


def block_kind(stage: Stage) -> BlockKind:
    """Which parts a block has: one with expansion 1 has a convolution less, and other projects number its parts so."""
    if stage.operator == "fused_mbconv":
        return "fused-1" if stage.expand_ratio == 1 else "fused"
    return "mbconv-1" if stage.expand_ratio == 1 else "mbconv"


def blocks(variant: Variant) -> Iterator[tuple[Stage, int, int, int]]:
    """Yield (stage row, stage number from 1, block number from 0, number through all stages from 0)."""
    flat = 0
    for number, stage in enumerate(variant.stages, start=1):
        for index in range(stage.num_layers):
            yield stage, number, index, flat
            flat += 1


def key_map(style: KeyStyle, variant: Variant) -> dict[str, str]:
    """Every key of our state dict with its key in `style`, one to one."""
    if variant.is_resnet:
        return dict(_expand(_resnet(variant)))
    keys = dict(_expand(style.outer(variant)))
    for stage, number, index, flat in blocks(variant):
        theirs = style.block(number, index, flat)
        parts = {ours: name for ours, name in style.inner[block_kind(stage)].items() if _present(ours, stage)}
        for ours, other in _expand(parts):
            keys[f"stages.{number}.block.{index}.{ours}"] = f"{theirs}{style.joint}{other}"
    return keys


def _resnet(variant: Variant) -> dict[str, str]:
    """torchvision's names of a ResNet. Our backbone is its class, so only the classifier has another name."""
    names = ["conv1", "bn1"]
    for stage, number, index, _ in blocks(variant):
        block = f"layer{number}.{index}"
        names += [f"{block}.{part}{order}" for order in range(1, 4) for part in ("conv", "bn")]
        if index == 0 and (stage.stride > 1 or number == 1):
            names += [f"{block}.downsample.0", f"{block}.downsample.1"]
    return {f"backbone.{name}": name for name in names} | {"classifier": "fc"}


def _present(part: str, stage: Stage) -> bool:
    return bool(stage.se_ratio) or not part.startswith("se.")


def _expand(modules: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Module names to tensor names: the last word of a module's name says which tensors it has."""
    for ours, theirs in modules.items():
        kind = ours.rpartition(".")[2]
        for leaf in LEAVES.get(kind, DENSE):
            yield f"{ours}.{leaf}", f"{theirs}.{leaf}"


def _outer(*names: str) -> dict[str, str]:
    """The names of stem, head and classifier."""
    return dict(zip(("stem.conv", "stem.norm", "head.conv", "head.norm", "classifier"), names, strict=True))


def _inner(**units: tuple[str, str]) -> dict[str, str]:
    """The names of a block's parts: the convolution and the norm of each unit, the two convolutions of `se`."""
    halves = {"se": ("reduce", "expand")}
    return {
        f"{unit}.{half}": name
        for unit, names in units.items()
        for half, name in zip(halves.get(unit, ("conv", "norm")), names, strict=True)
    }


def _numbered(*units: str) -> dict[str, str]:
    """torchvision: a block is a list `block.N` of (conv, norm) pairs, with squeeze-and-excitation among them."""
    leaves = {"se": ("fc1", "fc2")}
    pairs = ((unit, *leaves.get(unit, ("0", "1"))) for unit in units)
    return _inner(**{unit: (f"block.{at}.{one}", f"block.{at}.{two}") for at, (unit, one, two) in enumerate(pairs)})


def _torchvision_outer(variant: Variant) -> dict[str, str]:
    last = len(variant.stages) + 1
    return _outer("features.0.0", "features.0.1", f"features.{last}.0", f"features.{last}.1", "classifier.1")


TORCHVISION = KeyStyle(
    outer=_torchvision_outer,
    inner={
        "fused-1": _numbered("fused"),
        "fused": _numbered("fused", "project"),
        "mbconv-1": _numbered("depthwise", "se", "project"),
        "mbconv": _numbered("expand", "depthwise", "se", "project"),
    },
    block=lambda stage, index, flat: f"features.{stage}.{index}",
    source="pytorch/vision torchvision/models/efficientnet.py",
)

_TIMM_SE = ("se.conv_reduce", "se.conv_expand")
TIMM = KeyStyle(
    outer=lambda variant: _outer("conv_stem", "bn1", "conv_head", "bn2", "classifier"),
    inner={
        "fused-1": _inner(fused=("conv", "bn1")),
        "fused": _inner(fused=("conv_exp", "bn1"), se=_TIMM_SE, project=("conv_pwl", "bn2")),
        "mbconv-1": _inner(depthwise=("conv_dw", "bn1"), se=_TIMM_SE, project=("conv_pw", "bn2")),
        "mbconv": _inner(
            expand=("conv_pw", "bn1"), depthwise=("conv_dw", "bn2"), se=_TIMM_SE, project=("conv_pwl", "bn3")
        ),
    },
    block=lambda stage, index, flat: f"blocks.{stage - 1}.{index}",
    source="huggingface/pytorch-image-models timm/models/efficientnet.py, _efficientnet_blocks.py",
)

_LUKEMELAS_DEPTHWISE = _inner(
    depthwise=("_depthwise_conv", "_bn1"), se=("_se_reduce", "_se_expand"), project=("_project_conv", "_bn2")
)
LUKEMELAS = KeyStyle(
    outer=lambda variant: _outer("_conv_stem", "_bn0", "_conv_head", "_bn1", "_fc"),
    # It has no Fused-MBConv, so networks with one have no names in this style.
    inner={
        "mbconv-1": _LUKEMELAS_DEPTHWISE,
        "mbconv": _inner(expand=("_expand_conv", "_bn0")) | _LUKEMELAS_DEPTHWISE,
    },
    block=lambda stage, index, flat: f"_blocks.{flat}",
    source="lukemelas/EfficientNet-PyTorch efficientnet_pytorch/model.py",
)


def _keras(depthwise: str, source: str) -> KeyStyle:
    """Keras numbers stages from 1 and blocks by letters (`block4c_project_conv`)."""
    expand, project, squeeze = (
        ("expand_conv", "expand_bn"),
        ("project_conv", "project_bn"),
        ("se_reduce", "se_expand"),
    )
    return KeyStyle(
        outer=lambda variant: _outer("stem_conv", "stem_bn", "top_conv", "top_bn", "predictions"),
        inner={
            "fused-1": _inner(fused=project),
            "fused": _inner(fused=expand, se=squeeze, project=project),
            "mbconv-1": _inner(depthwise=(depthwise, "bn"), se=squeeze, project=project),
            "mbconv": _inner(expand=expand, depthwise=(depthwise, "bn"), se=squeeze, project=project),
        },
        block=lambda stage, index, flat: f"block{stage}{chr(ord('a') + index)}",
        joint="_",
        source=source,
    )


KERAS_V2 = _keras("dwconv2", "keras-team/keras keras/src/applications/efficientnet_v2.py")
KERAS_V1 = _keras("dwconv", "keras-team/keras keras/src/applications/efficientnet.py")

# Google numbers the convolutions and the norms of a block in the order in which its code makes them.
_NORM = "tpu_batch_normalization"
_GOOGLE_SE = ("se/conv2d", "se/conv2d_1")
GOOGLE = KeyStyle(
    outer=lambda variant: _outer("stem/conv2d", f"stem/{_NORM}", "head/conv2d", f"head/{_NORM}", "head/dense"),
    inner={
        "fused-1": _inner(fused=("conv2d", _NORM)),
        "fused": _inner(fused=("conv2d", _NORM), se=_GOOGLE_SE, project=("conv2d_1", f"{_NORM}_1")),
        "mbconv-1": _inner(depthwise=("depthwise_conv2d", _NORM), se=_GOOGLE_SE, project=("conv2d", f"{_NORM}_1")),
        "mbconv": _inner(
            expand=("conv2d", _NORM),
            depthwise=("depthwise_conv2d", f"{_NORM}_1"),
            se=_GOOGLE_SE,
            project=("conv2d_1", f"{_NORM}_2"),
        ),
    },
    block=lambda stage, index, flat: f"blocks_{flat}",
    joint="/",
    source="google/automl efficientnetv2/effnetv2_model.py; tensorflow/tpu models/official/efficientnet",
)
