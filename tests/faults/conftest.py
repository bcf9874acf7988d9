"""What all fault tests share: images decoded into a folder of their own, and figures that are not drawn."""

import pytest
from tiny_runs import private_cache


@pytest.fixture(scope="session", autouse=True)
def _private_cache():
    with private_cache():
        yield


@pytest.fixture(autouse=True)
def _empty_figures(empty_figures):
    """No fault test looks at a figure."""
