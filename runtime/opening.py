"""What an engine is loaded from and with: its files, its options, and how much memory these come to."""

from dataclasses import dataclass
from pathlib import Path

from .artifact.schema import Manifest, Plan
from .options import EngineOptions, SchedulingOptions
from .plan import Capacities
from .states.paged import pages_needed

_PAGE_TOKENS = 32
"""Of the block tables of an engine without states."""


@dataclass(frozen=True)
class Opening:
    """An engine directory whose manifest and plan were read, and how it is to be loaded."""

    root: Path
    manifest: Manifest
    plan: Plan
    options: EngineOptions
    scheduling: SchedulingOptions

    @property
    def page_tokens(self) -> int:
        """Positions in a column of the block tables."""
        return self.manifest.groups[0].page_tokens if self.manifest.groups else _PAGE_TOKENS

    @property
    def capacities(self) -> Capacities:
        """The largest sizes of a step."""
        columns = -(-self.manifest.model.max_context // self.page_tokens)
        return Capacities(self.options.max_tokens, self.options.max_sequences, self.options.max_rows, columns)

    @property
    def host_pages(self) -> tuple[int, ...]:
        """By state group: pages of the host's other memory."""
        return tuple(-(-self.scheduling.swap_tokens // group.page_tokens) for group in self.manifest.groups)

    def pages(self, affordable_bytes: float) -> tuple[int, ...]:
        """By state group: room for ``kv_tokens`` tokens or, where that is not given, for what ``affordable_bytes``
        hold; for one sequence of full length then at least, and for ``max_sequences`` of them at most.
        """
        groups, states, options = self.manifest.groups, self.manifest.states, self.options
        longest = self.manifest.model.max_context
        tokens = options.kv_tokens
        if tokens is None:
            per_token = sum(state.page_bytes / groups[state.group].page_tokens for state in states)
            affordable = int(affordable_bytes / per_token) if per_token else longest
            tokens = min(options.max_sequences * longest, max(longest, affordable))
        most = (options.max_sequences * pages_needed(group, longest, options.max_tokens) for group in groups)
        return tuple(min(-(-tokens // group.page_tokens), limit) for group, limit in zip(groups, most, strict=True))
