"""Log-probabilities in OpenAI's two forms.

They are of the model's own distribution. JSON has no infinity: -9999.0 stands for minus infinity, as in other servers.
"""

import math
from codecs import getincrementaldecoder
from collections.abc import Iterable, Sequence

from ..requests import PromptLogprob, TokenLogprobs
from ..token_pieces import TokenPieces
from .responses import ChatLogprobs, CompletionLogprobs, TokenLogprob, TopLogprob

IMPOSSIBLE = -9999.0
Found = TokenLogprobs | PromptLogprob | None


def finite(value: float) -> float:
    """``value``, or the lowest there is."""
    return value if math.isfinite(value) else IMPOSSIBLE


class TokenTexts:
    """Tokens as text. ``pieces`` None: the engine has no tokenizer, and tokens are named by their ids."""

    def __init__(self, pieces: TokenPieces | None) -> None:
        self._pieces = pieces

    def piece(self, token: int) -> bytes:
        """The token's bytes, which may be half a character."""
        return f"token_id:{token}".encode() if self._pieces is None else self._pieces[token]

    def completion(self, token: int) -> str:
        r"""As completions write it: bytes:\xe2\x80 for half a character."""
        text = self.chat(token)
        return text if _decoded(self.piece(token)) is not None else f"bytes:{text}"

    def chat(self, token: int) -> str:
        r"""As chat completions write it: \xe2\x80 for half a character."""
        piece = self.piece(token)
        text = _decoded(piece)
        return "".join(f"\\x{byte:02x}" for byte in piece) if text is None else text

    def shown(self, token: int) -> bytes:
        """What the token adds to a text: nothing, if it is special or the engine has no tokenizer."""
        hidden = self._pieces is None or token in self._pieces.special
        return b"" if hidden else self.piece(token)


class CompletionTexts:
    """The logprobs of one choice of /v1/completions, token by token, with their places in its text."""

    def __init__(self, texts: TokenTexts) -> None:
        self._texts = texts
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def body(self, tokens: Iterable[tuple[int, Found]]) -> CompletionLogprobs:
        """The next ``tokens``; a prompt's first has no logprob."""
        shown = CompletionLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
        for token, found in tokens:
            shown.tokens.append(self._texts.completion(token))
            shown.text_offset.append(self._offset)
            shown.token_logprobs.append(None if found is None else _own(token, found))
            shown.top_logprobs.append(None if found is None else self._top(token, found))
            self._offset += len(self._decoder.decode(self._texts.shown(token)))
        return shown

    def _top(self, token: int, found: TokenLogprobs | PromptLogprob) -> dict[str, float]:
        # Tokens may share a text; the likelier one keeps it, but the token itself must be found.
        top: dict[str, float] = {self._texts.completion(token): _own(token, found)}
        for other, value in found.top:
            top.setdefault(self._texts.completion(other), finite(value))
        return top


def chat_logprobs(texts: TokenTexts, tokens: Sequence[tuple[int, TokenLogprobs]]) -> ChatLogprobs:
    """The logprobs of a chat completion's tokens."""
    content = [
        TokenLogprob(
            **_named(texts, token, _own(token, found)),
            top_logprobs=[TopLogprob(**_named(texts, other, finite(value))) for other, value in found.top],
        )
        for token, found in tokens
    ]
    return ChatLogprobs(content=content, refusal=None)


def _named(texts: TokenTexts, token: int, logprob: float) -> dict[str, object]:
    return {"token": texts.chat(token), "logprob": logprob, "bytes": list(texts.piece(token))}


def _own(token: int, found: TokenLogprobs | PromptLogprob) -> float:
    """The token's logprob: the very number of the list of the likeliest, so that clients can tell the first of them by
    comparing (two kernels compute the two, and may differ in the last bit).
    """
    return finite(dict(found.top).get(token, found.model))


def _decoded(piece: bytes) -> str | None:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return None
