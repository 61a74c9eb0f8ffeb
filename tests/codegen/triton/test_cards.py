"""The data sheets' figures are the same wherever they stand."""

import pytest
from xllmc.codegen.triton.architecture import ARCHITECTURES
from xllmc.codegen.triton.cards import CARDS
from xllmc.runtime.machine import SHIPPED_DEVICES, shipped_device_profile


def test_every_architecture_has_a_profile_and_a_card():
    assert set(ARCHITECTURES) == set(CARDS) == set(SHIPPED_DEVICES)


@pytest.mark.parametrize("name", SHIPPED_DEVICES)
def test_profiles_and_cards_agree(name: str):
    profile, card = shipped_device_profile(name), CARDS[name]
    assert profile.isa == name and profile.cores == ARCHITECTURES[name].multiprocessors
    assert [point.per_second for point in profile.ceilings.bandwidth] == [card.memory]
    assert profile.ceilings.arithmetic == {"f32": card.plain, "bf16": card.matrix, "f16": card.matrix}
