"""Event streams come apart the same however they were cut, and events say what servers of several kinds mean."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xllmc.bench.serve import sse
from xllmc.bench.serve.protocol import Dialect, Usage, error_message, read_event
from xllmc.bench.serve.records import Work
from xllmc.bench.serve.sse import EventReader, EventStreamError

END = st.sampled_from(["\n", "\r\n", "\r"])
TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8)
EVENT = st.lists(TEXT, min_size=1, max_size=3)


@given(events=st.lists(st.tuples(EVENT, END, st.booleans()), max_size=6), cuts=st.lists(st.integers(0, 200)), tail=TEXT)
def test_events_do_not_depend_on_how_bytes_come(events, cuts, tail):
    stream = b""
    for lines, end, noisy in events:
        noise = f": ping{end}id: 7{end}event: message{end}" if noisy else ""
        stream += (noise + "".join(f"data: {line}{end}" for line in lines) + end).encode()
    expected = ["\n".join(lines).encode() for lines, _, _ in events]
    stream += b"data: " + tail.encode()  # unfinished: no event
    marks = sorted({0, *(min(cut, len(stream)) for cut in cuts), len(stream)})
    reader, found = EventReader(), []
    for start, stop in pairwise(marks):
        found += reader.feed(stream[start:stop])
    # A stream that ends with a carriage return may hold its last event back: more may belong to it.
    assert found == expected or (stream.endswith(b"\r") and found == expected[:-1])


def test_an_endless_event_is_refused(monkeypatch):
    monkeypatch.setattr(sse, "MOST_BYTES", 1000)
    reader = EventReader()
    with pytest.raises(EventStreamError, match="1000"):
        for _ in range(200):
            reader.feed(b"data: xxxxxx")


def event(chat: bool, **choice):
    return read_event(json.dumps({"choices": [{"index": 0, **choice}]}).encode(), chat)


def test_a_completions_tokens_are_told_from_its_end():
    assert event(False, text="a", finish_reason=None).spoke
    assert event(False, text="", finish_reason=None).spoke  # half a character
    assert event(False, text="a", finish_reason="length")[:2] == (True, "length")
    assert event(False, text="", finish_reason="stop")[:2] == (False, "stop")
    assert event(False, text="", token_ids=[7], finish_reason="stop").spoke


def test_a_chats_tokens_are_told_from_its_opening_and_end():
    assert not event(True, delta={"role": "assistant", "content": ""}).spoke
    assert not event(True, delta={"role": "assistant", "content": None}).spoke
    assert event(True, delta={"role": "assistant", "content": "a"}).spoke
    assert event(True, delta={"content": "a"}, finish_reason=None).spoke
    assert event(True, delta={"content": ""}).spoke
    assert event(True, delta={"reasoning_content": "hm"}).spoke
    assert event(True, delta={"tool_calls": [{}]}).spoke
    assert event(True, delta={}, finish_reason="stop")[:2] == (False, "stop")
    assert event(True, delta={"content": ""}, finish_reason="stop")[:2] == (False, "stop")


def test_usage_is_read_as_far_as_it_is_given():
    def usage(value):
        return read_event(json.dumps({"choices": [], "usage": value}).encode(), False).usage

    details = {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}
    assert usage(details) == Usage(5, 3, 2)
    assert usage({"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": None}) == Usage(5, 3, None)
    assert usage({}) == Usage(None, None, None)
    assert usage(None) is None


def test_errors_in_a_stream_are_told():
    assert read_event(b'{"error": {"message": "out of memory", "code": 500}}', False).error == "out of memory"
    assert error_message({"detail": [{"loc": ["body"]}]}) == '[{"loc": ["body"]}]'
    assert error_message({"message": "no"}) == "no"
    assert len(error_message("x" * 1000)) < 250


@pytest.mark.parametrize("data", [b"{", b"3", b"[]", b'{"choices": 3}', b'{"choices": [3]}', b"\xff"])
def test_what_is_no_event_is_refused(data):
    with pytest.raises(EventStreamError):
        read_event(data, False)


def test_a_request_asks_for_what_the_server_takes():
    work = Work(4, 0.0, (1, 2), 7)
    asked = json.loads(Dialect("m", chat=False, ignore_eos=True, usage=True).body(work))
    assert asked == {
        "model": "m", "prompt": [1, 2], "max_tokens": 7, "stream": True, "temperature": 0.0, "ignore_eos": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    dialect = Dialect(
        "m", chat=True, ignore_eos=False, usage=False, temperature=0.5, extra={"max_tokens": 9, "top_k": 3}
    )
    assert json.loads(dialect.body(Work(4, 0.0, "hi", 7))) == {
        "model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9, "stream": True,
        "temperature": 0.5, "seed": 4, "top_k": 3,
    }  # fmt: skip
