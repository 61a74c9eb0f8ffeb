"""When the next step is chosen, while one runs."""

import threading
import time
from typing import Any

import pytest
from xllmc.runtime.engine import Engine
from xllmc.runtime.loop.pacing import Pacing
from xllmc.runtime.observe import RequestRecord, StepRecord
from xllmc.runtime.requests import RequestOptions
from xllmc.runtime.runner import Runner
from xllmc.runtime.sampling import SamplingParams
from xllmc.runtime.scheduling.budget import TokenBudget


def test_the_next_step_is_chosen_late_but_with_time_in_hand() -> None:
    pacing = Pacing()
    assert pacing.choose_at == 0
    pacing.worked(0.002)
    pacing.submitted(0.1, 10.0)
    assert pacing.choose_at == pytest.approx(10 + 0.07 - 0.007)
    pacing.submitted(0.2, 10.063)
    assert pacing.choose_at == pytest.approx(10.063), "it runs later: nothing changes until it begins"
    pacing.ended(10.11)
    assert pacing.choose_at == pytest.approx(10.11 + 0.14 - 0.007)
    pacing.ended(10.3)
    pacing.submitted(0.001, 10.4)
    assert pacing.choose_at == 10.4, "a step that is over in no time is not waited for"
    pacing.reset()
    assert pacing.choose_at == 0


class Watcher:
    """Remembers steps, and tells when there have been some."""

    kernel_times = False

    def __init__(self, steps: int) -> None:
        self.records: list[StepRecord] = []
        self.reached = threading.Event()
        self._steps = steps

    def step(self, record: StepRecord) -> None:
        self.records.append(record)
        if len(self.records) == self._steps:
            self.reached.set()

    def request(self, record: RequestRecord) -> None:
        pass


def test_who_comes_while_a_step_runs_is_in_the_next_one(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = Runner.finish

    def slow(self: Runner, begun: Any) -> Any:
        time.sleep(0.25)
        return finish(self, begun)

    monkeypatch.setattr(Runner, "finish", slow)
    monkeypatch.setattr(TokenBudget, "seconds", lambda *_: 0.25)
    watcher = Watcher(2)
    engine.observe(watcher)
    params = SamplingParams(max_tokens=6, ignore_eos=True)
    first = threading.Thread(target=engine.generate, args=([[1]], params))
    first.start()
    # The second step has just been handed out, so the third is on its way.
    assert watcher.reached.wait(20)
    engine.generate([[2]], SamplingParams(max_tokens=1), options=RequestOptions(request_id="late"))
    first.join()
    engine.unobserve(watcher)
    assert "late" in watcher.records[3].request_ids
