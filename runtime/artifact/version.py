"""The version of the installed xllmc."""

from importlib.metadata import version


def xllmc_version() -> str:
    return version("xllmc")
