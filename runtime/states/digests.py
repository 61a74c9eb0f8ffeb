"""Names for what pages hold: a chain of hashes over blocks of tokens, so that equal names mean equal prefixes."""

from array import array
from collections.abc import Sequence
from hashlib import blake2b

_BYTES = 16


def root_digest(version: int, salt: str) -> bytes:
    """Where the chains of sequences of one weight version and one salt start."""
    return blake2b(f"{version} {salt}".encode(errors="surrogatepass"), digest_size=_BYTES).digest()


def extend_chain(chain: list[bytes], root: bytes, tokens: Sequence[int], page_tokens: int, blocks: int) -> None:
    """Append the digests of further full blocks of ``tokens``, up to ``blocks`` of them in all."""
    for block in range(len(chain), blocks):
        before = chain[-1] if chain else root
        part = array("i", tokens[block * page_tokens : (block + 1) * page_tokens])
        chain.append(blake2b(before + part.tobytes(), digest_size=_BYTES).digest())
