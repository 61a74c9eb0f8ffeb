"""Server-sent events, the part of them that completions use: the data of each event."""

import re

from ...runtime.artifact.errors import XllmcError

MOST_BYTES = 16 << 20
_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventStreamError(XllmcError):
    """A stream holds what no event stream may."""


class EventReader:
    """Bytes in, as they come; the data of finished events out."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, received: bytes) -> list[bytes]:
        """Data of the events that ``received`` finishes. Comments and other fields are passed over.

        Raises EventStreamError where an event grows beyond any reason.
        """
        text = self._rest + received
        # A carriage return at the end may be half of a line's end.
        held = text[-1:] == b"\r"
        *lines, self._rest = _LINE_END.split(text[:-1] if held else text)
        self._rest += b"\r" if held else b""
        if len(self._rest) > MOST_BYTES:
            raise EventStreamError(f"an event must be under {MOST_BYTES} bytes")
        events = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif line == b"data":
                self._data.append(b"")
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data = []
        return events
