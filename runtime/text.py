"""From token ids to text, piece by piece: whole characters only, and nothing of a stop string."""

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
_UNFINISHED = "\ufffd"
"""What decoders put for bytes that are no character, or not yet one."""
_PROMPT_CONTEXT = 6
"""Tokens of the prompt that the first token is decoded after."""
_SILENT_TOKENS = 32
"""Tokens without any text, as special ones are, that are kept as context."""
_CHARACTER_TOKENS = 4
"""The most tokens that one character takes: UTF-8 has at most four bytes."""


class IncrementalText:
    """Decodes tokens as they come. The pieces, joined, are what the tokens add to the prompt's text."""

    def __init__(self, decode: Decode, prompt: Sequence[int] = ()) -> None:
        self._decode = decode
        self._ids = list(prompt[-_PROMPT_CONTEXT:])
        if decode(self._ids).endswith(_UNFINISHED):
            self._ids = []
        self._shown = len(self._ids)
        self._shown_length = len(decode(self._ids))

    def add(self, token: int) -> str:
        """The text that ``token`` completes; empty while a character is unfinished."""
        self._ids.append(token)
        text = self._decode(self._ids)
        if not text.endswith(_UNFINISHED):
            return self._show(text, len(self._ids))
        # Of a long run of bytes that are no characters, show what no later byte can change.
        settled = len(self._ids) - _CHARACTER_TOKENS
        if settled > self._shown and text.startswith(part := self._decode(self._ids[:settled])):
            return self._show(part, settled)
        return ""

    def finish(self) -> str:
        """What is left, unfinished characters as U+FFFD."""
        return self._show(self._decode(self._ids), len(self._ids))

    def _show(self, text: str, stop: int) -> str:
        """``text``: of the tokens up to ``stop``. Decoders treat a first token differently (they drop its space, say),
        so the tokens shown last stay as context of the next.
        """
        piece = text[self._shown_length :]
        if piece:
            del self._ids[: self._shown]
            stop -= self._shown
        elif stop > _SILENT_TOKENS:
            del self._ids[_PROMPT_CONTEXT:stop]
            stop = _PROMPT_CONTEXT
        self._shown = stop
        self._shown_length = len(self._decode(self._ids[:stop]))
        return piece


class StopStrings:
    """Cuts text before the first of the stop strings, holding back what may become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def add(self, text: str) -> str:
        """The text that is safe to show. After a stop string ``stopped`` is true, and nothing more is shown."""
        if self.stopped:
            return ""
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._release(min(found))
        return self._release(len(self._held) - self._possible_start())

    def finish(self) -> str:
        """What was held back and became no stop string."""
        return "" if self.stopped else self._release(len(self._held))

    def _release(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        return text

    def _possible_start(self) -> int:
        """The length of the longest tail that begins a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0
