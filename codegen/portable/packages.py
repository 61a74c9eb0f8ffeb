"""Packages that only an extra brings."""

from importlib.util import find_spec

from ...runtime.artifact.errors import OptionError


def require_packages(option: str, extra: str, packages: tuple[str, ...]) -> None:
    """OptionError that names the first missing package and the extra that brings it."""
    for package in packages:
        if find_spec(package) is None:
            raise OptionError(
                f"{option} requires the package {package}, which is missing; pip install 'xllmc[{extra}]'"
            )
