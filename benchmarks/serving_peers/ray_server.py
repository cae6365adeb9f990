"""Ray Serve as its documentation has it: `python ray_server.py MODEL.onnx PORT BATCH REPLICAS`."""

from __future__ import annotations

import io
import signal
import sys

import numpy as np
import onnxruntime as ort
from PIL import Image
from ray import serve

MODEL, (PORT, BATCH, REPLICAS) = sys.argv[1], map(int, sys.argv[2:])


@serve.deployment(num_replicas=REPLICAS, ray_actor_options={"num_cpus": 0.5}, max_ongoing_requests=64)
class Classifier:
    def __init__(self, model: str, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.name, self.side = self.session.get_inputs()[0].name, self.session.get_inputs()[0].shape[1]

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=0.005)
    async def classify(self, bodies: list[bytes]) -> list[list[int]]:
        size, images = (self.side, self.side), [Image.open(io.BytesIO(body)).convert("RGB") for body in bodies]
        batch = np.stack([np.asarray(image.resize(size, Image.Resampling.BICUBIC)) for image in images])
        logits = self.session.run(None, {self.name: batch})[0]
        return np.argsort(logits, axis=1)[:, ::-1][:, :5].tolist()

    async def __call__(self, request):
        return await self.classify(await request.body())


if __name__ == "__main__":
    serve.start(http_options={"port": PORT})  # starts Ray too
    serve.run(Classifier.bind(MODEL, 1 if REPLICAS > 1 else 2), route_prefix="/predict")
    signal.pause()
