"""The pair models: what is in train mode while stage 2 trains, and what a pair's neighbours bear on."""

import json

import numpy as np
import pytest
import torch

from models.encoders import build_encoder
from models.pairs import PairClassifier, PairTrunk, Rescoring, TwoStageInteractionClassifier
from tests.jrdb_files import crowd, load, write_labels


@pytest.mark.parametrize("share_trunk", [False, True])
def test_stage_2_trains_and_stage_1_within_it_stands_still(share_trunk):
    model = TwoStageInteractionClassifier(PairClassifier(None, 4), share_trunk=share_trunk).eval()
    assert not any(part.training for part in model.modules())
    model.train()
    learning = [model.head] if share_trunk else [model.head, model.trunk]
    assert all(part.training for module in learning for part in module.modules())
    assert not any(part.training for part in model.stage1.modules())


def test_a_pair_is_its_left_person_its_right_person_and_their_geometry():
    trunk = PairTrunk(build_encoder("cnn"), 2, dropout=0.2).eval()
    trunk.geometry.fit(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    geometry = torch.tensor([[3.0, 5.0], [float("nan"), 5.0]])
    standard = trunk.geometry.standardise(geometry)
    assert standard.tolist() == [[1, 0, 1, 1], [0, 0, 0, 1]]  # a constant and what is unknown become 0
    batch = {"crops": torch.rand(3, 3, 32, 16), "left": [0, 2], "right": [1, 0], "geometry": geometry}
    people = trunk.person(batch["crops"])
    expected = torch.cat([people[[0, 2]], people[[1, 0]], trunk.geometry.layers(standard)], dim=1)
    assert torch.equal(trunk(batch), expected)


def test_without_crops_a_linear_layer_adds_to_the_logits():
    model, rng = PairClassifier(None, 3).eval(), np.random.default_rng(0)
    train = rng.normal(5, 3, (200, 3))
    train[50:, 1] = np.nan  # mean and sd are of what is known
    model.trunk.geometry.fit(torch.from_numpy(train).float())
    assert model.trunk.geometry.mean.numpy() == pytest.approx(np.nanmean(train, axis=0), rel=1e-4)
    assert model.trunk.geometry.sd.numpy() == pytest.approx(np.nanstd(train, axis=0), rel=1e-4)
    geometry = torch.tensor([[4.0, float("nan"), 9.0], [-500.0, 6.0, 5.0]])
    before = model({"geometry": geometry})
    weight, bias = rng.standard_normal((2, 6)), rng.standard_normal(2)
    with torch.no_grad():
        model.linear.weight.zero_(), model.linear.bias.zero_()
        without = model({"geometry": geometry})
        model.linear.weight.copy_(torch.from_numpy(weight)), model.linear.bias.copy_(torch.from_numpy(bias))
    z = ((geometry - model.trunk.geometry.mean) / model.trunk.geometry.sd).nan_to_num().clamp(-5, 5).numpy()
    expected = np.hstack([z, [[1, 0, 1], [1, 1, 1]]]) @ weight.T + bias
    assert not torch.equal(before, without)
    assert (model({"geometry": geometry}) - without).detach().numpy() == pytest.approx(expected, abs=1e-5)


def test_what_the_others_of_a_frame_say_by_brute_force():
    rng = np.random.default_rng(0)
    pairs = [(a, b) for a in range(6) for b in range(6) if a < b and (a, b) not in ((0, 5), (2, 3))]
    pairs = [pair if rng.random() < 0.5 else pair[::-1] for pair in pairs]
    odds = {frozenset(pair): float(np.clip(4 * rng.standard_normal(), -6, 6)) for pair in pairs}
    expected = []
    for a, b in pairs:
        mine, yours = ({k: odds[frozenset((one, k))] for k in range(6) if frozenset((one, k)) in odds and
                        k not in (a, b)} for one in (a, b))  # fmt: skip
        both = {k: (mine[k], yours[k]) for k in mine if k in yours}
        best = [max(values.values(), default=-6) for values in (mine, yours)]
        p = [{k: 1 / (1 + np.exp(-value)) for k, value in values.items()} for values in (mine, yours)]
        third = max((min(two) for two in both.values()), default=-6)
        counts = [sum(values.values()) for values in p]
        common = sum(p[0][k] * p[1][k] for k in both)
        row = [np.array([odds[frozenset((a, b))], max(best), min(best), third]) / 3]
        expected.append(np.concatenate([*row, np.log1p([max(counts), min(counts), common])]))
    around = []
    model = Rescoring()
    model.layers.register_forward_pre_hook(lambda module, inputs: around.append(inputs[0]))
    logits = torch.tensor([[0, odds[frozenset(pair)]] for pair in pairs])
    left, right = torch.tensor(pairs).T
    model(logits, left, right, 6)
    model(logits, right, left, 9)  # whoever is named first, and with three more people in the batch
    assert np.allclose(around[0].detach(), expected, atol=1e-5)
    assert torch.equal(around[0], around[1])


def test_a_pair_is_judged_beside_all_others_of_its_frame_in_whatever_batch(tmp_path):
    """Also beside those that are no samples: two of one group whom nobody annotated."""
    for down, name in enumerate(("a", "b", "c")):
        write_labels(tmp_path, name, crowd(frames=6), down)
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a"], "val": ["b"], "test": ["c"]}))
    sets = load(tmp_path, rescore=True)
    val, every = sets.val, sets.all_in_range("val")
    assert len(every) > len(val), "no ambiguous pair: the test tests nothing"
    torch.manual_seed(0)
    model = PairClassifier(None, len(val.feature_names), rescore=True).eval()
    with torch.no_grad():
        alone = torch.cat([model(val.__getitems__([k])) for k in range(len(val))])
        together, of_every = (model(part.__getitems__(range(len(part)))) for part in (val, every))
        assert together.shape == (len(val), 2) and torch.allclose(alone, together, atol=1e-5)
        assert torch.allclose(of_every[np.isin(every.near.rows, val.near.rows)], together, atol=1e-5)
        both = TwoStageInteractionClassifier(model).eval()(val.__getitems__(range(len(val))), both=True)
        assert [len(logits) for logits in both] == [len(val)] * 2  # of the samples alone
        drawn = sets.train.draw()
        few, whole = drawn[:3], np.arange(len(sets.train))
        found = model(sets.train.__getitems__(whole))[few]
        assert torch.allclose(model(sets.train.__getitems__(few)), found, atol=1e-5)
        batch = val.__getitems__([0])
        batch["geometry"][1] += 3  # of another pair of the frame
        assert not torch.allclose(model(batch), alone[:1], atol=1e-3)
