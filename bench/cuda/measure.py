"""What ``xllmc bench cuda`` measures, in order."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any

from ...compiler.driver import compile_model
from ...compiler.options import CompileOptions
from ..models import make_model
from .command import SIZES
from .device import DeviceRecord, Limits, architecture, describe, measure_limits
from .figures import Speed, measure_speed
from .parity import Parity, measure_parity
from .peer import Peer, PeerSpeed


@dataclass(frozen=True)
class CudaFigures:
    """What was asked for; None or empty is what was not."""

    date: str
    device: DeviceRecord
    limits: Limits
    parity: tuple[Parity, ...]
    speed: dict[str, Speed]
    invariant: dict[str, Speed]
    peer: dict[str, PeerSpeed]


def measure(
    torch: Any, directory: Path, sizes: list[str], parts: list[str], rounds: int, say: Callable[[str], None]
) -> CudaFigures:
    target = f"cuda:{architecture(torch)}"
    say("measuring the device's limits")
    limits = measure_limits(torch, rounds)
    device = describe(torch)
    parity: tuple[Parity, ...] = ()
    if "parity" in parts:
        say("comparing numbers with transformers")
        with resources.as_file(resources.files("xllmc.models.demo") / "checkpoints" / "demo") as model:
            parity = measure_parity(torch, model, directory, target)
    speed, invariant, peers = {}, {}, {}
    for size in sizes:
        model = make_model(directory / f"{size}.model", SIZES[size])
        if "speed" in parts:
            speed[size] = speed_of(model, directory / f"{size}.engine", target, False, limits, rounds, say)
        if "invariant" in parts:
            engine = directory / f"{size}-invariant.engine"
            invariant[size] = speed_of(model, engine, target, True, limits, rounds, say)
        if "peer" in parts:
            say(f"transformers, {size}")
            peer = Peer(torch, model)
            peers[size] = peer.measure(rounds)
            peer.close()
    return CudaFigures(date.today().isoformat(), device, limits, parity, speed, invariant, peers)


def speed_of(
    model: Path, engine: Path, target: str, invariant: bool, limits: Limits, rounds: int, say: Callable[[str], None]
) -> Speed:
    say(f"compiling {engine.stem}")
    options = CompileOptions(target=target, random_weights=0, batch_invariant=invariant, verification="structure")
    compile_model(model, engine, options)
    say(f"running {engine.stem}")
    return measure_speed(engine, limits, rounds)
