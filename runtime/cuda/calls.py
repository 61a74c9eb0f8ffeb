"""Calls of the CUDA driver API (``cuda.bindings``): their error codes become exceptions."""

from collections.abc import Callable
from typing import Any

from cuda.bindings import driver

from ..artifact.errors import DeviceError


class DriverError(DeviceError):
    """A call that the driver answered with an error."""


class MissingFunctionError(DeviceError):
    """A call of a function that this machine's driver does not have, or of any where it has no driver."""


class OutOfMemoryError(DriverError):
    """The device, or the host for memory that the device reads, has no more."""


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the driver's ``function`` gives beside its error code: nothing, a value, or a tuple. Raises DriverError,
    MissingFunctionError.
    """
    try:
        answer = function(*arguments)
    except RuntimeError as problem:  # so cuda.bindings says that it finds no libcuda, or not this function in it
        raise MissingFunctionError(
            f"this machine's CUDA driver does not offer {function.__name__} ({problem}); install a newer one"
        ) from problem
    if answer[0]:
        raise driver_error(function.__name__, answer[0])
    return answer[1] if len(answer) == 2 else answer[1:]


def give_back(function: Callable[..., Any], *arguments: Any) -> None:
    """A call that frees something. Its error is passed over: after a fault of the device every call has one, and what
    was to be freed ends with the process.
    """
    function(*arguments)


def driver_error(name: str, code: Any) -> DriverError:
    """The exception for an error code of the function ``name``."""
    error, text = driver.cuGetErrorString(code)
    said = text.decode() if not error and text else "no description"
    kind = OutOfMemoryError if code == driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY else DriverError
    return kind(f"{name} failed: {said} (error {int(code)})")
