"""What several test files share: the real k-diffusion, starts in float64, hypothesis without surprises."""

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.k_diffusion_real import NotHere, load

pytest_plugins = ["tests.hosts.figures"]

# the same examples on every run and no time limit per example: a busy machine must not fail a test
settings.register_profile("steady", derandomize=True, deadline=None, max_examples=60, database=None,
                          suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
settings.load_profile("steady")
torch.set_num_threads(1)            # tensors of ten numbers: more threads only wait for each other


def _k_diffusion(name: str):
    try:
        return load(name)
    except NotHere as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def k_diffusion_sampling():
    """The real k_diffusion/sampling.py."""
    return _k_diffusion("sampling")


@pytest.fixture(scope="session")
def k_diffusion_external():
    """The real k_diffusion/external.py."""
    return _k_diffusion("external")


@pytest.fixture
def noise() -> torch.Tensor:
    """Five starts in the plane of the mixture denoiser, deviation 1."""
    return torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
