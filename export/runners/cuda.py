"""Owns the few CUDA calls a TensorRT engine needs around it: memory, copies, one stream; it knows no engine.

There are two implementations: pycuda where it is installed, else cuda-bindings, which comes with PyTorch's CUDA wheels.
Signatures and error codes of cuda-bindings 13 were checked on a machine without a GPU; neither has run on a GPU yet.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zoo.errors import MissingCapabilityError


class Cuda(Protocol):
    """A device with one stream. Addresses and the stream are plain integers, as TensorRT takes them."""

    stream: int

    def current(self) -> AbstractContextManager[None]:
        """Make the device's primary context, shared with PyTorch, current on the calling thread."""

    def allocate(self, num_bytes: int) -> int:
        """Device memory; its address."""

    def allocate_pinned(self, num_bytes: int) -> NDArray[np.uint8]:
        """Page-locked host memory, whose copies run while the GPU computes: (num_bytes,). `close` frees it."""

    def copy_to_device(self, address: int, source: NDArray[np.uint8]) -> None:
        """Queue a copy of pinned memory to the device."""

    def copy_to_host(self, target: NDArray[np.uint8], address: int) -> None:
        """Queue a copy from the device to pinned memory."""

    def synchronize(self) -> None:
        """Wait until everything queued is done."""

    def close(self) -> None:
        """Free the stream and everything allocated here."""


class _CudaBindings:
    """The CUDA runtime through NVIDIA's cuda-bindings. The runtime makes the primary context current by itself."""

    def __init__(self) -> None:
        from cuda.bindings import runtime

        self._runtime: Any = runtime
        self._device_memory: list[int] = []
        self._pinned_memory: list[int] = []
        self.stream = 0  # the default one, until ours exists
        self._call("cudaSetDevice", 0)
        self.stream = int(self._call("cudaStreamCreateWithFlags", runtime.cudaStreamNonBlocking))

    def _call(self, name: str, *args: Any) -> Any:
        """Call the runtime, which answers (code,) or (code, value), and raise on any code but success."""
        code, *values = getattr(self._runtime, name)(*args)
        if code != self._runtime.cudaError_t.cudaSuccess:
            _, text = self._runtime.cudaGetErrorString(code)
            raise _failed(name, text.decode())
        return values[0] if values else None

    @contextmanager
    def current(self) -> Iterator[None]:
        self._call("cudaSetDevice", 0)
        yield

    def allocate(self, num_bytes: int) -> int:
        address = int(self._call("cudaMalloc", num_bytes))
        self._device_memory.append(address)
        return address

    def allocate_pinned(self, num_bytes: int) -> NDArray[np.uint8]:
        address = int(self._call("cudaMallocHost", num_bytes))
        self._pinned_memory.append(address)
        return np.ctypeslib.as_array((ctypes.c_uint8 * num_bytes).from_address(address))

    def copy_to_device(self, address: int, source: NDArray[np.uint8]) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, source.ctypes.data, source.nbytes, kind, self.stream)

    def copy_to_host(self, target: NDArray[np.uint8], address: int) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", target.ctypes.data, address, target.nbytes, kind, self.stream)

    def synchronize(self) -> None:
        self._call("cudaStreamSynchronize", self.stream)

    def close(self) -> None:
        while self._device_memory:
            self._call("cudaFree", self._device_memory.pop())
        while self._pinned_memory:
            self._call("cudaFreeHost", self._pinned_memory.pop())
        if self.stream:
            self._call("cudaStreamDestroy", self.stream)
            self.stream = 0


class _PyCuda:
    """The CUDA driver through pycuda.

    It retains the primary context and pushes it on the thread that works. (`pycuda.autoinit` would make a context of
    its own, which hides PyTorch's memory.) Call every method but `close` inside `current()`.
    """

    def __init__(self) -> None:
        import pycuda.driver as driver

        self._driver: Any = driver
        self._device_memory: list[Any] = []
        try:
            driver.init()
            self._context: Any = driver.Device(0).retain_primary_context()
        except driver.Error as error:
            raise _failed("its primary context", str(error)) from error
        with self.current():
            self._stream: Any = driver.Stream()
        self.stream = int(self._stream.handle)

    @contextmanager
    def current(self) -> Iterator[None]:
        # Pushes the primary context, and turns pycuda's errors into ours.
        self._context.push()
        try:
            yield
        except self._driver.Error as error:
            raise _failed("a call", str(error)) from error
        finally:
            self._context.pop()

    def allocate(self, num_bytes: int) -> int:
        allocation = self._driver.mem_alloc(num_bytes)
        self._device_memory.append(allocation)
        return int(allocation)

    def allocate_pinned(self, num_bytes: int) -> NDArray[np.uint8]:
        pinned: NDArray[np.uint8] = self._driver.pagelocked_empty((num_bytes,), np.uint8)
        return pinned

    def copy_to_device(self, address: int, source: NDArray[np.uint8]) -> None:
        self._driver.memcpy_htod_async(address, source, self._stream)

    def copy_to_host(self, target: NDArray[np.uint8], address: int) -> None:
        self._driver.memcpy_dtoh_async(target, address, self._stream)

    def synchronize(self) -> None:
        self._stream.synchronize()

    def close(self) -> None:
        with self.current():
            while self._device_memory:
                self._device_memory.pop().free()
            self._stream = None
        self._context = None


def _failed(call: str, text: str) -> MissingCapabilityError:
    return MissingCapabilityError(
        f"The GPU refused {call}: {text}.", "`zoo doctor` shows driver and GPU; is its memory full?"
    )


def open_cuda() -> Cuda:
    """Open device 0 through the library that is installed.

    Raises:
        MissingCapabilityError: neither is, or the driver refuses.
    """
    try:
        if find_spec("pycuda"):
            return _PyCuda()
        return _CudaBindings()
    except ImportError as error:
        raise MissingCapabilityError(
            f"Running a plan needs pycuda or cuda-bindings: {error}.", "pip install cuda-bindings"
        ) from error
