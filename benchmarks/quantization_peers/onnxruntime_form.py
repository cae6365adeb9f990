"""int8 by ONNX Runtime's quantizer: `python onnxruntime_form.py IN.onnx CALIBRATION.npy int8-minmax OUT.onnx`."""

import sys

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

GRAPH, PICTURES, FORM, OUT = sys.argv[1:]
METHODS = {"int8-minmax": CalibrationMethod.MinMax, "int8-percentile": CalibrationMethod.Percentile}
NAME = onnx.load(GRAPH).graph.input[0].name


class Pictures(CalibrationDataReader):
    def __init__(self):
        self.left = iter(np.load(PICTURES))

    def get_next(self):
        picture = next(self.left, None)
        return None if picture is None else {NAME: picture[None]}


quantize_static(
    GRAPH,
    OUT,
    Pictures(),
    quant_format=QuantFormat.QDQ,
    op_types_to_quantize=["Conv", "Gemm", "Add", "Clip"],
    per_channel=True,
    activation_type=QuantType.QUInt8,
    weight_type=QuantType.QInt8,
    calibrate_method=METHODS[FORM],
)
