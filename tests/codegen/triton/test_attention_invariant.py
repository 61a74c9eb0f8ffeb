"""Batch-invariant attention: a query's bits depend on its own context alone."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from xllmc.codegen.triton.attention_tiles import FIRST_PART, part_begin, parts

from tests.codegen.triton.attending import Heads, Part, attention_program, step
from tests.codegen.triton.checking import written_pages
from tests.codegen.triton.interpreted import Interpreted


class Model:
    """Attention of batch-invariant mode, and which launches the last step had."""

    def __init__(self, work: Path, heads: Heads, context: int, window: int = 0, softcap: float = 0.0) -> None:
        self.work, self.heads, self.window = work, heads, window
        self.program = attention_program(heads, window=window, softcap=softcap, context=context)
        self.launched: list[str] = []

    def last(self) -> str:
        """The step's last kernel: ``.combine`` where programs shared contexts."""
        return self.launched[-1].removeprefix("y/")

    def __call__(self, *sequences: Part) -> dict[tuple[int, int], torch.Tensor]:
        """Results by text and position."""
        one = step(sequences, self.heads, self.window)
        device = Interpreted(self.program, {}, self.work, pages=one.pages, invariant=True)
        device.states["s"] = written_pages(one.cache, self.program.states["s"])
        out = device(one.values, one.sizes)["out"]
        self.launched = device.launched
        owners = [(p.text, p.start + i) for p in sequences for i in range(p.tokens)]
        return dict(zip(owners, out, strict=True))


def assert_same(whole: dict, some: dict, text: int = 0) -> None:
    for key, value in some.items():
        if key[0] == text:
            assert torch.equal(whole[key].view(torch.uint8), value.view(torch.uint8)), key


@pytest.mark.parametrize(("window", "softcap", "dtype"), [(0, 0.0, "f32"), (70, 3.0, "bf16")])
def test_bits_depend_on_no_other_sequence_and_no_chunk(window: int, softcap: float, dtype: str, tmp_path: Path):
    model = Model(tmp_path, Heads(2, 1, 16, 24, dtype), 512, window, softcap)
    whole = model(Part(0, 290))
    assert model.last() == "some"
    for chunk in (Part(0, 133), Part(133, 157)):
        assert_same(whole, model(chunk))
    for position in (0, 128, 289):
        assert_same(whole, model(Part(position, 1)))
    assert model.last() == "few.combine"
    assert_same(whole, model(Part(50, 1, 1), Part(250, 9), Part(0, 3, 2)))
    assert model.last() == "some.combine"
    assert_same(whole, model(Part(130, 1, 1), Part(180, 70), Part(5, 1, 2), Part(280, 1)))
    assert model.last() == "some"
    many = [Part(i % 3, 1, 1 + i % 3) for i in range(140)]
    many[::50] = [Part(position, 1) for position in (7, 160, 289)]
    assert_same(whole, model(*many))
    assert model.last() == "few"


@pytest.mark.parametrize("window", [0, 90])
def test_parts_grow_at_the_same_positions_for_both_kernels(window: int, tmp_path: Path):
    model = Model(tmp_path, Heads(4, 1, 16, 16, "bf16"), 4096, window)
    whole = model(Part(2040, 140), Part(0, 1, 1))
    assert model.last() == "some"
    for position in (2047, 2048, 2179):
        assert_same(whole, model(Part(position, 1)))
    assert model.last() == "few.combine"


def test_parts_follow_each_other_and_are_few():
    begins = [part_begin(part) for part in range(100)]
    lengths = [end - begin for begin, end in pairwise(begins)]
    assert begins[0] == 0 and lengths[:17] == [FIRST_PART] * 16 + [2 * FIRST_PART]
    for begin, length in zip(begins, lengths, strict=False):
        assert begin % length == 0 and (length == FIRST_PART or 8 * length <= begin < 16 * length)
    assert parts(1) == 1 and parts(FIRST_PART) == 1 and parts(FIRST_PART + 1) == 2
    assert parts(40_960) == 50 and parts(131_072) == 64
