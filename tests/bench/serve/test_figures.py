"""Percentiles, goodput, saturation and the client's own part, on records whose answers are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xllmc.bench.serve.compare import ratios
from xllmc.bench.serve.figures import distribution, figures
from xllmc.bench.serve.loads import Load
from xllmc.bench.serve.notes import notes
from xllmc.bench.serve.records import ClientLoad
from xllmc.bench.serve.saturation import growth
from xllmc.bench.serve.session import Line
from xllmc.bench.serve.slo import Objective, met, parse_objectives
from xllmc.runtime.artifact.errors import OptionError

from tests.bench.serve.made import failed, record, run_of

RATE = Load(rate=2)


def test_percentiles_have_known_answers():
    found = distribution([*range(101), None])
    assert found == (101, 50.0, 50.0, 90.0, 95.0, 99.0)
    assert distribution([3.0]) == (1, 3.0, 3.0, 3.0, 3.0, 3.0)
    assert distribution([0.0, 1.0]).p90 == pytest.approx(0.9)
    assert distribution([None]) is None


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_percentiles_are_in_order_and_do_not_depend_on_it(values):
    found = distribution(values)
    assert min(values) <= found.p50 <= found.p90 <= found.p95 <= found.p99 <= max(values)
    assert distribution(sorted(values))[2:] == found[2:]


def test_times_count_from_the_scheduled_arrival_and_from_sending():
    late = record(at=1.0, ttft=0.5, gap=0.1, tokens=5, sent=1.3)
    assert late.lag == pytest.approx(0.3)
    assert (late.ttft, late.ttft_from_sending) == (pytest.approx(0.5), pytest.approx(0.2))
    assert (late.e2e, late.e2e_from_sending) == (pytest.approx(0.9), pytest.approx(0.6))
    assert late.tpot == pytest.approx(0.1)
    assert late.gaps == pytest.approx((0.1,) * 4)


def test_a_chunk_of_several_tokens_makes_no_token_slower():
    one = record(tokens=5, gap=0.1, output_tokens=20, asked_tokens=20)
    assert one.tpot == pytest.approx(0.4 / 19)
    found = figures([run_of([one])], RATE, ())
    assert found.tokens_per_chunk == 4.0 and found.tokens_counted_by == "usage"
    assert found.itl.p50 == pytest.approx(0.1)


def test_chunks_that_come_in_one_piece_are_told():
    one = record(chunks=(0.1, 0.1, 0.2, 0.2), output_tokens=4)
    found = figures([run_of([one])], RATE, ())
    assert found.chunks_together == 0.5
    assert any("one piece" in note for note in notes(Line(0, RATE, found, (found,))))


def test_tokens_are_counted_by_chunks_only_where_the_server_does_not():
    found = figures([run_of([record(), record(1, output_tokens=None)])], RATE, ())
    assert found.tokens_counted_by == "chunks" and found.tokens_per_chunk is None


def test_goodput_counts_requests_that_meet_all_objectives():
    objectives = parse_objectives(["ttft:0.5", "tpot:0.05"])
    records = [
        record(0, ttft=0.4, gap=0.04),
        record(1, ttft=0.6, gap=0.04),
        record(2, ttft=0.4, gap=0.06),
        record(3, ttft=0.4, gap=9.0, tokens=1),  # no second token, so no time per token
        failed(4, "500"),
        record(5, at=9.0, ttft=0.4, gap=0.15, tokens=5),
    ]
    assert [met(one, objectives) for one in records] == [True, False, False, True, False, False]
    found = figures([run_of(records)], RATE, objectives)
    assert found.seconds == pytest.approx(10.0)
    assert found.goodput == pytest.approx(0.2) and found.attainment == pytest.approx(2 / 6)
    assert (found.requests, found.completed) == (6, 5)
    assert figures([run_of(records)], RATE, ()).goodput is None


def test_errors_are_counted_apart_by_kind_with_an_example():
    records = [record(0), failed(1, "429"), failed(2, "429"), failed(3, "503"), failed(4, "unfinished")]
    found = figures([run_of(records)], RATE, (Objective("ttft", 1.0),))
    assert {kind: error.count for kind, error in found.errors.items()} == {"429": 2, "503": 1}
    assert found.errors["429"].example == "a 429"
    assert found.unfinished == 1 and found.attainment == pytest.approx(1 / 4)
    assert found.saturated


def overloaded(load: float, count: int = 100, service: float = 0.1):
    """A server of one request at a time, asked for ``load`` times what it can do."""
    free, records = 0.0, []
    for index in range(count):
        at = index * service / load
        free = max(free, at) + service
        records.append(record(index, at, ttft=free - at, tokens=1))
    return records


@pytest.mark.parametrize("load", [1.2, 2.0, 5.0])
def test_a_queue_that_grows_is_measured(load):
    assert growth(overloaded(load)).slope == pytest.approx(load - 1, rel=0.05)
    assert figures([run_of(overloaded(load))], RATE, ()).saturated
    assert not figures([run_of(overloaded(load))], Load(concurrency=2), ()).saturated


@pytest.mark.parametrize("load", [0.1, 0.9])
def test_a_server_that_keeps_up_has_no_growing_queue(load):
    assert growth(overloaded(load)).slope == pytest.approx(0.0, abs=1e-6)
    assert not figures([run_of(overloaded(load))], RATE, ()).saturated


@pytest.mark.parametrize("seed", range(10))
def test_a_server_that_fills_up_or_a_mix_that_shifts_is_no_growing_queue(seed):
    """Short runs: times rise at first, vary by a third, and long outputs come last."""
    random = np.random.default_rng(seed)
    lengths = np.sort(random.integers(8, 64, 100)).tolist()
    filling = [
        record(i, at=i / 80, ttft=min(0.1 + i / 80, 0.4) * random.uniform(0.7, 1.3), gap=0.01, tokens=lengths[i])
        for i in range(100)
    ]
    assert not growth(filling).beyond_doubt


def test_few_requests_say_nothing_of_a_queue():
    assert growth(overloaded(5.0, count=14)) is None
    assert growth([record(i) for i in range(50)]) is None
    assert growth([]) is None


@pytest.mark.parametrize(
    ("lag", "client", "bound"),
    [
        (0.004, ClientLoad(0.2, (0.001,) * 50), False),
        (0.03, ClientLoad(0.2, (0.001,) * 50), True),
        (0.004, ClientLoad(0.2, (0.004,) * 50), False),
        (0.0, ClientLoad(0.2, (0.03,) * 50), True),
        (0.0, ClientLoad(0.95, (0.0,) * 50), True),
    ],
)
def test_a_client_that_was_the_bottleneck_is_told(lag, client, bound):
    records = [record(i, at=float(i), sent=i + lag) for i in range(20)]
    found = figures([run_of(records, client)], RATE, ())
    assert bool(found.client.bottleneck) is bound
    assert any("CLIENT-BOUND" in note for note in notes(Line(0, RATE, found, (found,)))) is bound


def test_slow_answers_make_a_late_client_matter_less():
    records = [record(i, at=float(i), ttft=2.0, sent=i + 0.03) for i in range(20)]
    assert not figures([run_of(records)], RATE, ()).client.bottleneck


def test_a_shared_prefix_is_told_from_a_new_one():
    first = [record(i, group=i, first_of_group=True, ttft=1.0, cached_tokens=0) for i in range(3)]
    later = [record(i + 3, group=i % 3, ttft=0.1, cached_tokens=8) for i in range(9)]
    found = figures([run_of([*first, *later])], RATE, ())
    assert found.prefix.first_ttft.p50 == pytest.approx(1.0) and found.prefix.later_ttft.p50 == pytest.approx(0.1)
    assert found.cached_share == pytest.approx(9 * 8 / 120)
    assert figures([run_of([record()])], RATE, ()).prefix is None


def test_rounds_are_pooled_and_their_time_adds_up():
    slow, fast = ([record(i, at=float(i), ttft=t) for i in range(10)] for t in (0.3, 0.1))
    found = figures([run_of(slow), run_of(fast)], RATE, ())
    assert found.requests == 20 and found.ttft.p50 == pytest.approx(0.2)
    assert found.output_tokens_per_s == pytest.approx(100 / found.seconds)


def test_nothing_completed_still_has_figures():
    found = figures([run_of([failed(0, "connect")])], RATE, (Objective("ttft", 1.0),))
    assert found.ttft is None and found.goodput == 0.0 and found.attainment == 0.0
    assert list(notes(Line(0, RATE, found, (found,)))) == ["1 of 1 requests failed, connect: a connect"]


def test_a_reader_is_told_what_figures_do_not_mean():
    records = [record(0, output_tokens=10, asked_tokens=12, cached_tokens=5)]
    found = figures([run_of(records)], Load(concurrency=1), ())
    text = "\n".join(notes(Line(0, Load(concurrency=1), found, (found,))))
    for told in ("closed loop", "2.00 tokens", "1 of 1 outputs ended before", "--seed", "p99"):
        assert told in text


def test_ratios_compare_medians_round_by_round():
    def line(server: int, *ttfts: float) -> Line:
        rounds = [run_of([record(i, at=float(i), ttft=t) for i in range(20)]) for t in ttfts]
        return Line(server, RATE, figures(rounds, RATE, ()), tuple(figures([one], RATE, ()) for one in rounds))

    found = {ratio.metric: ratio for ratio in ratios((line(0, 0.2, 0.4, 0.2), line(1, 0.1, 0.1, 0.1)))}
    assert found["ttft"].ratio == pytest.approx(0.5)
    assert (found["ttft"].low, found["ttft"].high) == (pytest.approx(0.25), pytest.approx(0.5))
    assert found["tpot"].ratio == pytest.approx(1.0)
    assert "goodput" not in found and not found["ttft"].client_bound


@pytest.mark.parametrize("text", ["ttft", "ttft:", "ttft:x", "ttft:0", "speed:1", "tpot:inf", "e2e:nan"])
def test_other_objectives_are_refused(text):
    with pytest.raises(OptionError, match="--slo"):
        parse_objectives([text])


def test_an_objective_is_given_once():
    with pytest.raises(OptionError, match="once"):
        parse_objectives(["ttft:1", "ttft:2"])
