"""One seed makes one workload; lines and rounds share lengths and no content; options at odds are refused."""

import json

import pytest
from xllmc.bench.serve.inputs import read_prompts, read_trace
from xllmc.bench.serve.lengths import parse_lengths
from xllmc.bench.serve.loads import Load, choose_loads
from xllmc.bench.serve.workload import Workload
from xllmc.runtime.artifact.errors import OptionError

RATE = Load(rate=10)


def workload(**given) -> Workload:
    values = {
        "requests": 20,
        "duration": None,
        "arrivals": "poisson",
        "burstiness": 1.0,
        "trace": None,
        "prompt_lengths": parse_lengths("uniform:5:50", "--x"),
        "output_lengths": parse_lengths("uniform:5:50", "--x"),
        "prompts": None,
        "vocabulary": None,
        "prefix_tokens": 0,
        "prefix_groups": 1,
        "chat": False,
        "seed": 3,
    }
    return Workload(**(values | given))


def lines(tmp_path, *values: object):
    file = tmp_path / "lines.jsonl"
    file.write_text("\n".join(v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values))
    return file


def test_one_seed_makes_one_workload():
    assert workload().works(RATE, 0, 0) == workload().works(RATE, 0, 0)
    assert workload(seed=4).works(RATE, 0, 0) != workload().works(RATE, 0, 0)


@pytest.mark.parametrize("vocabulary", [None, (100, 200)])
def test_lines_share_lengths_but_no_prompt(vocabulary):
    made = workload(vocabulary=vocabulary)
    first, second = made.works(Load(rate=1), 0, 0), made.works(Load(rate=10), 1, 0)
    assert [work.output_tokens for work in first] == [work.output_tokens for work in second]
    assert [len(work.prompt) for work in made.works(RATE, 0, 0)] == [
        len(work.prompt) for work in made.works(RATE, 0, 0)
    ]
    assert [work.at for work in first] == pytest.approx([10 * work.at for work in second])
    assert not {work.prompt for work in first} & {work.prompt for work in second}
    assert not {work.prompt for work in first} & {work.prompt for work in made.works(RATE, 0, 1)}
    assert not {work.prompt for work in first} & {work.prompt for work in made.warmup(20)}


def test_token_ids_come_from_the_vocabulary_in_the_lengths_asked_for():
    works = workload(vocabulary=(100, 110), prompt_lengths=parse_lengths("30", "--x")).works(RATE, 0, 0)
    assert {len(work.prompt) for work in works} == {30}
    assert {token for work in works for token in work.prompt} == set(range(100, 110))


def test_words_are_as_many_as_tokens_asked_for():
    works = workload(prompt_lengths=parse_lengths("30", "--x")).works(RATE, 0, 0)
    assert {len(work.prompt.split()) for work in works} == {30}


@pytest.mark.parametrize("vocabulary", [None, (0, 1000)])
def test_a_group_shares_its_prefix_and_groups_share_none(vocabulary):
    works = workload(vocabulary=vocabulary, prefix_tokens=40, prefix_groups=3, requests=60).works(RATE, 0, 0)
    starts = {group: {tuple(_tokens(w.prompt)[:40]) for w in works if w.group == group} for group in range(3)}
    assert all(len(prefixes) == 1 for prefixes in starts.values())
    assert len({next(iter(prefixes)) for prefixes in starts.values()}) == 3
    assert sum(work.first_of_group for work in works) == 3
    assert len({work.prompt for work in works}) == 60


def _tokens(prompt):
    return prompt.split() if isinstance(prompt, str) else prompt


def test_a_duration_gives_each_rate_its_requests():
    made = workload(requests=None, duration=4.0)
    assert [made.count(Load(rate=rate)) for rate in (0.1, 2, 10)] == [1, 8, 40]
    with pytest.raises(OptionError, match="--duration needs --rate"):
        made.count(Load(concurrency=3))


def test_a_trace_is_followed(tmp_path):
    file = lines(
        tmp_path,
        {"time": 7, "prompt_tokens": 3, "output_tokens": 2},
        "",
        dict(time=5.5, prompt_tokens=9, output_tokens=4),
    )
    works = workload(requests=None, trace=read_trace(file), vocabulary=(0, 99)).works(Load(), 0, 0)
    assert [(w.at, len(w.prompt), w.output_tokens) for w in works] == [(0.0, 9, 4), (1.5, 3, 2)]


def test_prompts_of_a_file_are_sent_as_they_are(tmp_path):
    given = [{"prompt": "line\u2028end"}, {"prompt": [1, 2], "output_tokens": 3}]
    works = workload(prompts=read_prompts(lines(tmp_path, *given), chat=False)).works(RATE, 0, 0)
    assert {work.prompt for work in works} == {"line\u2028end", (1, 2)}
    assert {work.output_tokens for work in works if work.prompt == (1, 2)} == {3}
    messages = [{"role": "user", "content": "hi"}]
    works = workload(prompts=read_prompts(lines(tmp_path, {"messages": messages}), chat=True), chat=True).works(
        RATE, 0, 0
    )
    assert works[0].prompt == tuple(messages)


@pytest.mark.parametrize(
    "line",
    ["{", "3", "{}", '{"prompt": 3}', '{"prompt": []}', '{"prompt": ["a"]}', '{"prompt": "a", "messages": []}',
     '{"messages": [{}]}', '{"prompt": "a", "output_tokens": 0}', '{"text": "a"}'],
)  # fmt: skip
def test_a_bad_prompt_is_named_by_its_line(tmp_path, line):
    with pytest.raises(OptionError, match=r"lines\.jsonl:2"):
        read_prompts(lines(tmp_path, {"prompt": "good"}, line), chat=False)


@pytest.mark.parametrize(
    "line",
    ["[]", '{"time": 1}', '{"time": -1, "prompt_tokens": 1, "output_tokens": 1}',
     '{"time": NaN, "prompt_tokens": 1, "output_tokens": 1}', '{"time": 1, "prompt_tokens": 1.5, "output_tokens": 1}',
     '{"time": 1, "prompt_tokens": 1, "output_tokens": 1, "hash": 3}'],
)  # fmt: skip
def test_a_bad_arrival_is_named_by_its_line(tmp_path, line):
    with pytest.raises(OptionError, match=r"lines\.jsonl:1"):
        read_trace(lines(tmp_path, line))


@pytest.mark.parametrize("content", ["", "\n\n", b"\xff"])
def test_a_file_without_lines_is_refused(tmp_path, content):
    file = tmp_path / "none"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(OptionError, match="none"):
        read_trace(file)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"duration": 3.0}, "--duration"),
        ({"requests": None, "duration": -1.0}, "--duration"),
        ({"burstiness": 2.0}, "--burstiness"),
        ({"arrivals": "gamma", "burstiness": 0.0}, "--burstiness"),
        ({"chat": True, "vocabulary": (0, 9)}, "--vocab"),
        ({"prompts": ("x",), "prefix_tokens": 3}, "--prefix-tokens"),
        ({"prompts": ("x",), "trace": ("y",)}, "--trace"),
    ],
)
def test_options_at_odds_are_refused(given, named):
    with pytest.raises(OptionError, match=named):
        workload(**given)


def test_a_load_is_of_one_kind():
    assert choose_loads([1, 2, 1], [], False) == (Load(rate=1), Load(rate=2))
    assert choose_loads([], [4], False) == (Load(concurrency=4),)
    assert choose_loads([], [], True) == (Load(),)
    for bad in (([], [], False), ([1], [1], False), ([0], [], False), ([float("inf")], [], False), ([], [0], False)):
        with pytest.raises(OptionError, match=r"--rate|--concurrency"):
            choose_loads(*bad)
