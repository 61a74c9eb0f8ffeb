"""The scheduler with a simulated executor: random arrivals in tiny pools, and steps that overlap."""

from random import Random

import pytest
from xllmc.runtime.options import SchedulingOptions
from xllmc.runtime.requests import RequestOptions
from xllmc.runtime.sampling import SamplingParams

from tests.runtime.scheduling.simulated import CONTEXT, VOCAB, Simulation, Sizes, smallest_pages

LONGEST = 40
"""Tokens of the longest request."""


def random_request(random: Random) -> tuple[list[int], SamplingParams, RequestOptions]:
    max_tokens = random.choice((0, 1, 2, 5, 15))
    shared = random.choice((0, 3, 4, 7, 8, 12, 20))
    own = [random.randrange(VOCAB) for _ in range(random.randint(0 if shared else 1, 5))]
    params = SamplingParams(
        max_tokens=max_tokens,
        n=random.choice((1, 1, 1, 2, 4)),
        prompt_logprobs=random.choice((None, None, None, 0)),
        stop_token_ids=tuple(random.sample(range(VOCAB), random.choice((0, 0, 5)))),
    )
    options = RequestOptions(priority=random.choice((0, 0, 0, 1, -2)), key=random.choice(("", "a", "b")))
    return [*range(shared), *own], params, options


def random_simulation(random: Random) -> Simulation:
    preemption = random.choice(("recompute", "swap", "auto"))
    host = 0 if preemption == "recompute" else random.choice((3, 30))
    options = SchedulingOptions(
        prefix_cache=random.random() < 0.7,
        preemption=preemption,
        swap_tokens=host * 4,  # type: ignore[arg-type]
    )
    tokens = random.choice((2, 5, 9, 40))
    sequences = random.choice((1, 2, 5))
    full, near = smallest_pages(LONGEST, tokens)
    spare = random.choice((0, 0, 1, 4, 20))
    sizes = Sizes(tokens, random.choice((1, 3, 8)), sequences, (full + spare, near + min(spare, 5)), host)
    return Simulation(sizes, options, random.choice((None, None, 1, 3)), random.choice((0.0, 1.0)))


def play(seed: int, requests: int) -> Simulation:
    """Events in random order; then all goes to its end."""
    random = Random(seed)
    simulation = random_simulation(random)
    cancelled: set[int] = set()
    left = requests
    while left:
        event = random.random()
        if event < 0.15:
            simulation.submit(*random_request(random))
            left -= 1
        elif event < 0.18 and simulation.requests:
            index = random.randrange(len(simulation.requests))
            if not simulation.requests[index].ended:
                cancelled.add(index)
            simulation.cancel(simulation.requests[index])
        elif event < 0.5 and simulation.ahead < 2:
            simulation.choose()
        elif event < 0.8 and simulation.chosen:
            simulation.execute()
        elif simulation.run:
            simulation.hand_out()
        simulation.check_accounts()
    simulation.finish()
    simulation.check_accounts()
    simulation.check_answers(cancelled)
    assert not any(group.pool.in_use or group.stored for group in simulation.groups)
    assert simulation.scheduler.running == simulation.scheduler.waiting == simulation.scheduler.waiting_tokens == 0
    return simulation


@pytest.mark.parametrize("seed", range(60))
def test_whatever_comes_all_get_what_they_would_get_alone(seed: int) -> None:
    play(seed, 15)


def test_the_walks_meet_what_they_are_for() -> None:
    """Preemption and prefixes found: else the test above says little."""
    played = [play(seed, 15) for seed in range(20)]
    assert sum(one.scheduler.preemptions for one in played) > 20
    assert sum(one.scheduler.cached_tokens for one in played) > 200


@pytest.mark.slow
def test_whatever_comes_in_whatever_order() -> None:
    for seed in range(1000, 6000):
        play(seed, 25)


@pytest.mark.parametrize("preemption", ["recompute", "swap"])
def test_samples_of_a_prompt_share_a_pool_that_one_of_them_fills(preemption: str) -> None:
    options = SchedulingOptions(preemption=preemption, swap_tokens=32)  # type: ignore[arg-type]
    simulation = Simulation(Sizes(9, 8, 8, smallest_pages(LONGEST, 9), 8), options)
    for _ in range(2):
        simulation.submit(list(range(20)), SamplingParams(n=6, max_tokens=21), RequestOptions())
    simulation.finish()
    simulation.check_answers(set())


def test_a_window_group_needs_room_for_a_window_only() -> None:
    """A prompt of many windows once waited for pages of all of it at once."""
    simulation = Simulation(Sizes(4, 4, 1, smallest_pages(CONTEXT, 4), 0), SchedulingOptions())
    assert simulation.groups[1].pool.pages < CONTEXT // 4
    simulation.submit(list(range(CONTEXT - 10)), SamplingParams(max_tokens=5), RequestOptions())
    simulation.finish()
    simulation.check_answers(set())


def test_samples_whose_prompt_is_only_scored_end_too() -> None:
    simulation = Simulation(Sizes(4, 4, 4, (20, 10), 0), SchedulingOptions())
    simulation.submit([1, 2, 3], SamplingParams(n=3, max_tokens=0, prompt_logprobs=0), RequestOptions())
    simulation.finish()
    simulation.check_answers(set())


def test_a_higher_priority_takes_the_place_of_who_writes() -> None:
    simulation = Simulation(Sizes(8, 8, 2, (30, 20), 0), SchedulingOptions())
    low = [simulation.submit([i], SamplingParams(max_tokens=40), RequestOptions()) for i in range(2)]
    for _ in range(4):
        simulation.choose()
        simulation.execute()
        simulation.hand_out()
    high = simulation.submit([9], SamplingParams(max_tokens=3), RequestOptions(priority=1))
    for _ in range(5):
        simulation.choose()
        simulation.execute()
        simulation.hand_out()
    assert high.ended and not any(request.ended for request in low)
    assert [request.sequences[0].preemptions for request in low] == [0, 1]
    simulation.finish()
    simulation.check_answers(set())


def test_one_who_floods_the_queue_keeps_no_other_waiting() -> None:
    simulation = Simulation(Sizes(16, 4, 2, (30, 20), 0), SchedulingOptions(prefix_cache=False))
    params = SamplingParams(max_tokens=4)
    for i in range(60):
        simulation.submit([i % VOCAB, 1, 2], params, RequestOptions(key="flood"))
    for _ in range(40):
        simulation.choose()
        simulation.execute()
        simulation.hand_out()
    flooded = sum(request.ended for request in simulation.requests)
    others = [simulation.submit([i, 5, 6], params, RequestOptions(key="other")) for i in range(10)]
    while not all(request.ended for request in others):
        simulation.choose()
        simulation.execute()
        simulation.hand_out()
    served = sum(request.ended for request in simulation.requests[:60]) - flooded
    # Both get the same share from the moment that both wait.
    assert 0.5 * len(others) <= served <= len(others) + 4
    simulation.finish()


def test_a_cancelled_leader_leaves_nothing_of_the_prompt_it_shared() -> None:
    simulation = Simulation(Sizes(30, 4, 1, (30, 20), 0), SchedulingOptions(prefix_cache=False))
    request = simulation.submit(list(range(20)), SamplingParams(n=4, max_tokens=9), RequestOptions())
    simulation.choose()
    assert request.prompt_states is not None and simulation.scheduler.waiting == 3
    simulation.cancel(request)
    assert not any(group.pool.in_use for group in simulation.groups) and not simulation.scheduler.busy


@pytest.mark.parametrize("waits", [False, True])
def test_what_is_stored_away_is_given_back_when_its_request_is_cancelled(waits: bool) -> None:
    options = SchedulingOptions(preemption="swap", swap_tokens=160)
    simulation = Simulation(Sizes(30, 4, 2, smallest_pages(LONGEST, 30), 40), options)
    first = simulation.submit(list(range(10)), SamplingParams(max_tokens=30), RequestOptions())
    second = simulation.submit(list(range(20, 28)), SamplingParams(max_tokens=30), RequestOptions())
    while not simulation.groups[0].stored:
        simulation.choose()
        if not waits or simulation.ahead == 2:
            simulation.execute()
            simulation.hand_out()
    assert second.sequences[0].status == "waiting"
    simulation.cancel(second)
    assert not any(group.stored for group in simulation.groups)
    simulation.finish()
    assert first.ended
    simulation.check_answers({1})
