"""The order of passes: by stage, then by what each says of before and after, then as they were given."""

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import TypeVar

from ...passes.api import STAGES, Pass, Stage
from ...runtime.artifact.errors import OptionError

P = TypeVar("P", bound=Pass)


def in_order(passes: Sequence[P], origins: Mapping[type[Pass], object] | None = None) -> list[P]:
    """The passes as they run; one of each stage may stand in it several times.

    ``origins``: what brought each, for errors, where it is known.
    OptionError for two passes of one name, a before or after that names no pass, or one of another stage that
    contradicts the order of stages, and for a cycle.
    """
    by_name: dict[str, P] = {}
    origins = origins or {type(p): type(p).__module__ for p in passes}
    for one in passes:
        if one.name in by_name:
            both = f"{origins[type(by_name[one.name])]} and {origins[type(one)]}"
            raise OptionError(f"two passes are named {one.name}, of {both}")
        by_name[one.name] = one
    for one in passes:
        if unknown := [n for n in one.counts_as if n not in by_name]:
            raise OptionError(f"pass {one.name} (of {origins[type(one)]}) counts as {unknown[0]}, which is no pass")
    ordered: list[P] = []
    for stage in STAGES[1:]:
        own = [p for p in passes if p.stage == stage and not p.each_stage]
        ordered += [p for p in passes if p.each_stage and STAGES.index(p.stage) <= STAGES.index(stage)]
        ordered += _sorted(own, by_name, stage, origins)
    return ordered


def _sorted(own: Sequence[P], by_name: dict[str, P], stage: Stage, origins: Mapping[type[Pass], object]) -> list[P]:
    earlier: dict[str, set[str]] = {p.name: set() for p in own}
    for one in own:
        for other, first, second in [*((n, one.name, n) for n in one.before), *((n, n, one.name) for n in one.after)]:
            if other not in by_name:
                relation = "before" if first == one.name else "after"
                known = ", ".join(sorted(by_name))
                raise OptionError(
                    f"pass {one.name} (of {origins[type(one)]}) is to run {relation} {other}, "
                    f"but there is no such pass; known: {known}"
                )
            if other in earlier:
                earlier[second].add(first)
            else:
                _check_stages(by_name[first], by_name[second])
    sorter = TopologicalSorter(earlier)
    try:
        sorter.prepare()
    except CycleError as error:
        raise OptionError(
            f"passes of stage {stage} run after each other in a circle: {' < '.join(error.args[1])}"
        ) from error
    result: list[P] = []
    waiting: list[str] = []
    place = {p.name: i for i, p in enumerate(own)}
    while sorter.is_active():
        waiting = sorted([*waiting, *sorter.get_ready()], key=place.__getitem__)
        name = waiting.pop(0)
        result.append(by_name[name])
        sorter.done(name)
    return result


def _check_stages(first: Pass, second: Pass) -> None:
    late = STAGES.index(first.stage) - STAGES.index(second.stage)
    if late > 0 or (late == 0 and second.each_stage):
        place = f"is of the earlier stage {second.stage}" if late else "begins that stage"
        raise OptionError(f"pass {first.name} of stage {first.stage} cannot run before {second.name}, which {place}")
