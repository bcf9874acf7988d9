"""AgeRegressor: starts at the train median, keeps its scale with the weights, gradients reach everything."""

import pytest
import torch

from models.age import AgeRegressor, explain
from models.encoders import build_encoder


def test_first_prediction_is_the_train_median():
    model = AgeRegressor(build_encoder("cnn")).eval()
    model.fit(torch.tensor([10.0, 40.0, 57.0, 90.0]))
    images = torch.randint(0, 256, (3, 3, 64, 48), dtype=torch.uint8)
    ages = model(images)
    assert ages.shape == (3,)
    assert torch.equal(ages, torch.full((3,), 48.5))
    torch.testing.assert_close(model(images.float() / 255), ages)


def test_output_is_median_plus_sd_times_head():
    torch.manual_seed(0)
    model = AgeRegressor(build_encoder("cnn"), dropout=0.0).eval()
    model.fit(torch.tensor([6.0, 10.0, 14.0]))
    torch.nn.init.normal_(model.head[-1].weight)
    images = torch.rand(2, 3, 32, 32)
    expected = 10 + (32 / 3) ** 0.5 * model.head(model.encoder(images).mean(dim=(2, 3)))[:, 0]
    torch.testing.assert_close(model(images), expected)


def test_scale_is_saved_with_the_weights():
    model = AgeRegressor(build_encoder("cnn"))
    model.fit(torch.tensor([10.0, 90.0]))
    other = AgeRegressor(build_encoder("cnn"))
    other.load_state_dict(model.state_dict())
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(other.eval()(images), model.eval()(images))


def test_gradients_reach_every_parameter_after_one_step():
    """The zero start of the last layer holds the others still for the first step only."""
    torch.manual_seed(0)
    model = AgeRegressor(build_encoder("cnn"), dropout=0.0)
    model.fit(torch.tensor([20.0, 30.0, 50.0]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    images, ages = torch.rand(8, 3, 32, 32), torch.linspace(10, 60, 8)
    for _ in range(2):
        optimizer.zero_grad()
        (model(images) - ages).abs().mean().backward()
        optimizer.step()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_constant_targets_are_refused():
    model = AgeRegressor(build_encoder("cnn"))
    for ages in ([5.0], [5.0, 5.0]):
        with pytest.raises(ValueError, match="two different ages"):
            model.fit(torch.tensor(ages))


def test_frozen_batchnorm_keeps_its_statistics():
    model = AgeRegressor(build_encoder("efficientnet_lite0"), freeze_batchnorm=True).train()
    model.fit(torch.tensor([10.0, 20.0]))
    norm = next(module for module in model.encoder.modules() if isinstance(module, torch.nn.BatchNorm2d))
    before = norm.running_mean.clone()
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    assert torch.equal(norm.running_mean, before)
    assert norm.weight.requires_grad
    assert model.head.training


def test_the_map_of_a_model_that_answers_the_same_to_everybody_fades():
    model = AgeRegressor(build_encoder("cnn"))
    model.fit(torch.tensor([6.0, 10.0, 14.0]))
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert not explain(model, images).any()  # the head begins with zeros
    torch.nn.init.normal_(model.head[-1].weight, std=1e-4)
    faint = explain(model, images)
    model.head[-1].weight.data *= 1e6
    clear = explain(model, images)
    assert 0 < faint.max() < 0.1 and clear.amax(dim=(1, 2)).tolist() == [1, 1]
    assert torch.allclose(faint / faint.amax(dim=(1, 2), keepdim=True), clear, atol=1e-4)
