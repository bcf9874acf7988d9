"""With --amp, the last layers keep the precision that tells samples apart."""

import pytest
import torch

from models.age import AgeRegressor
from models.anomaly import AnomalyDetectionModel
from models.encoders import build_encoder
from models.pairs import PairClassifier, TwoStageInteractionClassifier
from tests.models.test_anomaly import batch


def ages(count):
    model = AgeRegressor(build_encoder("cnn")).eval()
    model.fit(torch.tensor([20.0, 47.0, 90.0]))
    torch.nn.init.normal_(model.head[-1].weight)
    return model(torch.rand(count, 3, 16, 16))


def anomalies(count):
    return AnomalyDetectionModel().eval()(*batch(count))[0]


def pairs(count, stage):
    model = TwoStageInteractionClassifier(PairClassifier(None, 5)).eval()
    return model({"geometry": torch.randn(count, 5)}, both=True)[2 - stage][:, 0]


@pytest.mark.parametrize("answer", [ages, anomalies, lambda n: pairs(n, 1), lambda n: pairs(n, 2)])
def test_samples_do_not_tie_in_bfloat16(answer):
    """Ages from 64 to 128 years would be half a year apart, and their errors with them."""
    torch.manual_seed(0)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = answer(100)
    assert outputs.dtype == torch.float32 and len(outputs.unique()) > 90
