"""Owns a session's memory for one batch size on its device: allocated once, bound, run, read; it opens no session.

Without it ONNX Runtime allocates and copies anew in every call. A CUDA graph needs it: it replays the addresses that it
was captured with. The code is the same on a processor, where the tests run it; on a GPU it has not run yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from export.contract import Contract
from export.interface import input_of, outputs_of

# onnxruntime_run_options_config_keys.h: one graph for each id, captured in the first run that has it; −1 captures none.
GRAPH_ID = "gpu_graph_id"


class BoundBatch:
    """The input and the outputs of one batch size in device memory, and with `graph` a CUDA graph between them."""

    def __init__(
        self,
        session: ort.InferenceSession,
        contract: Contract,
        batch_size: int,
        *,
        device: Literal["cuda", "cpu"] = "cuda",
        graph: bool = False,
    ) -> None:
        """Allocate, and bind all of it for good. The session must have been opened for CUDA graphs to capture one."""
        self._session, self._binding = session, session.io_binding()
        self._is_shared = device == "cpu"  # what is read is the memory itself there, and the next batch's
        taken = input_of(contract)
        self._input = _allocate((batch_size, *taken.shape), taken.dtype, device)
        self._binding.bind_ortvalue_input(taken.name, self._input)
        self._outputs = []
        for tensor in outputs_of(contract):
            value = _allocate((batch_size, *tensor.shape), tensor.dtype, device)
            self._binding.bind_ortvalue_output(tensor.name, value)
            self._outputs.append(value)
        self._options = ort.RunOptions()
        self._options.add_run_config_entry(GRAPH_ID, str(batch_size if graph else -1))

    def run(
        self, taken: NDArray[Any], *, outputs: int | None = None, lap: Callable[[], None] = lambda: None
    ) -> list[NDArray[Any]]:
        """Copy a batch to the device, compute, and copy the first so many outputs back, all of them by default.

        `lap` is called before and after each of the three, when the device has been waited for.
        """
        lap()
        self._input.update_inplace(taken)
        self._binding.synchronize_inputs()
        lap()
        self._session.run_with_iobinding(self._binding, self._options)
        self._binding.synchronize_outputs()
        lap()
        found = [value.numpy() for value in self._outputs[:outputs]]
        answers = [array.copy() for array in found] if self._is_shared else found
        lap()
        return answers


def _allocate(shape: tuple[int, ...], dtype: str, device: str) -> Any:
    return ort.OrtValue.ortvalue_from_shape_and_type(shape, np.dtype(dtype).type, device, 0)
