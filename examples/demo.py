"""The whole way on real pictures: train, export, check, serve, measure. Prints each command before it runs it.

Works in demo/ and needs the installed package only. Flags after `--` go to `zoo train`, so that a test can take a
smaller network for a shorter time: python examples/demo.py tiny -- --epochs 4
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path

ZOO = (sys.executable, "-c", "from zoo.cli import main; main()")


def bold(text: str) -> str:
    """The text as a terminal shows it in bold; as it is where nobody wants that."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty()
    return text if plain else f"\033[1m{text}\033[0m"


def run(*arguments: str) -> None:
    """Print and run one command of the zoo; stop the demo where it fails."""
    print("\n" + bold(f"$ zoo {shlex.join(arguments)}"), flush=True)
    done = subprocess.run([*ZOO, *arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def ask(url: str, picture: Path) -> dict:
    """Send one picture as a client would: POST its bytes."""
    request = urllib.request.Request(f"{url}/predict", picture.read_bytes(), {"Content-Type": "image/png"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def serve_and_ask(engine: str, picture: Path) -> dict:
    """Start the server, send it one picture, stop it with Ctrl-C."""
    print("\n" + bold(f"$ zoo serve --engine {engine} --port 0"), flush=True)
    server = subprocess.Popen(
        [*ZOO, "serve", "--engine", engine, "--port", "0"], stderr=subprocess.PIPE, text=True, bufsize=1
    )
    assert server.stderr is not None
    url = None
    for line in server.stderr:
        print(f"  {line}", end="", flush=True)
        if url is None and (found := re.search(r"http://[\d.]+:\d+", line)):
            url = found[0]
        if url and "curl" in line:  # the last line of the greeting: ready
            break
    if url is None:
        sys.exit(server.wait())
    print("\n" + bold(f"$ curl --data-binary @{picture} {url}/predict"), flush=True)
    try:
        return ask(url, picture)
    finally:
        server.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
        server.communicate(timeout=30)


def main() -> None:
    """Run the demo in demo/; an earlier run of it is kept."""
    arguments = sys.argv[1:]
    split = arguments.index("--") if "--" in arguments else len(arguments)
    model = arguments[0] if split else "s"
    training_flags = arguments[split + 1 :]
    started = time.monotonic()
    folder = Path("demo")
    folder.mkdir(exist_ok=True)
    os.chdir(folder)

    run("doctor")
    run("show", model)
    run("train", model, "--plan", *training_flags)
    training = time.monotonic()
    run("train", model, *training_flags)
    training = time.monotonic() - training
    builds = any(find_spec(module) for module in ("tensorrt_rtx", "tensorrt"))
    run("export", model, *(("--trt", "fp16") if builds else ()))
    run("evaluate", f"{model}.onnx", "--data", "digits")
    run("sample", "--count", "3")
    pictures = sorted(Path("pictures").glob("*/*.png"))
    run("predict", f"{model}.onnx", *map(str, pictures))
    answer = serve_and_ask(f"{model}.onnx", pictures[0])
    run("bench", "latency", f"{model}.onnx", "--duration-s", "2")
    run("bench", "stages", model, "--image-size", "80", "--batch-size", "1", "--by", "isolated")
    run("bench", "report")

    print("\n" + bold(f"The server's answer to {pictures[0].name}"))
    for guess in answer["predictions"]:
        print(f"  {guess['class']:>12}  {'█' * round(40 * guess['score']):<40} {guess['score']:6.1%}")
    report = Path("benchmarks/report.html").resolve()
    minutes = (time.monotonic() - started) / 60
    print(
        f"""
Done in {minutes:.1f} minutes, of which training {training / 60:.1f}.

  Report             {report}
  Training           demo/runs/{model}/report.html
  Engine             demo/{model}.onnx{f", demo/{model}.plan" if builds else ""}, passport demo/{model}.json

Try next: `. .venv/bin/activate`, `cd demo`, and
  zoo serve --engine {model}.onnx          then open http://127.0.0.1:8080 and drop a picture
  zoo train {model} --data YOUR_PICTURES   one folder per class
  zoo predict lite0 YOUR_PHOTO.jpg      real ImageNet weights
"""
    )


if __name__ == "__main__":
    main()
