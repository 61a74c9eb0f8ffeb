"""Errors a user can cause. The command line prints their message on one line and exits with code 2."""


class XllmcError(Exception):
    """Base of all errors that name a mistake in what xllmc was given. The message says what requires what, what it got
    and what to try.
    """


class ArtifactError(XllmcError):
    """An engine directory is missing, damaged, of another version, or not made for this machine."""


class CheckpointError(XllmcError):
    """A model directory or a set of weights lacks a tensor, or holds one of the wrong shape, dtype or format."""


class OptionError(XllmcError):
    """An option is unknown, out of range, or at odds with another."""


class NumericError(XllmcError):
    """The model computed a value that is not a number, or infinite."""


class DeviceError(XllmcError):
    """An accelerator or its driver failed."""


class RefusedError(XllmcError):
    """The engine takes no more requests now, though it may later."""

    def __init__(self, message: str, retry_after: float) -> None:
        """``retry_after``: seconds after which asking again makes sense."""
        super().__init__(message)
        self.retry_after = retry_after


class QueueFullError(RefusedError):
    """Too many requests, or tokens of theirs, are waiting already."""


class DrainingError(RefusedError):
    """The engine finishes what it has, and will then close."""


class DeadlineError(XllmcError):
    """A request was not done by its deadline."""
