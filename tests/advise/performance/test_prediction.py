"""Predictions: what they must depend on, and on what they must not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pocketlm.advise.device import Device, find_device
from pocketlm.advise.performance import PlannedModel, planned, predict
from pocketlm.errors import RequestError


@pytest.fixture(scope="module")
def model() -> PlannedModel:
    return planned("qwen3:0.6b")


@pytest.fixture(scope="module")
def device() -> Device:
    return find_device("raspberry-pi-5-8gb")


def test_more_bits_and_more_context_are_slower_and_larger(
    model: PlannedModel, device: Device
) -> None:
    small = predict(model, "Q4_0", device, context=4096)
    large = predict(model, "Q8_0", device, context=4096)
    long = predict(model, "Q4_0", device, context=32_768)
    assert small.decode > large.decode
    assert small.decode > small.decode_at_context > long.decode_at_context
    assert small.file < large.file
    assert small.peak < large.peak < long.peak
    assert small.decode == long.decode
    assert small.basis == "formula"


def test_twice_the_machine_is_faster(model: PlannedModel, device: Device) -> None:
    assert device.rates is not None
    rates = replace(
        device.rates,
        read_bandwidth=2 * device.rates.read_bandwidth,
        int8=2 * device.rates.int8,
        f32=2 * device.rates.f32,
    )
    one, two = (
        predict(model, "Q4_0", found, context=2048)
        for found in (device, replace(device, rates=rates))
    )
    assert one.decode < two.decode <= 2 * one.decode * 1.001
    assert one.prefill < two.prefill <= 2 * one.prefill * 1.001
    assert one.first_token > two.first_token
    assert one.peak == two.peak


def test_what_cannot_be_predicted_is_said(model: PlannedModel, device: Device) -> None:
    with pytest.raises(RequestError, match="50,000"):
        predict(model, "Q4_0", device, context=50_000)
    with pytest.raises(RequestError, match="how fast"):
        predict(model, "Q4_0", replace(device, rates=None), context=512)
