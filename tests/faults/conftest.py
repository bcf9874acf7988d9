"""What all fault tests share: images decoded into a folder of their own, and figures that are not drawn."""

import pytest
from matplotlib.figure import Figure
from tiny_runs import private_cache


@pytest.fixture(scope="session", autouse=True)
def _private_cache():
    with private_cache():
        yield


@pytest.fixture(autouse=True)
def _empty_figures(monkeypatch):
    """Figures have tests of their own; drawing them would be most of the time of these."""
    monkeypatch.setattr(Figure, "savefig", lambda *values, **options: None)
