"""BentoML as its documentation has it: `python bentoml_server.py MODEL.onnx PORT WORKERS`; it takes a form."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import bentoml
import numpy as np
import onnxruntime as ort
from PIL import Image

MODEL, WORKERS = os.environ.get("MODEL", ""), int(os.environ.get("WORKERS", "1"))


@bentoml.service(workers=WORKERS, traffic={"timeout": 60})
class Classifier:
    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1 if WORKERS > 1 else 2
        self.session = ort.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
        self.name, self.side = self.session.get_inputs()[0].name, self.session.get_inputs()[0].shape[1]

    @bentoml.api
    def predict(self, file: Image.Image) -> list[int]:
        image = file.convert("RGB").resize((self.side, self.side), Image.Resampling.BICUBIC)
        logits = self.session.run(None, {self.name: np.asarray(image)[None]})[0][0]
        return np.argsort(logits)[::-1][:5].tolist()


if __name__ == "__main__":
    told = {"MODEL": sys.argv[1], "WORKERS": sys.argv[3], "BENTOML_DO_NOT_TRACK": "True"}
    command = ["-m", "bentoml", "serve", "bentoml_server:Classifier", "--port", sys.argv[2], "--working-dir"]
    where = str(Path(__file__).parent)
    os.execve(sys.executable, [sys.executable, *command, where], os.environ | told)
