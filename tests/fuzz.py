"""`@fuzz(name=strategy)`: a test over drawn values, a few each time and thousands under the mark `nightly`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

FEW, MANY = 40, 5_000
UNHURRIED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


def fuzz(**drawn: SearchStrategy[Any]) -> Callable[[Any], Any]:
    """The test over `FEW` examples; beside it in its module, marked `nightly`, the same over `MANY`."""

    def wrap(test: Any) -> Any:
        few, many = (
            settings(max_examples=n, deadline=None, suppress_health_check=UNHURRIED)(given(**drawn)(test))
            for n in (FEW, MANY)
        )
        setattr(
            sys.modules[test.__module__],
            f"{test.__name__}_all_night",
            pytest.mark.nightly(pytest.mark.timeout(0)(many)),
        )
        return few

    return wrap
