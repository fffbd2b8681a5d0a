"""The bundled digit models behind one interface: denoise(x, sigma, label) -> clean image.

Images are (B, 1, 28, 28), grey values scaled to -1 (paper) .. 1 (ink). The weights are fp16
safetensors files next to this module; tests/bench/demo_models trained them.
"""

from functools import cache
from pathlib import Path
from textwrap import shorten

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ...s4s_nodes.core import schedules
from .network import Classifier, Transformer, UNet

NAMES = ("digits-eps", "digits-flow")
FOLDER = Path(__file__).parent
FEATURES = FOLDER / "digits-features.safetensors"
NULL = 10  # the class "no class" of classifier-free guidance


def level_to_time(sigma, levels):
    """Time 0..1 of noise level sigma (B,), by linear interpolation in log sigma, unrounded.

    `levels` (N,) rise; beyond their ends time stays at 0 or 1, with gradient zero, never NaN.
    """
    # Clamped before the logarithm too, so that sigma = 0 gives no 0 * inf in the gradient.
    logs, at = levels.log(), sigma.to(levels.dtype).clamp(min=0.5 * levels[0]).log()
    low = (torch.searchsorted(logs, at.detach().contiguous()) - 1).clamp(0, len(logs) - 2)
    return (low + (at - logs[low]) / (logs[low + 1] - logs[low])).clamp(0, len(logs) - 1) / (len(logs) - 1)


class Digits(nn.Module):
    """A bundled model. `sigma` always means the noise level, never a timestep.

    prediction "eps": x = x0 + sigma * noise, sigma from 0.029 to 14.6.
    prediction "flow": x = (1 - sigma) x0 + sigma * noise, sigma from 0.001 to 1.
    """

    shape = (1, 28, 28)
    classes = 10
    null = NULL

    def __init__(self, prediction):
        super().__init__()
        self.prediction = prediction
        self.network = UNet() if prediction == "eps" else Transformer()
        if prediction == "eps":
            self.register_buffer("sigmas", torch.from_numpy(schedules.sd_levels()), persistent=False)

    def run(self, x, t, label):
        """The network on x (B, 1, 28, 28) at time t (B,) in 0..1, in its own dtype, back in x's."""
        dtype = self.network.head.weight.dtype
        # Time stays float32 or finer: rounded to a half type it would be a staircase in sigma.
        time = t.to(torch.promote_types(dtype, torch.float32))
        return self.network(x.to(dtype), time, label).to(x.dtype)

    def denoise(self, x, sigma, label):
        """The estimate D of the clean image: x (B, 1, 28, 28), sigma (B,), label (B,) -> as x."""
        level = sigma.to(x.dtype)[:, None, None, None]
        if self.prediction == "flow":
            return x - level * self.run(x, sigma, label)  # the network gives v = noise - x0
        c_in = (1 + level**2).rsqrt()
        # The network gives F with eps = c_in (sigma c_in x + F), so that at high noise a small
        # error of F is not multiplied by sigma; this is x - sigma * eps, simplified.
        f = self.run(c_in * x, level_to_time(sigma, self.sigmas), label)
        return c_in**2 * x - level * c_in * f


def read_weights(module, path):
    """Fill `module` from the safetensors file at `path`; says what is wrong if it does not fit."""
    remedy = "restore the file, or install the package again"
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; {remedy}")
    try:
        module.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        wanted, came = type(module).__name__, shorten(str(error), 160)
        raise ValueError(f"{path} does not hold the weights of {wanted} ({came}); {remedy}") from error


def load(name, device="cpu", dtype=torch.float32):
    """The bundled model `name`, one of NAMES: in eval mode, its weights frozen, in `dtype`."""
    if name not in NAMES:
        raise ValueError(f"no bundled model {name!r}; there are {', '.join(NAMES)}")
    model = Digits(name.removeprefix("digits-"))
    read_weights(model.network, FOLDER / f"{name}.safetensors")
    model.network.to(dtype=dtype, memory_format=torch.channels_last)  # channels_last: CPU speed
    return model.to(device).eval().requires_grad_(False)


@cache
def load_classifier(device="cpu"):
    """The bundled classifier, in eval mode, weights frozen, float32."""
    model = Classifier()
    read_weights(model, FEATURES)
    return model.float().to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
