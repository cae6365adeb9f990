"""LitServe as its documentation has it: `python litserve_server.py MODEL.onnx PORT BATCH WORKERS`."""

from __future__ import annotations

import io
import sys

import litserve
import numpy as np
import onnxruntime as ort
from PIL import Image

MODEL, (PORT, BATCH, WORKERS) = sys.argv[1], map(int, sys.argv[2:])


class Classifier(litserve.LitAPI):
    def setup(self, device):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1 if WORKERS > 1 else 2
        self.session = ort.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
        self.name, self.side = self.session.get_inputs()[0].name, self.session.get_inputs()[0].shape[1]

    def decode_request(self, request):
        image = Image.open(io.BytesIO(request["file"].file.read())).convert("RGB")
        return np.asarray(image.resize((self.side, self.side), Image.Resampling.BICUBIC))

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, batch):
        return self.session.run(None, {self.name: batch.reshape(-1, self.side, self.side, 3)})[0]

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return {"best": np.argsort(np.ravel(output))[::-1][:5].tolist()}


if __name__ == "__main__":
    api = Classifier(max_batch_size=BATCH, batch_timeout=0.005 if BATCH > 1 else 0.0)
    litserve.LitServer(api, accelerator="cpu", workers_per_device=WORKERS).run(port=PORT, log_level="error")
