"""Whether passes matched as often as the model's family says they must: fusion does not miss silently."""

from collections.abc import Collection, Mapping, Sequence

from ...runtime.artifact.errors import OptionError, XllmcError
from .run import PassReport

SHOWN = 5
"""Near misses that an error quotes of each pass."""


class MissedMatches(XllmcError):
    """A pass matched fewer sites than declared; the message quotes where it nearly did."""


def check_expected(
    expected: Mapping[str, int], reports: Sequence[PassReport], family: str, left_out: Collection[str] = ()
) -> None:
    """Raise MissedMatches for the passes that fell short. One that was left out, or failed, is not expected to match.

    OptionError where the family declares matches of a pass that there is not.
    """
    short = []
    for name, wanted in expected.items():
        if name not in left_out and not any(r.name == name or name in r.counts_as for r in reports):
            raise OptionError(f"family {family} declares {wanted} matches of pass {name}, but there is no such pass")
        own = [r for r in reports if r.name == name and not r.skipped]
        found = sum(r.matches for r in reports if r.name == name or name in r.counts_as)
        if own and found < wanted:
            misses = [miss for r in own for miss in r.near_misses]
            more = [f"and {len(misses) - SHOWN} more"] if len(misses) > SHOWN else []
            why = "; ".join([*misses[:SHOWN], *more]) or "no near misses"
            short.append(f"{name} matched {found} of {wanted} sites ({why})")
    if short:
        raise MissedMatches(
            f"{family} declares more matches than its passes found: {'. '.join(short)}. "
            "Compile with --allow-missed to have the slower engine"
        )
