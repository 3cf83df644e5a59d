"""A short run of the fuzzer; the long one is `python tests/fuzz/run.py`."""

from __future__ import annotations

import pytest

from fuzz.run import TARGETS, fuzz


@pytest.mark.parametrize("seed", range(4))
def test_every_decoder_refuses_or_understands(seed: int) -> None:
    """Changed inputs give a value or a DeltaError; each decoder refuses some of them."""
    refused = fuzz(400 * len(TARGETS), seed)
    always_a_value = {"messages", "whole literal"}
    assert set(TARGETS) - always_a_value <= set(refused)
