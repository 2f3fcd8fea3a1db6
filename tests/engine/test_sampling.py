"""Options: ranges, and which of caller, model and our own default wins."""

from __future__ import annotations

import math

import pytest

from pocketlm.engine import sampling
from pocketlm.engine.sampling import SamplingParams, resolve
from pocketlm.errors import RequestError


def test_caller_over_model_over_ours() -> None:
    model = {"temperature": 0.6, "top_k": 20, "top_p": None, "do_sample": True, "bos_token_id": 1}
    params = resolve({"temperature": 0.1, "min_p": None}, model)
    assert (params.temperature, params.top_k, params.top_p, params.min_p) == (0.1, 20, 0.95, 0.05)


def test_a_model_cannot_set_what_is_the_callers() -> None:
    params = resolve({}, {"max_tokens": 5, "stop": "x", "seed": 1, "logit_bias": {1: 2.0}})
    assert (params.max_tokens, params.stop, params.logit_bias) == (None, (), None)


def test_hugging_faces_off_for_top_k_is_ours() -> None:
    assert resolve({}, {"top_k": -1}).top_k == 0


def test_without_a_seed_each_request_gets_its_own() -> None:
    seeds = {SamplingParams().seed for _ in range(20)}
    assert None not in seeds
    assert len(seeds) == 20
    assert SamplingParams(seed=7).seed == 7


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(RequestError, match=r"no option 'temprature'.*'temperature'"):
        resolve({"temprature": 1})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("temperature", -0.1, "a number in [0, 100]"),
        ("temperature", math.nan, "a number in [0, 100]"),
        ("temperature", "1", "a number in [0, 100]"),
        ("temperature", True, "a number in [0, 100]"),
        ("top_k", 1.5, "an integer in [0, "),
        ("top_k", -1, "an integer in [0, "),
        ("top_p", 0, "a number in (0, 1]"),
        ("min_p", 1.1, "a number in [0, 1]"),
        ("typical_p", 0, "a number in (0, 1]"),
        ("repetition_penalty", 0, "a number in (0, 100]"),
        ("frequency_penalty", math.inf, "a number in [-100, 100]"),
        ("seed", -1, "an integer in [0, "),
        ("max_tokens", 0, "an integer in [1, "),
        ("logprobs", 101, "an integer in [0, 100]"),
        ("logit_bias", {1: math.nan}, "expected a number"),
        ("logit_bias", {-1: 1.0}, "expected token ids"),
        ("logit_bias", [1], "numbers by token id"),
        ("top_k", 2**31, "an integer in [0, 2,147,483,647]"),
        ("stop_ids", 3, "a list of token ids"),
        ("stop_ids", "3", "a list of token ids"),
        ("stop", 3, "a string or a list of strings"),
        ("stop", ["a", ""], "strings that are not empty"),
        ("stop", [1], "strings that are not empty"),
        ("stop_ids", [-1], "expected token ids"),
        ("ignore_eos", 1, "expected true or false"),
    ],
)
def test_a_value_out_of_range_is_named(name: str, value: object, expected: str) -> None:
    with pytest.raises(RequestError) as caught:
        resolve({name: value})
    assert caught.value.message.startswith(name + " ")
    assert expected in caught.value.message


def test_a_bad_default_of_the_model_says_whose_it_is_and_can_be_overridden() -> None:
    with pytest.raises(RequestError, match="the model's generation default top_p is 7"):
        resolve({}, {"top_p": 7})
    assert resolve({"top_p": 0.5}, {"top_p": 7}).top_p == 0.5


def test_one_stop_string_may_come_alone() -> None:
    assert resolve({"stop": "END"}).stop == ("END",)
    assert resolve({"stop": ["a", "b"]}).stop == ("a", "b")


def test_the_documented_defaults_are_the_real_ones() -> None:
    rows = [line.split("|") for line in (sampling.__doc__ or "").splitlines() if line[:2] == "| "]
    documented = {name.strip(): value.strip() for _, name, value, *_ in rows[1:]}
    ours = SamplingParams()
    assert documented.keys() == set(sampling.OPTION_NAMES)
    for name, text in documented.items():
        if text not in ("none", "new", "no"):
            assert getattr(ours, name) == float(text), name
