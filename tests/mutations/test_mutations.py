"""Passes with one fault each are refused: what verification is worth, in figures."""

import pytest
from torch import fx
from xllmc.compiler.tiny_models import TINY_MODELS, TinyModel

from tests.mutations import mutating
from tests.mutations.edits import Around, Edit
from tests.mutations.harness import Tally, judge, mutants_of
from tests.mutations.operators import OPERATORS
from tests.mutations.planted import MOST_OF_ONE_PASS, sample_mutants

CAUGHT, EQUIVALENT = 0.95, 0.05
QUICK = TinyModel("gemma2", "bf16")


def test_of_every_operator_some_faults_are_made_and_all_are_caught():
    tally = Tally()
    made = list(mutants_of(QUICK))
    for operator in OPERATORS:
        chosen = [m for m in made if m.operator == operator]
        assert chosen, operator
        for mutant in chosen[:: len(chosen) // 6 + 1]:
            tally.add(mutant, judge(mutant))
    assert tally.survivors == [], f"\n{tally}"


def test_a_pass_whose_calls_are_only_written_again_is_accepted(monkeypatch):
    """The control: what counts as caught is caught for its fault, not for having been touched."""

    def again(call: fx.Node, around: Around) -> list[Edit]:
        return [Edit("nothing", call.name, lambda writer: writer.again(call))]

    monkeypatch.setattr(mutating, "OPERATORS", {"nothing": again})
    mutants = [m for m in mutants_of(QUICK) if m.operator == "nothing"]
    assert len(mutants) > 100
    refused = [(str(m), verdict.message) for m in mutants[::5] if (verdict := judge(m)).caught]
    assert refused == []


def test_faults_can_be_planted_in_a_whole_pipeline():
    found = sample_mutants(4, models=("qwen3-fp32",))
    assert len(found) == 4
    for planted in found:
        assert planted.passes[planted.position].name == planted.pass_name
        assert planted.site >= 1
    assert max([p.pass_name for p in found].count(p.pass_name) for p in found) <= MOST_OF_ONE_PASS


@pytest.mark.slow
def test_faults_of_all_passes_are_caught():
    """Every operator at every place of every site, of all families. ``pytest -s`` shows the table."""
    tally = Tally()
    for model in TINY_MODELS:
        for mutant in mutants_of(model):
            tally.add(mutant, judge(mutant))
    print(f"\n{tally}")
    assert tally.caught >= CAUGHT, f"\n{tally}"
    assert tally.equivalent <= EQUIVALENT, f"\n{tally}"
