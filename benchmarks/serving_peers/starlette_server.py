"""Starlette with a pool of threads, as tutorials have it: `python starlette_server.py MODEL.onnx PORT THREADS`."""

from __future__ import annotations

import io
import sys

import numpy as np
import onnxruntime as ort
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse
from starlette.routing import Route

MODEL, PORT, THREADS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
OPTIONS = ort.SessionOptions()
OPTIONS.intra_op_num_threads = THREADS
SESSION = ort.InferenceSession(MODEL, OPTIONS, providers=["CPUExecutionProvider"])
NAME, SIDE = SESSION.get_inputs()[0].name, SESSION.get_inputs()[0].shape[1]


def classify(body):
    image = Image.open(io.BytesIO(body)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    logits = SESSION.run(None, {NAME: np.asarray(image)[None]})[0][0]
    return np.argsort(logits)[::-1][:5].tolist()


async def predict(request):
    return JSONResponse({"best": await run_in_threadpool(classify, await request.body())})


if __name__ == "__main__":
    app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
    uvicorn.run(app, port=PORT, log_level="error", access_log=False)
