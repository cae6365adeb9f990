"""Owns the programs that use one artifact with nothing of this project: Python and C++, for an .onnx and a .plan.

What is alike in all of them stands in `templates/`; what depends on the contract is put in here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Literal

import numpy as np

from export.contract import Contract
from export.engine.builders import BuildCard, EngineSettings, find_builder
from export.inspection.card import Inspection
from export.interface import input_of, outputs_of
from export.options import TOP
from zoo.errors import ZooError

Language = Literal["python", "cpp"]

# Pillow's filters (src/libImaging/Resample.c): pixels to either side, and the weight at a distance x ≥ 0.
FILTERS = {
    "bilinear": ("1.0", "    return x < 1 ? 1 - x : 0;"),
    "bicubic": (
        "2.0",
        "    if (x < 1) return (1.5 * x - 2.5) * x * x + 1;\n"
        "    return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;",
    ),
}
# Netpbm's files by their number of planes: the first two letters, the name, the ending.
MAGIC = {1: ("P5", "PGM", "pgm"), 3: ("P6", "PPM", "ppm")}
INCLUDES = "\n".join(
    f"#include <{name}>"
    for name in (
        *("algorithm", "array", "cmath", "cstdint", "fstream", "iostream", "iterator", "memory", "numeric"),
        *("stdexcept", "string", "utility", "vector"),
    )
)


def snippet_of(found: Inspection, language: Language) -> str:
    """A program for what was inspected.

    Raises:
        ZooError: a checkpoint, which only this project reads; a plan that has to be told more than the program says.
    """
    if found.kind == "checkpoint":
        raise ZooError(
            f"{found.artifact} is a checkpoint: a program that uses it needs this project.",
            "`zoo export` makes an .onnx of it, which needs nothing of ours; in Python: docs/python-api.md.",
        )
    settings = found.builder.built_as if found.builder else EngineSettings()
    if settings.weights == "stripped" or settings.version_compatible:
        what = "is kept without weights" if settings.weights == "stripped" else "carries a runtime of its own"
        raise ZooError(
            f"{found.artifact} {what}, which the program would have to provide for.",
            "Build a plan without --weights stripped and --version-compatible, or print the program of its .onnx.",
        )
    write = python_snippet if language == "python" else cpp_snippet
    return write(found.file.name, found.contract, sha256=found.file.sha256, built=found.builder)


def python_snippet(file: str, contract: Contract, *, sha256: str = "", built: BuildCard | None = None) -> str:
    """A Python program for an .onnx or, where it was `built`, a .plan that lies in the working folder as `file`.

    It prints a line for each picture and class: the picture, the class and the score, with tabs between.
    """
    taken, answered = input_of(contract), outputs_of(contract)
    is_planes = contract.form.input == "float"
    fields = {
        "file": _plain(file),
        "file_literal": repr(file),
        "size": contract.preprocessing.image_size,
        "prepare": _python_prepare(contract),
        "planes": _PYTHON_PLANES if is_planes else "",
        "input_literal": repr(taken.name),
        "input_value": "planes" if is_planes else "pictures",
        "output_literal": repr(answered[0].name),
        "outputs_literal": repr({each.name: (each.shape, each.dtype) for each in answered}),
        "answer": _python_answer(contract),
    }
    if built is None:
        return _filled("onnx.py", fields)
    builder = find_builder(built.name)
    return _filled(
        "plan.py",
        fields
        | _of_plan(file, sha256, built)
        | {"module": builder.modules[0], "package": f"{builder.id}-cu13", "most": built.profile.max},
    )


def cpp_snippet(file: str, contract: Contract, *, sha256: str = "", built: BuildCard | None = None) -> str:
    """The same in C++17, for a picture as a binary PPM or PGM: a decoder of JPEG is the reader's choice.

    Raises:
        ZooError: the network takes four planes, for which there is no such file.
    """
    channels = contract.preprocessing.channels
    if channels not in MAGIC:
        raise ZooError(
            f"{file} takes {contract.preprocessing.planes}; the program in C++ reads PPM or PGM, of three or one.",
            "`zoo inspect --snippet python` writes one that reads them.",
        )
    magic, name, suffix = MAGIC[channels]
    taken, answered = input_of(contract), outputs_of(contract)
    support, weights = FILTERS[contract.preprocessing.interpolation]
    picture = {
        "magic": magic,
        "kind": name,
        "suffix": suffix,
        "interpolation": contract.preprocessing.interpolation,
        "support": support,
        "filter": weights,
        "box": _cpp_box(contract),
        "scores": _cpp_scores(contract),
        "print": _cpp_print(contract),
    }
    outputs = ((each.name, math.prod(each.shape) * np.dtype(each.dtype).itemsize) for each in answered)
    fields = {
        "file": _plain(file),
        "file_cpp": _cpp_text(file),
        "includes": INCLUDES,
        "size": contract.preprocessing.image_size,
        "channels": channels,
        "suffix": suffix,
        "num_classes": len(contract.classes),
        "classes": ", ".join(map(_cpp_text, contract.classes)),
        "thresholds": _cpp_thresholds(contract),
        "picture": _filled("picture.cpp", picture),
        "input": _cpp_input(contract),
        "type": "float" if contract.form.input == "float" else "unsigned char",
        "shape": "CHANNELS, SIZE, SIZE" if contract.form.input == "float" else "SIZE, SIZE, CHANNELS",
        "input_cpp": _cpp_text(taken.name),
        "output_cpp": _cpp_text(answered[0].name),
        "outputs": ", ".join(f"{{{_cpp_text(name)}, {num_bytes}}}" for name, num_bytes in outputs),
    }
    if built is None:
        return _filled("onnx.cpp", fields)
    builder = find_builder(built.name)
    link = "-ltensorrt_rtx" if builder.ahead_of_time else "-lnvinfer"
    return _filled("plan.cpp", fields | _of_plan(file, sha256, built) | {"name": builder.name, "link": link})


def _filled(template: str, fields: Mapping[str, object]) -> str:
    text = files("export.inspection").joinpath("templates", f"{template}.txt").read_text(encoding="utf-8")
    return Template(text).substitute(fields)


def _plain(text: str) -> str:
    """What a file is called or a passport says, as it may stand in a comment: anyone may have written it there."""
    return re.sub(r"[^\w.,+ -]", "_", text)


def _of_plan(file: str, sha256: str, built: BuildCard) -> dict[str, object]:
    return {
        "sha256": sha256,
        "passport_literal": repr(f"{file.removesuffix('.plan')}.json"),
        "least": built.profile.min,
        "version": _plain(f"{built.name} {built.version}"),
        "targets": _plain(", ".join(built.targets)),
    }


_PYTHON_PLANES = """mean, std = (np.array(contract["preprocessing"][name], np.float32) for name in ("mean", "std"))
planes = (pictures.transpose(0, 3, 1, 2).astype(np.float32) - mean[:, None, None]) / std[:, None, None]
"""


def _python_prepare(contract: Contract) -> str:
    """The function that opens a picture and resizes it as `zoo.data.preprocess.prepare` does."""
    preprocessing = contract.preprocessing
    method = f"Image.Resampling.{preprocessing.interpolation.upper()}"
    grey = "[..., None]" if preprocessing.channels == 1 else ""
    if preprocessing.resize == "squash":
        what = "all of it"
        resize = [f"return np.asarray(picture.resize((SIZE, SIZE), {method})){grey}"]
    else:
        what = f"its middle, {preprocessing.image_size} of {preprocessing.resize_size} pixels of the short side"
        resize = [
            f"side = min(picture.size) * SIZE / {preprocessing.resize_size or preprocessing.image_size}",
            "left, top = (picture.width - side) / 2, (picture.height - side) / 2",
            "box = (left, top, left + side, top + side)",
            f"return np.asarray(picture.resize((SIZE, SIZE), {method}, box=box)){grey}",
        ]
    planes = f"(SIZE, SIZE, {preprocessing.channels}) uint8, {preprocessing.color_order}"
    lines = [
        f'"""A picture as the network takes it, {what}: {planes}."""',
        *_PYTHON_OPEN[preprocessing.channels],
        *resize,
    ]
    return "\n".join(["def prepare(path):", *(f"    {line}" for line in lines)])


_BLACK_GROUND = (
    "if picture.has_transparency_data:  # over black",
    '    layered, picture = picture.convert("RGBA"), Image.new("RGB", picture.size)',
    '    picture.paste(layered, mask=layered.getchannel("A"))',
)
# How a file becomes grey, RGB, or RGB and a fourth plane that nothing is multiplied by: `zoo.data.decode`.
_PYTHON_OPEN = {
    1: (
        "picture = Image.open(path)",
        'picture.draft("L", None)  # of a JPEG, grey is what it stores',
        "picture = ImageOps.exif_transpose(picture)",
        *_BLACK_GROUND,
        'picture = picture.convert("L")',
    ),
    3: ("picture = ImageOps.exif_transpose(Image.open(path))", *_BLACK_GROUND, 'picture = picture.convert("RGB")'),
    4: (
        "picture = ImageOps.exif_transpose(Image.open(path))",
        "assert picture.has_transparency_data, path  # it has no fourth plane",
        'picture = Image.merge("RGBX", picture.convert("RGBA").split())',
    ),
}


def _python_answer(contract: Contract) -> str:
    if contract.form.output == "probabilities":
        scores = "scores = answers"
    elif contract.thresholds is None:
        scores = (
            "scores = np.exp(answers - answers.max(axis=1, keepdims=True))\n"
            "scores /= scores.sum(axis=1, keepdims=True)  # softmax"
        )
    else:
        scores = "scores = 1 / (1 + np.exp(-answers))  # sigmoid"
    named = 'print(path, contract["classes"][index], f"{row[index]:.6f}", sep="\\t")'
    if contract.thresholds is None:
        chosen = f'    for index in np.argsort(-row, kind="stable")[:{TOP}]:\n        {named}'
    else:
        chosen = (
            '    for index in np.argsort(-row, kind="stable"):  # all labels that reach their thresholds\n'
            f'        if row[index] >= contract["thresholds"][index]:\n            {named}'
        )
    return f"{scores}\nfor path, row in zip(paths, scores):\n{chosen}"


def _cpp_text(text: str) -> str:
    """A text as a C++ literal of UTF-8. JSON's escapes are C++'s too, but for what is no ASCII and for \\/."""
    return json.dumps(text, ensure_ascii=False)


def _cpp_box(contract: Contract) -> str:
    preprocessing = contract.preprocessing
    if preprocessing.resize == "squash":
        return "    const double left = 0, top = 0, right = picture.width, bottom = picture.height;"
    return (
        "    const double side = std::min(picture.width, picture.height) * double(SIZE) / "
        f"{preprocessing.resize_size or preprocessing.image_size};\n"
        "    const double left = (picture.width - side) / 2, top = (picture.height - side) / 2;\n"
        "    const double right = left + side, bottom = top + side;"
    )


def _cpp_scores(contract: Contract) -> str:
    if contract.form.output == "probabilities":
        return "    // They are probabilities already."
    if contract.thresholds is not None:
        return "    for (double& score : scores) score = 1 / (1 + std::exp(-score));  // sigmoid"
    return (
        "    const double largest = *std::max_element(scores.begin(), scores.end());\n"
        "    double total = 0;\n"
        "    for (double& score : scores) total += score = std::exp(score - largest);\n"
        "    for (double& score : scores) score /= total;  // softmax"
    )


def _cpp_print(contract: Contract) -> str:
    if contract.thresholds is None:
        return (
            f"    for (int place = 0; place < std::min({TOP}, NUM_CLASSES); ++place)\n"
            '        std::cout << CLASSES[order[place]] << "\\t" << scores[order[place]] << "\\n";'
        )
    return (
        "    for (int index : order)  // all labels that reach their thresholds\n"
        "        if (scores[index] >= THRESHOLDS[index])\n"
        '            std::cout << CLASSES[index] << "\\t" << scores[index] << "\\n";'
    )


def _cpp_thresholds(contract: Contract) -> str:
    if contract.thresholds is None:
        return ""
    return f"const double THRESHOLDS[NUM_CLASSES] = {{{', '.join(map(repr, contract.thresholds))}}};\n"


def _cpp_input(contract: Contract) -> str:
    if contract.form.input == "uint8":
        return "    std::vector<unsigned char>& data = picture.values;"
    mean, std = (", ".join(map(repr, values)) for values in (contract.preprocessing.mean, contract.preprocessing.std))
    return (
        f"    const float mean[] = {{{mean}}}, std_of[] = {{{std}}};\n"
        "    std::vector<float> data(CHANNELS * SIZE * SIZE);  // planes\n"
        "    for (int pixel = 0; pixel < SIZE * SIZE; ++pixel)\n"
        "        for (int channel = 0; channel < CHANNELS; ++channel)\n"
        "            data[channel * SIZE * SIZE + pixel] =\n"
        "                (float(picture.values[CHANNELS * pixel + channel]) - mean[channel]) / std_of[channel];"
    )
