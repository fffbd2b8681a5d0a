"""Gradients through the host's guider against finite differences, on every kind of model; and what they leave."""

from __future__ import annotations

import copy

import pytest
import torch
from training_kit import here, latent, load, ours, prompt, same_state, sampled, state_of, train, trainers

CALLS = 3
# Of the differences. A flow's are powers of two, so that the clock, 1000 sigma in float32, hits them exactly.
STEPS = {"weight": (2e-2, 1e-2), "flow": (2 ** -11, 2 ** -12), "discrete": (1e-2, 5e-3, 2.5e-3)}
TOLERANCE = 1e-4


def v_model(model):
    """The same network read as a v-prediction, as the ModelSamplingDiscrete node does it."""
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
    return ModelSamplingDiscrete().patch(model, "v_prediction", False)[0]


def without_rounding(sampling):
    """A discrete model's sampling with the clock its straight-through slope belongs to."""
    between = ours("hosts.comfyui.gradient").between_levels

    class Continuous(type(sampling)):
        def timestep(self, sigma):
            return between(self.sigmas.double().log(), sigma.double()).float()
    changed = copy.copy(sampling)
    changed.__class__ = Continuous
    return changed


class Slopes:
    """Error of a short run in two numbers of its table, a level the network is told and a weight, by both methods."""

    def __init__(self, source):
        self.source = source
        levels = ours("core").schedules.simple(CALLS, source.levels)              # on the model's own levels
        if source.flow:
            levels = (levels * 64).round() / 64
        parameters = trainers("parametrization.parameters").Parameters(levels, flow=source.flow)
        self.table = parameters.table(parameters.initial())
        self.at = {"sigma": float(levels[2]), "weight": float(self.table.weights[1, 0])}
        seeds = range(2)
        self.noise, self.extra = source.noise(seeds) * source.sigma_max, source.conditions(seeds)

    def error(self, sigma, weight):
        """RMSE of the end state against zero, float64."""
        query = torch.cat([self.table.query[:2], sigma.view(1)])
        weights = self.table.weights.index_put((torch.tensor([1]), torch.tensor([0])), weight)
        moved = self.table._replace(query=query, weights=weights)
        end = ours("core").sample(self.source.denoiser, self.noise, moved, self.extra)
        return end.double().square().mean().sqrt()

    def by_backward(self) -> dict:
        numbers = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in self.at.values()]
        return dict(zip(self.at, map(float, torch.autograd.grad(self.error(*numbers), numbers))))

    @torch.no_grad()
    def by_differences(self) -> dict:
        steps = STEPS["flow"] if self.source.flow else [step * self.at["sigma"] for step in STEPS["discrete"]]
        return {"sigma": [self._slope("sigma", step) for step in steps],
                "weight": [self._slope("weight", step) for step in STEPS["weight"]]}

    def _slope(self, name: str, step: float) -> float:
        """Sixth order."""
        def moved(times):
            at = {**self.at, name: self.at[name] + times * step}
            return float(self.error(*(torch.tensor(value, dtype=torch.float64) for value in at.values())))
        return sum(w * (moved(k) - moved(-k)) for k, w in ((1, 45), (2, -9), (3, 1))) / (60 * step)


@torch.inference_mode()
def both_slopes(model, name: str) -> tuple[dict, dict]:
    """({number: slope by backward}, {number: slopes by differences}), run as the Train node's gradient mode does."""
    denoiser, gradient, facts = (ours(f"hosts.comfyui.{part}") for part in ("denoiser", "gradient", "facts"))
    about = facts.of_model(model).model
    with gradient.training_mode():
        own = gradient.differentiable(model)
        scene = denoiser.Scene(own, gradient.cloned([prompt(name), prompt(name, 5)]), gradient.cloned(prompt(name, 9)),
                               3.0, gradient.cloned(latent(name)))
        backward = denoiser.inside(scene, about, lambda s: Slopes(s).by_backward(), gradient.visible_weights)
        if gradient.rounds_timesteps(model.get_model_object("model_sampling")):
            own.add_object_patch("model_sampling", without_rounding(model.get_model_object("model_sampling")))
        return backward, denoiser.inside(scene, about, lambda s: Slopes(s).by_differences(), gradient.visible_weights)


@pytest.mark.parametrize("name, patch", [("tiny_sd3", None), ("tiny_wan", None), ("tiny_flux", None),
                                         ("tiny_sd15", None), ("tiny_sd15", v_model)],
                         ids=["flow", "video", "flux", "eps", "v"])
def test_gradients_are_exact_and_the_model_stays_as_it_was(name, patch):
    if not here(name):
        pytest.skip("this host opens no tiny Flux")
    model = load(name) if patch is None else patch(load(name))
    before, picture = state_of(model), sampled(model, name)
    backward, differences = both_slopes(model, name)
    for number, slope in backward.items():
        # curvature and float32 rounding pull opposite ways: the best of a few step sizes is the measurement
        off = min(abs(found / slope - 1) for found in differences[number])
        print(name, number, slope, off)
        assert off < TOLERANCE, (number, slope, differences[number])
    assert same_state(before, state_of(model))
    assert torch.equal(picture, sampled(model, name))


def test_a_shared_model_shows_autograd_its_own_memory_and_gets_the_same_tensors_back():
    """Where the host cannot load a second copy; and nothing is copied, so it costs no memory."""
    gradient = ours("hosts.comfyui.gradient")
    network = load("tiny_sd3").model.diffusion_model
    before = dict(network.named_parameters())
    assert all(tensor.is_inference() for tensor in before.values())
    with pytest.raises(KeyError), gradient.visible_weights(network):
        for name, tensor in network.named_parameters():
            assert not tensor.is_inference() and not tensor.requires_grad
            assert tensor.data_ptr() == before[name].data_ptr()
        raise KeyError("the training breaks off")
    assert all(tensor is before[name] for name, tensor in network.named_parameters())


def test_training_mode_restores_every_switch():
    import comfy.model_management as host
    before = getattr(host, "in_training", "no such switch")
    with torch.inference_mode():
        with pytest.raises(KeyError), ours("hosts.comfyui.gradient").training_mode():
            assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
            assert getattr(host, "in_training", True) is True
            raise KeyError("the training breaks off")
        assert torch.is_inference_mode_enabled()
    assert getattr(host, "in_training", "no such switch") == before
    assert hasattr(host, "in_training") == (before != "no such switch")


def test_a_loader_that_cannot_load_again_gets_gradients_on_the_shared_weights():
    """As third-party loaders are: then the host refuses the second copy."""
    model = load("tiny_sd3")
    model.cached_patcher_init = None
    before = state_of(model)
    backward, differences = both_slopes(model, "tiny_sd3")
    assert min(abs(found / backward["weight"] - 1) for found in differences["weight"]) < TOLERANCE
    assert same_state(before, state_of(model))


def test_learning_by_gradient_in_the_node_leaves_the_model_as_it_was():
    model = load("tiny_wan")
    before, picture = state_of(model), sampled(model, "tiny_wan")
    preset, report, *_ = train(model, "tiny_wan", mode="gradient", calls="3", budget=3500, race_seeds=2,
                               name="by gradient")
    assert preset.training["mode"] == "gradient", report
    assert preset.training["held_out_rmse"]["calls3"][1] < preset.training["held_out_rmse"]["calls3"][0]
    assert same_state(before, state_of(model))
    assert torch.equal(picture, sampled(model, "tiny_wan"))
