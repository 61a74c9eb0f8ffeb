from typing import Any

import numpy as np
import pytest
from xllmc.runtime.artifact.errors import OptionError
from xllmc.runtime.sampling import SAMPLING_ROW, RowRequest, SamplingParams, sampling_input


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": 1.5},
        {"repetition_penalty": 0.0},
        {"presence_penalty": float("inf")},
        {"frequency_penalty": float("nan")},
        {"logit_bias": {3: float("nan")}},
        {"seed": 1 << 64},
        {"seed": -1},
        {"max_tokens": -1},
        {"stop": "a string"},
        {"stop": ("",)},
        {"logprobs": 21},
        {"n": 0},
        {"temperature": "hot"},
        {"temperature": None},
        {"temperature": True},
        {"temperature": 1e30},
        {"top_k": 1 << 31},
        {"top_k": 1.5},
        {"repetition_penalty": 1e-40},
        {"repetition_penalty": 1e300},
        {"presence_penalty": 1e38},
        {"logit_bias": None},
        {"logit_bias": [(1, 2)]},
        {"logit_bias": {"1": 1}},
        {"logit_bias": {1.5: 1}},
        {"logit_bias": {1: float("inf")}},
        {"logit_bias": {1: 1e39}},
        {"logit_bias": {1: "a lot"}},
        {"seed": 1.5},
        {"max_tokens": None},
        {"max_tokens": 2.5},
        {"stop": (b"a",)},
        {"stop": 5},
        {"stop_token_ids": 5},
        {"stop_token_ids": ("a",)},
        {"stop_token_ids": (1.5,)},
        {"ignore_eos": 1},
        {"logprobs": True},
        {"logprobs": 1.5},
        {"n": 1.5},
    ],
    ids=str,
)
def test_values_out_of_range_name_themselves(bad: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"^{next(iter(bad))}"):
        SamplingParams(**bad)


def test_numbers_of_numpy_are_numbers() -> None:
    params = SamplingParams(temperature=np.float32(0.5), top_k=np.int64(5), seed=np.uint64(7), logit_bias={1: -np.inf})  # type: ignore[arg-type]
    assert sampling_input([RowRequest(params, 7, 0, [1], 1)], 70).rows["top_k"] == 5


def test_parameters_do_not_change_with_what_they_were_made_of() -> None:
    biases = {1: 2.0}
    params = SamplingParams(logit_bias=biases)
    biases[1] = float("nan")
    assert params.logit_bias == {1: 2.0}


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-45, 1e-30, 9e-6])
def test_temperatures_too_small_to_divide_by_are_greedy(temperature: float) -> None:
    params = SamplingParams(temperature=temperature)
    assert sampling_input([RowRequest(params, 1, 0, [1], 1)], 70).rows["temperature"] == 0


def test_rows_carry_their_own_ranges() -> None:
    plain = SamplingParams(temperature=0.5, top_k=7, logprobs=3)
    fussy = SamplingParams(presence_penalty=1.0, logit_bias={4: -1.0, 9: 2.0})
    data = sampling_input([RowRequest(plain, 1, 0, [1, 2], 2), RowRequest(fussy, 2**64 - 1, 3, [5, 6, 7], 2)], 70)
    first, second = data.rows
    assert (first["seed"], first["position"], first["top_k"], first["top_logprobs"], first["mask_row"]) == (
        1,
        2,
        7,
        3,
        -1,
    )
    assert first["history_start"] == first["history_stop"] == first["bias_start"] == first["bias_stop"] == 0
    assert (second["seed"], second["sample_index"], second["position"]) == (2**64 - 1, 3, 3)
    assert data.history[second["history_start"] : second["history_prompt"]].tolist() == [5, 6]
    assert data.history[second["history_prompt"] : second["history_stop"]].tolist() == [7]
    assert data.bias_ids[second["bias_start"] : second["bias_stop"]].tolist() == [4, 9]
    assert data.bias_values.tolist() == [-1, 2]
    assert data.bitmask.shape == (0, 3)


def test_rows_are_laid_out_as_the_kernels_struct() -> None:
    """The offsets of struct xllmc_sampling_row; the kernels assert its size of 80 bytes."""
    assert SAMPLING_ROW.itemsize == 80
    offsets = {name: SAMPLING_ROW.fields[name][1] for name in SAMPLING_ROW.names or ()}
    assert list(offsets.values()) == [0, 8, 16, *range(24, 80, 4)]
    assert np.dtype(SAMPLING_ROW["top_logprobs"]) == np.int32
