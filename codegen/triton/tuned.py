"""Choices that were measured on a device: ``tuned/<architecture>.json``, which comes before every prediction.

    {"device": "what they were measured on", "choices": [
        {"dtype": "bf16", "columns": 4096, "inner": 1024, "gated": false, "rows": 16,
         "tiles": {"BLOCK_M": 16, "BLOCK_N": 64, "BLOCK_K": 128, "SPLIT": 4, "WALK": 0, "SWAP": 1, "GROUP": 1},
         "warps": 4, "stages": 4}]}

``rows``: the most rows of the variant (``configs.BOUNDS``), null for the one without a bound. ``kind``: of kernel;
``linear`` where absent. ``tiles``: all that ``configs.py`` tells of. Written by a tuner, which measures ``candidates``.
"""

from collections.abc import Mapping
from functools import cache
from importlib import resources

from pydantic import ValidationError, model_validator

from ...runtime.artifact.errors import XllmcError
from ...runtime.artifact.schema import Record
from .kernel import Config
from .predict import Problem

TILES = ("BLOCK_M", "BLOCK_N", "BLOCK_K", "SPLIT", "WALK", "SWAP", "GROUP")


class Choice(Record):
    """One measured choice: its key, and the configuration."""

    kind: str = "linear"
    dtype: str
    columns: int
    inner: int
    gated: bool = False
    rows: int | None
    tiles: dict[str, int]
    warps: int
    stages: int

    @model_validator(mode="after")
    def _possible(self) -> "Choice":
        """Refuses what would compute nothing, or something else."""
        if set(self.tiles) != set(TILES):
            raise ValueError(f"tiles must be {', '.join(TILES)}, got {', '.join(self.tiles)}")
        blocks = [self.tiles[name] for name in ("BLOCK_M", "BLOCK_N", "BLOCK_K")] + [self.warps]
        if any(size < 1 or size & (size - 1) for size in blocks):
            raise ValueError(f"blocks and warps must be powers of two, got {blocks}")
        split, walk = self.tiles["SPLIT"], self.tiles["WALK"]
        if self.tiles["BLOCK_M"] == 1 and (self.rows != 1 or split > 1):
            raise ValueError("BLOCK_M 1 is for one row and all of K")
        if split > 1 and self.inner % (split * self.tiles["BLOCK_K"]):
            raise ValueError(f"SPLIT {split} must leave whole blocks of {self.tiles['BLOCK_K']} of {self.inner}")
        if split > 1 and not walk and self.rows is None:
            raise ValueError(f"SPLIT {split} without WALK requires a bound of rows")
        return self

    @property
    def problem(self) -> Problem:
        return Problem(self.dtype, self.columns, self.inner, self.gated, self.rows)

    @property
    def config(self) -> Config:
        return Config(self.tiles, self.warps, self.stages)


class Choices(Record):
    """A file of them."""

    device: str
    choices: tuple[Choice, ...]


@cache
def measured(architecture: str, kind: str = "linear") -> Mapping[Problem, Config]:
    """The choices that ship for this architecture; none where it has no file. XllmcError for one that is damaged."""
    file = resources.files(__package__).joinpath("tuned", f"{architecture}.json")
    return parse_choices(file.read_text(), str(file), kind) if file.is_file() else {}


def parse_choices(text: str, name: str, kind: str = "linear") -> Mapping[Problem, Config]:
    """The choices of one kind in a file's ``text``. XllmcError names the file and what is wrong in it."""
    try:
        read = Choices.model_validate_json(text)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise XllmcError(
            f"measured choices take the form of codegen/triton/tuned.py; {name}: {where}: {first['msg']}"
        ) from problem
    return {c.problem: c.config for c in read.choices if c.kind == kind}
