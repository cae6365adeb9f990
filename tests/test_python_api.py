"""docs/python-api.md: its lines run as they stand, its names are those of `zoo.API`, and a file in the way is named."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from PIL import Image

import zoo

PAGE = (Path(__file__).parents[1] / "docs" / "python-api.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_lines_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert len([line for line in block.splitlines() if line and not line.startswith(("import", "from"))]) <= 10
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (60, 40), "teal").save("photo.png")
    found: dict[str, object] = {}
    exec(compile(block, "docs/python-api.md", "exec"), found)
    assert {path.name for path in tmp_path.iterdir()} == {"photo.png", "runs", "tiny.onnx", "tiny.json"}
    assert 0.1 < found["accuracy"].top1 <= 1
    assert found["accuracy"].n == 360
    assert found["source"] == "runs/tiny/checkpoint.safetensors"
    assert found["card"].classes == tuple("0123456789")


def test_the_page_has_every_name_and_no_other() -> None:
    assert set(re.findall(r"\bzoo\.(\w+)", PAGE)) - {"errors"} == set(zoo.API)


def test_a_name_is_what_its_module_has() -> None:
    for name, module in zoo.API.items():
        assert getattr(zoo, name) is getattr(import_module(module), name)
        assert name in dir(zoo)
    with pytest.raises(AttributeError, match="has no attribute 'train'; it has TrainOptions"):
        _ = zoo.train


def test_importing_and_naming_options_loads_no_framework() -> None:
    program = "import sys, zoo; zoo.TrainOptions, dir(zoo); print([m for m in ('torch', 'onnx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_users_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    (tmp_path / "script.py").write_text("import zoo\nzoo.train_model\n")
    env = os.environ | {"PYTHONPATH": str(Path(zoo.__file__).parents[1])}
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{tmp_path / 'train.py'} hides: rename that file" in done.stderr
