"""What the peers share: their arguments, how many steps fit their time, and how their answers are written."""

from __future__ import annotations

import json
import os
import sys
import time
from copy import deepcopy
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from zoo.model.build import build_network
from zoo.model.variants import find_variant

BEGAN = float(os.environ.get("BEGAN", time.time()))  # before the interpreter and PyTorch were loaded
DATA, WEIGHTS, SECONDS, SEED, OUT = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
torch.manual_seed(SEED)


def begin(model: nn.Module) -> nn.Module:
    """Load all weights but the classifier's, unless there are none; in the faster memory format."""
    if WEIGHTS != "none":
        start = {name: tensor for name, tensor in load_file(WEIGHTS).items() if not name.startswith("classifier")}
        model.load_state_dict(start, strict=False)
    return model.to(memory_format=torch.channels_last)


def ours(network: str, num_classes: int) -> nn.Module:
    """A network that timm does not have, by its row."""
    return build_network(find_variant(network), num_classes)


def steps_that_fit(model: nn.Module, loader: DataLoader, test: ImageFolder) -> int:
    """Training steps that the time allows, by four of a copy; a picture of the test costs a third of a training one."""
    model, steps = deepcopy(model), iter(loader)
    for number in range(5):
        if number == 1:
            began = time.time()
        pictures, _ = next(steps, None) or next(steps := iter(loader))
        model(pictures.to(memory_format=torch.channels_last)).sum().backward()
    each = (time.time() - began) / 4
    return max(1, int((SECONDS - (time.time() - BEGAN)) / each - len(test) / loader.batch_size / 3))


def time_is_up(step: int, steps: int, training_began: float, test: ImageFolder, batch: int) -> bool:
    """Whether as much is left as the test takes, at the pace so far; a machine may have become busier."""
    each = (time.time() - training_began) / max(step, 1)
    return step >= steps or time.time() - BEGAN + each * len(test) / batch / 3 > SECONDS


def write_answers(model: nn.Module, test: ImageFolder) -> None:
    """The network's answer to each test picture."""
    model.eval()
    with torch.inference_mode():
        found = torch.cat([model(pictures).argmax(1) for pictures, _ in DataLoader(test, 64)]).tolist()
    write(test, found)


def write(test: ImageFolder, found: list[int]) -> None:
    """Class names by picture."""
    names = [str(Path(path).relative_to(test.root)) for path, _ in test.samples]
    answers = {name: test.classes[answer] for name, answer in zip(names, found, strict=True)}
    Path(OUT).write_text(json.dumps(answers))
