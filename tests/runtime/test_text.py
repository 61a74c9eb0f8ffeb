from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from xllmc.runtime.text import IncrementalText, StopStrings

from tests.runtime.toy import tokenizer_json

TOKENIZER = Tokenizer.from_str(tokenizer_json())


def decode(ids: list[int]) -> str:
    return TOKENIZER.decode(list(ids), skip_special_tokens=True)


@given(st.lists(st.integers(0, 256), max_size=60))
def test_pieces_joined_are_the_text_of_all_tokens(tokens: list[int]) -> None:
    """Any bytes at all: characters cut by tokens, bytes that are no characters, end tokens in between."""
    text = IncrementalText(decode)
    assert "".join([*map(text.add, tokens), text.finish()]) == decode(tokens)


@given(st.text(max_size=30), st.text(max_size=10))
def test_no_character_is_ever_split(answer: str, prompt: str) -> None:
    text = IncrementalText(decode, TOKENIZER.encode(prompt).ids)
    pieces = [text.add(token) for token in TOKENIZER.encode(answer).ids]
    assert "".join([*pieces, text.finish()]) == answer
    if "\ufffd" not in answer:
        assert not any("\ufffd" in piece for piece in pieces)


def test_endless_nonsense_is_shown_in_time() -> None:
    text = IncrementalText(decode)
    lone = TOKENIZER.encode("é").ids[1]
    shown = [text.add(lone) for _ in range(100)]
    assert len("".join(shown)) >= 95


def test_a_prompt_that_ends_within_a_character_gives_no_text() -> None:
    first, second = TOKENIZER.encode("é").ids
    text = IncrementalText(decode, [first])
    assert text.add(second) + text.finish() == "\ufffd"


@given(st.text("abc", max_size=40), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3), st.data())
def test_stop_strings_cut_exactly_wherever_pieces_end(whole: str, stops: list[str], data: st.DataObject) -> None:
    finder = StopStrings(stops)
    shown, position = "", 0
    while position < len(whole) and not finder.stopped:
        size = data.draw(st.integers(1, 5))
        shown += finder.add(whole[position : position + size])
        position += size
        assert whole.startswith(shown)
        seen = whole[:position]
        if not any(stop in seen for stop in stops):
            assert len(seen) - len(shown) < max(map(len, stops), default=1)
    shown += finder.finish()
    seen = whole[:position]
    cuts = [seen.index(stop) for stop in stops if stop in seen]
    assert shown == (seen[: min(cuts)] if cuts else whole)
    assert finder.stopped == bool(cuts)


def test_nothing_follows_a_stop_string() -> None:
    finder = StopStrings(["end"])
    assert [finder.add("an e"), finder.add("nd."), finder.add("more"), finder.finish()] == ["an ", "", "", ""]


@pytest.mark.parametrize("stop", ["\n\n", "é"])
def test_stop_strings_meet_unfinished_characters(stop: str) -> None:
    text, finder = IncrementalText(decode), StopStrings([stop])
    tokens = TOKENIZER.encode(f"café{stop}x").ids
    shown = "".join(finder.add(text.add(token)) for token in tokens)
    assert shown == ("caf" if stop == "é" else "café")


def test_tokens_without_text_cost_no_more_the_more_there_are() -> None:
    """Special tokens decode to nothing: what is decoded again at each must not grow."""
    longest = 0

    def decode(ids: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return "".join(chr(token) for token in ids if token)

    text = IncrementalText(decode, [ord("a")])
    shown = [text.add(token) for token in [ord("b"), *[0] * 500, ord("c"), 0, ord("d")]]
    assert "".join(shown) == "bcd" and longest < 50
