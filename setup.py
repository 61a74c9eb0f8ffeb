"""Maps the top-level folders to the packages ``xllmc.<folder>``; all other settings are in pyproject.toml."""

from setuptools import find_packages, setup

ROOMS = ("compiler", "passes", "codegen", "runtime", "models", "bench")

setup(
    packages=[f"xllmc.{name}" for room in ROOMS for name in [room, *(f"{room}.{sub}" for sub in find_packages(room))]],
    package_dir={f"xllmc.{room}": room for room in ROOMS},
)
