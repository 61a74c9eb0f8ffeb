import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from xllmc.runtime.token_pieces import TokenPieces

WORDS = {"\u2581a": 0, "<0xE2>": 1, "b\u2581": 2, "##c": 3, "\u00e9": 4}


def pieces(decoder: object, count: int = 5) -> list[bytes]:
    """Of the tokens of WORDS, by this decoder."""
    tokenizer = Tokenizer(models.BPE(vocab=WORDS, merges=[]))
    if decoder is not None:
        tokenizer.decoder = decoder
    found = TokenPieces(tokenizer)
    return [found[token] for token in range(count)]


def test_byte_level_tokens_are_bytes() -> None:
    tokenizer = Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(pre_tokenizers.ByteLevel.alphabet())}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end é|>"])
    found = TokenPieces(tokenizer)
    for text in ("naïve 東京 🎉\n\t\x00\x7f", "".join(map(chr, range(256)))):
        assert b"".join(found[token] for token in tokenizer.encode(text).ids) == text.encode()
    assert sorted(found[token] for token in range(256)) == [bytes([byte]) for byte in range(256)]
    assert found.special == {256} and found[256] == "<|end é|>".encode()
    assert found[999] == b""


DECODERS = {
    "none": (None, ["\u2581a", "<0xE2>", "b\u2581", "##c", "\u00e9"]),
    "metaspace": (decoders.Metaspace(), [" a", "<0xE2>", "b ", "##c", "\u00e9"]),
    "words": (decoders.WordPiece(), [" \u2581a", " <0xE2>", " b\u2581", "c", " \u00e9"]),
}


@pytest.mark.parametrize(("decoder", "expected"), DECODERS.values(), ids=DECODERS)
def test_other_decoders(decoder: object, expected: list[str]) -> None:
    assert pieces(decoder) == [text.encode() for text in expected]


def test_byte_fallback_as_llama_has_it() -> None:
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    assert pieces(decoders.Sequence(steps)) == [b" a", b"\xe2", b"b ", b"##c", "\u00e9".encode()]
