"""The pair models: what is in train mode while stage 2 trains."""

import pytest

from models.pairs import PairClassifier, TwoStageInteractionClassifier


@pytest.mark.parametrize("share_trunk", [False, True])
def test_stage_2_trains_and_stage_1_within_it_stands_still(share_trunk):
    model = TwoStageInteractionClassifier(PairClassifier(None, 4), share_trunk=share_trunk).eval()
    assert not any(part.training for part in model.modules())
    model.train()
    learning = [model.head] if share_trunk else [model.head, model.trunk]
    assert all(part.training for module in learning for part in module.modules())
    assert not any(part.training for part in model.stage1.modules())
