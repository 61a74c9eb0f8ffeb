"""Grids and conditions of device launches, evaluated at the sizes that a step is captured for."""

from collections.abc import Iterable, Mapping

from .schema import Axis, Condition, DeviceSize, Launch

DeviceSizes = Mapping[DeviceSize, int]
"""T, S, R, B and Q."""


def programs(axis: Axis, sizes: DeviceSizes) -> int:
    """How many programs a grid has along an axis."""
    return sum(-(-term.factor * (sizes[term.symbol] if term.symbol else 1) // term.divisor) for term in axis)


def grid_of(launch: Launch, sizes: DeviceSizes) -> tuple[int, int, int]:
    """The grid of a device's launch. ValueError for one of the CPU's."""
    if launch.grid is None:
        raise ValueError(f"{launch.kernel} is no kernel of a device")
    return grid_of_axes(launch.grid, sizes)


def grid_of_axes(grid: tuple[Axis, Axis, Axis], sizes: DeviceSizes) -> tuple[int, int, int]:
    """Programs along each of three axes."""
    first, second, third = grid
    return programs(first, sizes), programs(second, sizes), programs(third, sizes)


def node_of(origin: str) -> str:
    """The node of a launch's origin, ``module:node`` or ``module:node/part`` where it has several launches."""
    return origin.partition("/")[0]


def holds(conditions: Iterable[Condition], sizes: DeviceSizes) -> bool:
    """Whether all conditions hold."""
    return all(c.least <= sizes[c.symbol] and (c.most is None or sizes[c.symbol] <= c.most) for c in conditions)
