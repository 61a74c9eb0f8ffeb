"""What single tokens stand for: their bytes, which need be no whole characters."""

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tokenizers

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_METASPACE = "\u2581"


class TokenPieces:
    """The bytes of each token, by what the tokenizer's decoder does to tokens one by one.

    Joined, the pieces of a text's tokens are its UTF-8; decoders that look at neighbours (dropping a first space, say)
    may show less.
    """

    def __init__(self, tokenizer: "tokenizers.Tokenizer") -> None:
        self._tokenizer = tokenizer
        self._added = {token: added.content for token, added in tokenizer.get_added_tokens_decoder().items()}
        self.special = frozenset(
            token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special
        )
        """Tokens that decoding leaves out."""
        decoder = tokenizer.decoder
        self._steps = _steps(json.loads(decoder.__getstate__())) if decoder is not None else []
        self._found: dict[int, bytes] = {}

    def __getitem__(self, token: int) -> bytes:
        """The bytes of a token: a special one's name, nothing for an id the tokenizer does not know."""
        piece = self._found.get(token)
        if piece is None:
            piece = self._found[token] = self._piece(token)
        return piece

    def _piece(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token].encode()
        text = self._tokenizer.id_to_token(token)
        if text is None:
            return b""
        for step in self._steps:
            match step["type"]:
                case "ByteLevel" if all(character in _BYTES for character in text):
                    return bytes(_BYTES[character] for character in text)
                case "ByteFallback" if found := _BYTE.fullmatch(text):
                    return bytes([int(found[1], 16)])
                case "Metaspace":
                    text = text.replace(step.get("replacement", _METASPACE), " ")
                case "Replace" if isinstance(pattern := step["pattern"].get("String"), str):
                    text = text.replace(pattern, step["content"])
                case "WordPiece":
                    prefix = step["prefix"]
                    text = text.removeprefix(prefix) if text.startswith(prefix) else f" {text}"
        return text.encode()


def _steps(decoder: dict[str, Any]) -> list[dict[str, Any]]:
    """A decoder's steps in their order."""
    if decoder["type"] == "Sequence":
        return [step for inner in decoder["decoders"] for step in _steps(inner)]
    return [decoder]


def _byte_alphabet() -> dict[str, int]:
    """The characters that byte-level tokenizers write bytes as (GPT-2's): printable ones as themselves, others after
    all of Latin-1 in their order.
    """
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


_BYTES = _byte_alphabet()
