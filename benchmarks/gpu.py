"""Everything worth measuring on an NVIDIA GPU, part by part; each result is a JSON file beside this one.

    python benchmarks/gpu.py            what has not been done yet, on every back end that is here
    python benchmarks/gpu.py --list     the parts, and which of them can run here, are done, or why not
    python benchmarks/gpu.py --again    all of them

A part that is done is not done again, so the command goes on where it was stopped. A part that takes longer than ten
minutes is stopped and named, and the others go on. Without a GPU it says what would run, and exits 0, so that one
command line serves every machine.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from zoo.doctor import examine

HERE = Path(__file__).parent
WORK = HERE.parent / "build" / "bench-gpu"
DONE = WORK / "done.txt"
ZOO = (sys.executable, "-m", "zoo")
LONGEST_S = 600
SERVED = "--batch-size 1 --batch-size 8 --batch-size 32 --device cuda"


@dataclass(frozen=True)
class Part:
    """One command, what it needs beyond torch on a GPU, whether it takes a folder for its result, and is a script."""

    command: str
    needs: str = ""
    keeps: bool = True
    is_script: bool = False

    @property
    def said(self) -> str:
        """As it is typed."""
        return f"python benchmarks/{self.command}" if self.is_script else f"zoo {self.command}"


# (engine, what it needs, the precision that it ships in)
ENGINES = (
    ("tensorrt", "tensorrt", "fp16"),
    ("tensorrt-rtx", "tensorrt-rtx", "fp16"),
    ("ort-cuda", "onnxruntime-cuda", "fp16"),
    ("ort-cuda-graph", "onnxruntime-cuda", "fp16"),
    ("compile", "", "fp32"),
    ("aot", "", "fp32"),
    ("torch", "", "fp32"),
)


def parts() -> Iterator[Part]:
    """All parts, what matters most first."""
    for engine, needs, precision in ENGINES:
        run = f"--on {engine} --precision {precision} --device cuda"
        yield Part(f"bench stages s {run} --batch-size 1 --by in-place", needs)
        yield Part(f"bench stages s {run} --batch-size 32 --by in-place", needs)
        yield Part(f"bench stages b0 {run} --batch-size 32", needs)
        yield Part(f"bench fusion {run} --batch-size 16 --no-training", needs)
    for engine, needs, precision in ENGINES[:3]:
        run = f"--on {engine} --precision {precision} --device cuda"
        yield Part(f"bench stages s {run} --image-size 224 --batch-size 8 --by isolated --map 3 --map 4", needs)
        yield Part(f"bench latency-table {run} --space small --duration-s 0.2", needs)  # goes on when stopped
    yield Part("bench fusion --on torch --device cuda --image-size 380 --train-batch-size 16 --no-inference")
    yield Part("bench train s --recipe folder --batch-size 128 --augment-on workers --device cuda")
    yield Part("bench train s --at-size 224 --at-size 300 --at-batch 32 --beside-timm --device cuda", "timm")
    # The paper's Table 2.
    yield Part("bench train v1-b6 --at-size 380 --at-size 512 --at-batch 12 --at-batch 24 --device cuda")
    yield Part("bench zoo --batch-size 1 --device cuda", "onnxruntime-cuda")
    yield Part("bench zoo --batch-size 16 --device cuda", "onnxruntime-cuda")
    yield Part("export s --random-weights --image-size 384 -o {work}", keeps=False)
    yield from _latency("{work}/s.onnx", "onnxruntime-cuda", "--backend onnxruntime --backend onnxruntime-cuda-graph ")
    yield Part("export s --random-weights --trt fp16 --image-size 384 -o {work}/trt", "tensorrt", keeps=False)
    yield from _latency("{work}/trt/s.plan", "tensorrt")
    yield Part("peers.py --device cuda", "timm", keeps=False, is_script=True)


def _latency(artifact: str, needs: str, flags: str = "") -> Iterator[Part]:
    """An artifact in every scenario, and after silences."""
    yield Part(f"bench latency {artifact} {flags}{SERVED}", needs)
    yield Part(f"bench latency {artifact} {flags}--batch-size 1 --idle-gap --device cuda", needs)
    for scenario in ("multi_stream", "offline", "server"):
        yield Part(f"bench latency {artifact} --scenario {scenario} --device cuda", needs)


def main() -> None:
    """Do what is left to do here; say what cannot be done."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--again", action="store_true", help="do what is done too")
    asked.add_argument("--list", action="store_true", help="say what there is, and do nothing")
    options = asked.parse_args()
    able, done = abilities(), set() if options.again else read_done()
    if not able[""]:
        print("No usable NVIDIA GPU here: nothing is measured; `make bench` measures the processor.")
    if options.list or not able[""]:
        print(f"On a machine with one these parts run, each for {LONGEST_S // 60} minutes at most:")
        for part in parts():
            print(f"  {part.said}{told(part, able, done)}")
        return
    WORK.mkdir(parents=True, exist_ok=True)
    failed = [part.said for part in parts() if not do(part, able, done)]
    run(Part(f"bench report {shlex.quote(str(HERE))} -o {shlex.quote(str(HERE / 'report.html'))}", keeps=False))
    if failed:
        sys.exit("Failed: " + "; ".join(failed))


def abilities() -> dict[str, bool]:
    """What works here, by the name of a need; "" is PyTorch on a GPU."""
    found = examine()
    return {
        "": found["torch-cuda"].available,
        "onnxruntime-cuda": "CUDA" in found["onnxruntime"].detail,
        "tensorrt": found["tensorrt"].available,
        "tensorrt-rtx": found["tensorrt-rtx"].available,
        "timm": find_spec("timm") is not None,
    }


def told(part: Part, able: dict[str, bool], done: set[str]) -> str:
    """Why a part is not done now, "" where it is."""
    if part.command in done:
        return "  # done before"
    if not able[part.needs]:
        return f"  # {part.needs or 'a GPU'} does not work here"
    return ""


def read_done() -> set[str]:
    """The commands that were done by earlier runs."""
    return set(DONE.read_text(encoding="utf-8").splitlines()) if DONE.is_file() else set()


def do(part: Part, able: dict[str, bool], done: set[str]) -> bool:
    """Do a part unless it is done or cannot be; whether nothing went wrong."""
    why = told(part, able, done)
    if why:
        print(f"- skipped: {part.said}{why}")
        return True
    code = run(part)
    if code == 0:
        with DONE.open("a", encoding="utf-8") as file:
            file.write(part.command + "\n")
    return code == 0


def run(part: Part) -> int:
    """Print and run one part; its exit code, 124 where it took too long."""
    print(f"\n$ {part.said}", flush=True)
    command = [word.format(work=WORK) for word in shlex.split(part.command)]
    whole = [sys.executable, str(HERE / command[0]), *command[1:]] if part.is_script else [*ZOO, *command]
    try:
        return subprocess.run(
            [*whole, *(("-o", str(HERE)) if part.keeps else ())], check=False, timeout=LONGEST_S
        ).returncode
    except subprocess.TimeoutExpired:
        print(f"Stopped after {LONGEST_S} s: {part.said}")
        return 124


if __name__ == "__main__":
    main()
