"""Owns what `zoo inspect` shows on a terminal; it finds nothing out."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from rich.console import Console
from rich.filesize import decimal
from rich.text import Text

from export.engine.builders import EngineSettings
from export.inspection.card import Inspection, Port
from export.passport import Parity
from zoo.commands.models import stage_table
from zoo.console import FittingTable
from zoo.model.counts import Part
from zoo.visible import visible

FEW = 8  # classes that are named
KINDS = {"checkpoint": "a checkpoint", "onnx": "an ONNX graph", "plan": "a TensorRT plan"}

COMPAT_WORDS = {"same": "on every GPU of this compute capability", "ampere+": "on Ampere and later"}


def show(found: Inspection, console: Console) -> None:
    """Print facts, stages, and what can be done here."""
    console.print(Text.assemble((visible(found.artifact), "bold"), f"  {KINDS[found.kind]} of {found.contract.model}"))
    console.print(_pairs(_facts(found)))
    if found.stages:
        stages = [Part(**stage) for stage in found.stages]
        console.print(stage_table(stages))
        size, classes = found.contract.preprocessing.image_size, len(found.contract.classes)
        told = "1 class" if classes == 1 else f"{classes:,} classes"
        console.print(f"{found.num_params:,} parameters, {(found.macs or 0) / 1e9:.3g} GMACs at {size} px, {told}")
    console.print(_pairs(_chances(found)))


def _pairs(lines: Iterator[tuple[str, str]]) -> FittingTable:
    table = FittingTable(show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, value in lines:
        table.add_row(name, Text(visible(value)))
    return table


def _facts(found: Inspection) -> Iterator[tuple[str, str]]:
    contract, file = found.contract, found.file
    yield "file", f"{file.name}, {decimal(file.bytes)}, {file.precision}, sha256 {file.sha256}"
    if beside := file.weights:
        yield "its weights", f"{beside.name}, {decimal(beside.bytes)}, sha256 {beside.sha256}; keep it beside the file"
    for name, ports in (("input", found.inputs), ("output", found.outputs)):
        yield from ((name, _port(port)) for port in ports)
    yield "preprocessing", _preprocessing(found)
    named = ", ".join(contract.classes[:FEW]) + (", …" if len(contract.classes) > FEW else "")
    yield "classes", f"{len(contract.classes):,}: {named}"
    if contract.thresholds is not None:
        yield "task", "several labels a picture, each from its own threshold on"
    if found.opset:
        yield "opset", str(found.opset)
    yield "accuracy", found.accuracy or "not recorded"
    yield "licence", found.licence or "not recorded: it is that of what it was trained on and from"
    if found.checkpoint and not found.random_weights:
        yield "weights", f"{found.checkpoint.source}, sha256 {found.checkpoint.sha256 or 'not recorded'}"
    if found.random_weights:
        yield "weights", "random: for latency only"
    if found.kind != "checkpoint":
        yield "passport", found.passport
        yield "signature", found.signature or "none"
        yield from _parities(found)
        yield from _quick(found)
    if built := found.builder:
        yield "built by", f"{built.name} {built.version} for {', '.join(built.targets)}; {_settings(built.built_as)}"
        if built.refitted_from:
            yield "refitted from", f"a plan of sha256 {built.refitted_from}"
    yield "made by", found.made_by + (f"  ({found.created})" if found.created else "")


def _settings(built_as: EngineSettings) -> str:
    """What an engine was built to be, where it is not the usual."""
    words = [f"batches {row.min} to {row.max}, tuned for {row.opt}" for row in built_as.profiles]
    words += [f"workspace {built_as.workspace_mib} MiB"] if built_as.workspace_mib is not None else []
    level = built_as.optimization_level
    words += [f"optimization level {level}"] if level is not None else []
    words += [COMPAT_WORDS[built_as.compat]] if built_as.compat else []
    words += ["for later releases too"] if built_as.version_compatible else []
    words += [f"weights {built_as.weights}"] if built_as.weights != "fixed" else []
    return "; ".join(words)


def _port(port: Port) -> str:
    shape = " × ".join("batch" if side < 0 else str(side) for side in port.shape)
    return f"{port.name}: {shape} {port.dtype}"


def _preprocessing(found: Inspection) -> str:
    row = found.contract.preprocessing
    cut = "the whole picture" if row.resize == "squash" else f"short side to {row.resize_size} px, then the middle"
    where = "inside the graph" if found.contract.form.input == "uint8" else "by the client"
    mean, std = ("/".join(f"{value:g}" for value in values) for values in (row.mean, row.std))
    return (
        f"{row.image_size} px, {cut}, {row.interpolation}, antialiased, {row.color_order}; "
        f"mean {mean}, std {std} of 0…255, {where}"
    )


def _parities(found: Inspection) -> Iterator[tuple[str, str]]:
    if found.parity is None:
        return
    names = ("onnx",) if found.kind == "onnx" else ("graph", "plan")
    for name in names:
        parity: Parity | None = getattr(found.parity, name)
        why = found.parity.notes.get(name, "not run")
        yield f"parity, {name}", f"{'passed' if parity.passed else 'failed'}: {parity.summary()}" if parity else why
    if found.kind == "onnx":
        for one in found.parity.backends:
            yield f"parity, {one.backend}", f"passed: {one.parity.summary()}"


def _quick(found: Inspection) -> Iterator[tuple[str, str]]:
    if found.quick:
        yield "quick pictures", found.quick.summary()


def _chances(found: Inspection) -> Iterator[tuple[str, str]]:
    for ability in found.opens_here:
        yield "opens here" if ability.opens else "not here", f"{ability.runner}: {ability.why}"
    if found.rebuild:
        yield "rebuild with", found.rebuild
    if found.kind != "checkpoint":
        yield "in your program", shlex.join(["zoo", "inspect", found.artifact, "--snippet", "python"])
