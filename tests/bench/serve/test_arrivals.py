"""Arrivals have the rate asked for, and one seed gives one pattern; lengths follow what is written."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xllmc.bench.serve.arrivals import arrival_times
from xllmc.bench.serve.lengths import parse_lengths
from xllmc.runtime.artifact.errors import OptionError

PROCESS = st.sampled_from(["poisson", "gamma", "constant"])
SEED = st.integers(0, 2**32)


@given(process=PROCESS, rate=st.floats(0.01, 1e4), count=st.integers(1, 500), shape=st.floats(0.1, 10), seed=SEED)
def test_arrivals_come_in_order_at_the_rate_asked_for(process, rate, count, shape, seed):
    times = arrival_times(process, rate, count, shape, np.random.default_rng(seed))
    assert len(times) == count
    assert times[0] >= 0 and (np.diff(times) >= 0).all() and times[-1] <= count / rate * (1 + 1e-9)
    again = arrival_times(process, rate, count, shape, np.random.default_rng(seed))
    assert (times == again).all()


@given(process=PROCESS, shape=st.floats(0.1, 10), seed=SEED)
def test_a_pattern_is_stretched_and_not_drawn_anew_at_another_rate(process, shape, seed):
    slow, fast = (arrival_times(process, rate, 50, shape, np.random.default_rng(seed)) for rate in (2, 8))
    np.testing.assert_allclose(slow, 4 * fast, rtol=1e-9)


@pytest.mark.parametrize(
    ("process", "shape", "expected"),
    [("poisson", 1.0, 1.0), ("gamma", 1.0, 1.0), ("gamma", 0.25, 2.0), ("gamma", 4.0, 0.5), ("constant", 1.0, 0.0)],
)
def test_intervals_vary_as_their_process_says(process, shape, expected):
    intervals = np.diff(arrival_times(process, 10.0, 20_000, shape, np.random.default_rng(1)))
    assert intervals.mean() == pytest.approx(0.1, rel=0.01)
    assert intervals.std() / intervals.mean() == pytest.approx(expected, rel=0.05, abs=1e-6)


@given(low=st.integers(1, 1000), more=st.integers(0, 1000), seed=SEED)
def test_uniform_lengths_stay_within_their_bounds(low, more, seed):
    drawn = parse_lengths(f"uniform:{low}:{low + more}", "--x").draw(200, np.random.default_rng(seed))
    assert low <= min(drawn) and max(drawn) <= low + more


@given(median=st.integers(1, 1000), sigma=st.floats(0, 3), most=st.integers(1000, 2000), seed=SEED)
def test_lognormal_lengths_stay_within_their_bounds(median, sigma, most, seed):
    drawn = parse_lengths(f"lognormal:{median}:{sigma}:{most}", "--x").draw(200, np.random.default_rng(seed))
    assert min(drawn) >= 1 and max(drawn) <= most


def test_lognormal_lengths_have_the_median_asked_for():
    drawn = parse_lengths("lognormal:200:0.7", "--x").draw(20_000, np.random.default_rng(0))
    assert np.median(drawn) == pytest.approx(200, rel=0.03)
    assert np.log(drawn).std() == pytest.approx(0.7, rel=0.03)


@pytest.mark.parametrize("text", ["7", "uniform:3:9", "lognormal:64:0.5", "lognormal:64:0.5:256"])
def test_lengths_are_written_as_they_are_read(text):
    assert str(parse_lengths(text, "--x")) == text


@pytest.mark.parametrize(
    "text", ["", "0", "-3", "x", "uniform:9:3", "uniform:3", "normal:3:4", "lognormal:0:1", "lognormal:5:nan", "1.5"]
)
def test_other_lengths_are_refused_by_the_options_name(text):
    with pytest.raises(OptionError, match="--prompt-tokens"):
        parse_lengths(text, "--prompt-tokens")
