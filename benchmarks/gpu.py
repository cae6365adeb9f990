"""Everything worth measuring on an NVIDIA GPU, in one go; each result is a JSON file beside this one.

Without a GPU it says so and exits 0, so that one command line serves every machine.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from zoo.doctor import examine

HERE = Path(__file__).parent
ZOO = (sys.executable, "-c", "from zoo.cli import main; main()")
# (command, what it needs beyond torch on a GPU). Results name their device, so machines never overwrite each other.
COMMANDS: tuple[tuple[str, str | None], ...] = (
    ("bench stages s --precision fp16 --batch-size 1 --device cuda", None),
    ("bench stages s --precision fp16 --batch-size 32 --device cuda", None),
    ("bench train s --recipe folder --batch-size 128 --augment-on workers --device cuda", None),
    (
        "bench latency {work}/s.onnx --backend onnxruntime --backend onnxruntime-cuda-graph "
        "--batch-size 1 --batch-size 8 --batch-size 32 --device cuda",
        "onnxruntime-cuda",
    ),
    ("export s --random-weights --trt fp16 --image-size 384 -o {work}/trt", "tensorrt"),
    ("bench latency {work}/trt/s.plan --batch-size 1 --batch-size 8 --batch-size 32 --device cuda", "tensorrt"),
)


def main() -> None:
    """Run what this machine can; say what it cannot."""
    found = examine()
    if not found["torch-cuda"].available:
        print(
            "No usable NVIDIA GPU here: nothing measured. `zoo doctor` says why; `make bench` measures the processor."
        )
        return
    able = {
        "onnxruntime-cuda": "CUDA" in found["onnxruntime"].detail,
        "tensorrt": found["tensorrt"].available,
    }
    failed = []
    with tempfile.TemporaryDirectory() as work:
        run(f"export s --random-weights --image-size 384 -o {work}")
        for command, needs in COMMANDS:
            if needs and not able[needs]:
                print(f"- skipped, {needs} does not work here: zoo {command}")
                continue
            out = "" if command.startswith("export") else f" -o {HERE}"
            if run(command.format(work=work) + out):
                failed.append(command)
    if find_spec("timm"):
        peers = [sys.executable, str(HERE / "peers.py"), "--device", "cuda"]
        print(f"\n$ {shlex.join(peers)}", flush=True)
        if subprocess.run(peers, check=False).returncode:
            failed.append("peers.py")
    else:
        print("- skipped, timm is not installed (the dev extra has it): peers.py")
    run(f"bench report {HERE} -o {HERE / 'report.html'}")
    if failed:
        sys.exit("Failed: " + "; ".join(failed))


def run(command: str) -> int:
    """Print and run one command of the zoo; its exit code."""
    print(f"\n$ zoo {command}", flush=True)
    return subprocess.run([*ZOO, *shlex.split(command)], check=False).returncode


if __name__ == "__main__":
    main()
