"""A form of a graph by NVIDIA's ModelOpt: `python modelopt_form.py IN.onnx CALIBRATION.npy FORM OUT.onnx`.

FORM is fp16 or bf16 (AutoCast), or int8-entropy or int8-max (quantization). Into a Python of its own:
`pip install nvidia-modelopt onnx-graphsurgeon polygraphy onnxslim onnxconverter-common ml_dtypes lief`, beside PyTorch,
onnx and onnxruntime.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from modelopt.onnx.autocast import convert_to_mixed_precision
from modelopt.onnx.quantization import quantize

GRAPH, PICTURES, FORM, OUT = sys.argv[1:]
pictures = {onnx.load(GRAPH).graph.input[0].name: np.load(PICTURES)}
if FORM.startswith("int8"):
    method = FORM.removeprefix("int8-")
    quantize(
        GRAPH,
        quantize_mode="int8",
        calibration_data=pictures,
        calibration_method=method,
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=OUT,
    )
else:
    with TemporaryDirectory() as folder:
        # It calibrates on one batch, and reads it from an .npz.
        np.savez(Path(folder) / "batch.npz", **{name: values[:8] for name, values in pictures.items()})
        batch = str(Path(folder) / "batch.npz")
        cast = convert_to_mixed_precision(GRAPH, low_precision_type=FORM, keep_io_types=True, calibration_data=batch)
    onnx.save(cast, OUT)
