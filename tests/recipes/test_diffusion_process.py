"""Schedules and steps of diffusion and flows agree with diffusers, and with closed forms."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from i2i.errors import RequestError
from i2i.recipes.diffusion_process import (
    add_noise,
    alphas_cumprod,
    ddim_step,
    ddpm_step,
    min_snr_weight,
    noise_betas,
    posterior_variance,
    prediction_target,
    sampling_times,
    split_prediction,
)
from i2i.recipes.flow_process import euler_step, flow_times, heun_step, interpolate

REFERENCE = np.load(Path(__file__).parents[1] / "reference/diffusion/schedules_and_steps.npz")
STORED = [0, 1, 2, 3, 12, 25, 48, 49]       # Steps of a trajectory.
PREDICTIONS = {"epsilon": "epsilon", "sample": "x0", "v_prediction": "v"}
schedules = pytest.mark.parametrize("schedule", ["linear", "cosine"])
# float64 against float64; what float32 loses on the way.
dtypes = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-5)])


def tensor(name, dtype=torch.float64):
    return torch.from_numpy(REFERENCE[name]).to(dtype)


def assert_near(found, name, tolerance):
    """Within a share of the array's largest value."""
    expected = tensor(name)
    assert found.shape == expected.shape
    assert (found.double() - expected).abs().max() <= tolerance * expected.abs().max()


def ab_of(schedule, t):
    return float(alphas_cumprod(schedule)[t]) if t >= 0 else 1.0


@schedules
def test_schedules_are_those_of_diffusers(schedule):
    betas, ab = noise_betas(schedule), alphas_cumprod(schedule)
    before = torch.cat([torch.ones(1, dtype=torch.float64), ab[:-1]])
    torch.testing.assert_close(betas, tensor(f"{schedule}_betas_float64"), rtol=1e-12, atol=0)
    torch.testing.assert_close(ab, tensor(f"{schedule}_alphas_cumprod_float64"), rtol=1e-12, atol=0)
    torch.testing.assert_close((ab / (1 - ab)).log(), tensor(f"{schedule}_log_snr_float64"), rtol=1e-11,
                               atol=1e-12)
    # From alphas, not betas, so with the rounding of 1 - alpha.
    torch.testing.assert_close(posterior_variance(ab, before),
                               tensor(f"{schedule}_posterior_variance_float64"), rtol=1e-11, atol=1e-16)


@schedules
def test_noisy_images_and_velocities_are_those_of_diffusers(schedule):
    ab = alphas_cumprod(schedule)[tensor("add_noise_t", torch.int64), None, None, None, None]
    x0, noise = tensor("x0"), tensor("model_output")[0]
    assert_near(add_noise(x0, noise, ab), f"{schedule}_add_noise", 2e-5)
    assert_near(prediction_target(x0, noise, ab, "v"), f"{schedule}_velocity", 2e-5)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("variant", ["eta0", "eta1", "eta0_clip"])
@schedules
@dtypes
def test_ddim_trajectories_are_those_of_diffusers(dtype, tolerance, schedule, variant, spacing):
    times, name = sampling_times(50, spacing), f"{schedule}_{spacing}_ddim_{variant}"
    assert times == REFERENCE[f"{spacing}_timesteps"].tolist()
    outputs, noises = tensor("model_output", dtype), tensor("step_noise", dtype)
    x, stored, first = tensor("x_T", dtype), [], None
    for i, t in enumerate(times):
        ab, ab_next = ab_of(schedule, t), ab_of(schedule, [*times, -1][i + 1])
        x0, noise = split_prediction(outputs[i % 4], x, ab, "epsilon")
        x0 = x0.clamp(-1, 1) if "clip" in variant else x0
        first = x0 if first is None else first
        x = ddim_step(x0, noise, ab, ab_next, *((1.0, noises[i % 4]) if "eta1" in variant else ()))
        stored += [x] if i in STORED else []
    assert_near(torch.stack(stored), f"{name}_float64", tolerance)
    assert_near(first, f"{name}_pred_x0_first", 2e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@schedules
@dtypes
def test_a_step_from_each_prediction_is_that_of_diffusers(dtype, tolerance, schedule, prediction):
    x, output, ab = tensor("x_T", dtype), tensor("model_output", dtype)[1], ab_of(schedule, 679)
    found = ddim_step(*split_prediction(output, x, ab, PREDICTIONS[prediction]), ab, ab_of(schedule, 659))
    assert_near(found, f"{schedule}_ddim_one_step_{prediction}_float64", tolerance)


@pytest.mark.parametrize("variance", ["small", "large"])
@schedules
@dtypes
def test_ancestral_steps_are_those_of_diffusers(dtype, tolerance, schedule, variance):
    x, output, noise = (tensor("x_T", dtype), tensor("model_output", dtype)[2],
                        tensor("step_noise", dtype)[2])
    found = []
    for t in (999, 500, 1, 0):
        ab, ab_next = ab_of(schedule, t), ab_of(schedule, t - 1)
        x0, _ = split_prediction(output, x, ab, "epsilon")
        found.append(ddpm_step(x, x0, ab, ab_next, noise if t else None, variance))
    assert_near(torch.stack(found), f"{schedule}_ddpm_fixed_{variance}_t999_500_1_0_float64", tolerance)


@schedules
def test_an_ancestral_step_is_a_ddim_step_with_all_of_the_noise(schedule):
    x, output, fresh = tensor("x_T"), tensor("model_output")[1], tensor("step_noise")[0]
    ab, ab_next = ab_of(schedule, 700), ab_of(schedule, 600)
    x0, noise = split_prediction(output, x, ab, "v")
    torch.testing.assert_close(ddim_step(x0, noise, ab, ab_next, 1.0, fresh),
                               ddpm_step(x, x0, ab, ab_next, fresh), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("prediction", ["v", "epsilon", "x0"])
def test_a_prediction_that_is_its_target_gives_back_image_and_noise(prediction):
    x0, noise, ab = tensor("x0"), tensor("x_T"), torch.tensor(0.3, dtype=torch.float64)
    output = prediction_target(x0, noise, ab, prediction)
    found = split_prediction(output, add_noise(x0, noise, ab), ab, prediction)
    torch.testing.assert_close(found, (x0, noise), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("prediction", ["v", "epsilon", "x0"])
def test_min_snr_weighs_the_same_error_of_the_image_the_same_in_each_prediction(prediction):
    """Of any prediction, weight times squared error is min(SNR, 5) times the image's squared error."""
    ab = torch.tensor([0.01, 0.5, 0.99], dtype=torch.float64)[:, None]
    x = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    output = torch.stack([x.roll(1, 1), x.roll(2, 1)])
    images = torch.stack([split_prediction(each, x, ab, prediction)[0] for each in output])
    found = min_snr_weight(ab, prediction, 5.0) * (output[0] - output[1]) ** 2
    expected = (ab / (1 - ab)).clamp(max=5.0) * (images[0] - images[1]) ** 2
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


def test_times_of_any_number_of_steps_start_in_noise_and_are_in_order():
    assert sampling_times(1, "trailing") == [999]
    assert sampling_times(3, "trailing") == [999, 666, 332]
    assert sampling_times(1000, "leading") == sampling_times(1000, "trailing") == [*range(999, -1, -1)]
    for steps in (0, 1001):
        with pytest.raises(RequestError, match="accepted: 1 to 1000"):
            sampling_times(steps, "trailing")


@pytest.mark.parametrize(("name", "times"), [
    ("uniform", flow_times(50)), ("shift", flow_times(50, 3.0)),
    ("default", [*np.linspace(1, 0.001, 50), 0])])
@dtypes
def test_flow_trajectories_are_those_of_diffusers(dtype, tolerance, name, times):
    np.testing.assert_allclose(times, REFERENCE[f"flow_{name}_sigmas"], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(np.array(times[:-1]) * 1000, REFERENCE[f"flow_{name}_timesteps"], rtol=1e-6)
    x, outputs, stored = tensor("x_T", dtype), tensor("model_output", dtype), []
    for i in range(50):
        x = euler_step(x, outputs[i % 4], times[i], times[i + 1])
        stored += [x] if i in STORED else []
    assert_near(torch.stack(stored), f"flow_{name}", 2e-5)       # The array is float32.


def test_interpolation_is_that_of_diffusers():
    s = tensor("flow_interp_s")[:, None, None, None, None]
    x0, noise = tensor("x0"), tensor("model_output")[0]
    assert_near(interpolate(x0, noise, s), "flow_interp_x", 1e-12)
    assert_near(noise - x0, "flow_target_v", 1e-12)


@pytest.mark.parametrize(("step", "order"), [("euler", 1), ("heun", 2)])
def test_the_error_of_a_sampler_falls_with_its_order(step, order):
    """dx/ds = x from s = 1 to 0: x(0) = x(1) / e."""
    def error(steps):
        x, times = torch.ones((), dtype=torch.float64), flow_times(steps)
        for s, s_next in pairwise(times):
            x = euler_step(x, x, s, s_next) if step == "euler" else heun_step(x, lambda x, s: x, s, s_next)
        return abs(float(x) - np.exp(-1))

    assert error(40) / error(80) == pytest.approx(2**order, rel=0.05)


def test_no_steps_of_a_flow_are_refused():
    with pytest.raises(RequestError, match="steps=0 cannot be used; accepted: 1 or more"):
        flow_times(0)
