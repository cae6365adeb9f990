"""Everything worth measuring on an NVIDIA GPU, part by part; each result is a JSON file beside this one.

    python benchmarks/gpu.py            what has not been done yet, on every back end that is here
    python benchmarks/gpu.py --list     the parts, and which can run here
    python benchmarks/gpu.py --again    all of them

A part that is done is not done again, so the command goes on where it was stopped. A part that takes longer than ten
minutes is stopped and named. Without a GPU it says so and exits 0, so that one command line serves every machine.
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
    """One command, what it needs beyond torch on a GPU, and whether it leaves a result."""

    command: str
    needs: str = ""
    keeps: bool = True


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
    yield Part("export s --random-weights --image-size 384 -o {work}", keeps=False)
    yield Part(
        f"bench latency {{work}}/s.onnx --backend onnxruntime --backend onnxruntime-cuda-graph {SERVED}",
        "onnxruntime-cuda",
    )
    yield Part("export s --random-weights --trt fp16 --image-size 384 -o {work}/trt", "tensorrt", keeps=False)
    yield Part(f"bench latency {{work}}/trt/s.plan {SERVED}", "tensorrt")


def main() -> None:
    """Do what is left to do here; say what cannot be done."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--again", action="store_true", help="do what is done too")
    asked.add_argument("--list", action="store_true", help="say what there is, and do nothing")
    options = asked.parse_args()
    able = abilities()
    if options.list:
        for part in parts():
            print(f"{'  ' if able.get(part.needs) else '- '}zoo {part.command}")
        return
    if not able[""]:
        print(
            "No usable NVIDIA GPU here: nothing measured. `zoo doctor` says why; `make bench` measures the processor."
        )
        return
    WORK.mkdir(parents=True, exist_ok=True)
    done = set() if options.again else read_done()
    failed = [part.command for part in parts() if not do(part, able, done)]
    peers()
    run(f"bench report {HERE} -o {HERE / 'report.html'}")
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
    }


def read_done() -> set[str]:
    """The commands that were done by earlier runs."""
    return set(DONE.read_text(encoding="utf-8").splitlines()) if DONE.is_file() else set()


def do(part: Part, able: dict[str, bool], done: set[str]) -> bool:
    """Do a part unless it is done or cannot be; whether nothing went wrong."""
    if part.command in done:
        print(f"- done before: zoo {part.command}")
        return True
    if not able[part.needs]:
        print(f"- skipped, {part.needs} does not work here: zoo {part.command}")
        return True
    code = run(part.command.format(work=WORK) + (f" -o {HERE}" if part.keeps else ""))
    if code == 0:
        with DONE.open("a", encoding="utf-8") as file:
            file.write(part.command + "\n")
    return code == 0


def peers() -> None:
    """The script that has timm and torchvision beside us, if timm is here."""
    if not find_spec("timm"):
        print("- skipped, timm is not installed (the dev extra has it): peers.py")
        return
    command = [sys.executable, str(HERE / "peers.py"), "--device", "cuda"]
    print(f"\n$ {shlex.join(command)}", flush=True)
    subprocess.run(command, check=False, timeout=LONGEST_S)


def run(command: str) -> int:
    """Print and run one command of the zoo; its exit code, 124 where it took too long."""
    print(f"\n$ zoo {command}", flush=True)
    try:
        return subprocess.run([*ZOO, *shlex.split(command)], check=False, timeout=LONGEST_S).returncode
    except subprocess.TimeoutExpired:
        print(f"Stopped after {LONGEST_S} s: zoo {command}")
        return 124


if __name__ == "__main__":
    main()
