"""Work that is recorded once and launched whole: CUDA graphs, by stream capture."""

from collections.abc import Callable
from typing import Any

from cuda.bindings import driver

from .calls import call, give_back
from .device import Device


def capture(device: Device, enqueue: Callable[[Any], None]) -> Any:
    """The executable graph of what ``enqueue`` gives the stream, on the device already; freed with it."""
    stream = device.stream
    call(driver.cuStreamBeginCapture, stream, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
    try:
        enqueue(stream)
    except BaseException:
        error, graph = driver.cuStreamEndCapture(stream)
        if not error:
            give_back(driver.cuGraphDestroy, graph)
        raise
    graph = call(driver.cuStreamEndCapture, stream)
    try:
        executable = call(driver.cuGraphInstantiate, graph, 0)
    finally:
        give_back(driver.cuGraphDestroy, graph)
    device.owns(driver.cuGraphExecDestroy, executable)
    call(driver.cuGraphUpload, executable, stream)
    return executable
