"""What a machine gives at most, and how far each kind of kernel gets: measured once, kept as JSON, chosen here.

``xllmc calibrate`` measures a profile and keeps it under the user's cache directory. Without one, the profile that
ships with xllmc is used, so that nothing measures on its own, and two compiles see the same numbers.
"""

import hashlib
import os
import re
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, ValidationError

from .artifact.isa import supported_isas
from .artifact.schema import Record

GENERIC = "profiles/generic.json"
"""The profile of CPUs that ships in this package; beside it are those of devices, named by their architecture."""


SHIPPED_DEVICES = ("sm_80", "sm_89", "sm_90")
"""Architectures that have one."""


class Bandwidth(Record):
    """Bytes per second that all threads together read from a working set of ``bytes``, over and over."""

    bytes: int = Field(gt=0)
    per_second: float = Field(gt=0)


class Ceilings(Record):
    threads: int = Field(ge=1)
    """Busy while it was measured."""
    bandwidth: tuple[Bandwidth, ...] = Field(min_length=1)
    """From working sets that fit a core's own cache to those that fit none, growing."""
    arithmetic: dict[str, float]
    """Operations per second of multiply-adds held in registers, by dtype; ``f32`` at least."""
    launch: float = Field(ge=0)
    """Seconds of a launch that does next to nothing."""
    step: float = Field(ge=0)
    """Seconds of a step beyond its launches: checking it, waking threads, copying results."""


class Rates(Record):
    """How far one kind of kernel gets. Each share is of a ceiling."""

    overhead: float = Field(ge=0)
    """Seconds whatever the size, the launch included."""
    streaming: float = Field(gt=0)
    """Share of the bandwidth of the whole step's working set, for weights and states."""
    handling: float = Field(gt=0)
    """Share of the bandwidth of a core's own cache, for all bytes that pass through it."""
    arithmetic: float = Field(gt=0)
    """Share of the arithmetic ceiling."""
    samples: int = 0
    """Different launches it was fitted to."""
    error: float | None = None
    """Median relative error on these."""
    held_out_samples: int = 0
    held_out_error: float | None = None
    """Median relative error on launches of other sizes."""


class Profile(Record):
    cpu: str
    cores: int
    isa: str
    measured: str
    """When and on what."""
    ceilings: Ceilings
    kernels: dict[str, Rates]
    """By op and dtype: ``linear/bf16``."""
    other: Rates
    """Of kernels that were not calibrated."""

    @property
    def name(self) -> str:
        """Names the profile by its content, for manifests and reports."""
        digest = hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]
        return f"{self.cpu}, {self.cores} cores, {self.isa} ({digest})"

    def rates(self, op: str, dtype: str) -> Rates:
        return self.kernels.get(f"{op}/{dtype}", self.other)


class Choice(NamedTuple):
    profile: Profile
    note: str
    """Where it comes from."""
    measured_here: bool


def choose_profile(isa: str | None = None, directory: Path | None = None) -> Choice:
    """This machine's own profile if it is kept, else the one that ships. A damaged one is passed over, and said so.

    ``isa``: an instruction-set level below the best, or a device's architecture (``sm_90``), which nothing measures.
    """
    if isa in SHIPPED_DEVICES:
        device = shipped_device_profile(isa)
        return Choice(device, f"shipped with xllmc, {device.measured}", False)
    file = profile_file(isa, directory)
    try:
        kept = Profile.model_validate_json(file.read_bytes())
        return Choice(kept, f"measured on this machine ({kept.measured})", True)
    except FileNotFoundError:
        reason = "this machine is not calibrated; xllmc calibrate does that"
    except (OSError, ValidationError) as problem:
        fault = problem.errors()[0]["msg"] if isinstance(problem, ValidationError) else problem.strerror
        reason = f"{file} is damaged ({fault}); xllmc calibrate makes it again"
    generic = generic_profile()
    return Choice(generic, f"shipped with xllmc, {generic.measured}; {reason}", False)


@lru_cache
def generic_profile() -> Profile:
    """The profile that ships with xllmc."""
    return Profile.model_validate_json(resources.files(__package__).joinpath(GENERIC).read_bytes())


def shipped_device_profile(architecture: str) -> Profile:
    """The profile of a usual card of this architecture, from its data sheet."""
    file = resources.files(__package__).joinpath(f"profiles/{architecture}.json")
    return Profile.model_validate_json(file.read_bytes())


def profile_isa(target: str) -> str | None:
    """By which name machines of a target keep profiles: ``cuda:sm_90`` by ``sm_90``; None: by their best level."""
    return target.partition(":")[2] or None


def target_profile(target: str) -> Choice | None:
    """The profile by which an engine for ``target`` is predicted; None where no machine of its kind is known."""
    device = profile_isa(target)
    return choose_profile(device) if device is None or device in SHIPPED_DEVICES else None


def save_profile(profile: Profile, file: Path) -> None:
    """Write ``file`` aside, then rename it into place."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    aside.write_text(profile.model_dump_json(indent=1) + "\n")
    aside.replace(file)


def profile_file(isa: str | None = None, directory: Path | None = None) -> Path:
    """Where this machine's profile is kept: one file for each CPU model, number of cores and instruction set.

    ``directory``: default ``$XDG_CACHE_HOME/xllmc``, or ``~/.cache/xllmc``.
    """
    if directory is None:
        given = os.environ.get("XDG_CACHE_HOME")
        directory = (Path(given) if given else Path.home() / ".cache") / "xllmc"
    level = isa or (supported_isas() or ("unknown",))[-1]
    words = re.findall(r"[A-Za-z0-9]+", f"{cpu_model()} {os.cpu_count()} {level}")
    return directory / f"profile-{'-'.join(words).lower()}.json"


def cpu_model() -> str:
    """The CPU's name as the system tells it."""
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return "unknown"
