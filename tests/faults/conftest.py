"""What all fault tests share: images decoded in a folder of their own, runs that do no more than needed."""

import pytest

from tests.faults.faulty import guess
from tests.faults.stopped_runs import SCRIPTS
from utils.report import age as report_age
from utils.report import anomaly as report_anomaly
from utils.report import classification as report
from utils.report import interaction as report_interaction
from utils.report import samples as report_samples


@pytest.fixture(scope="module", autouse=True)
def _no_references():
    """No fault test looks at the models beside a script's own; they depend on nothing but the data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_interaction, "reference_scores", guess)
        yield


@pytest.fixture(scope="module", autouse=True)
def _no_figures():
    """No fault test but those of test_long_runs.py, which put their own in this place, looks at a figure."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (report, report_age, report_anomaly, report_samples, *SCRIPTS.values()):
            for name in [name for name in vars(module) if name.startswith("plot_")]:
                patch.setattr(module, name, lambda *values, **options: None)
        yield
