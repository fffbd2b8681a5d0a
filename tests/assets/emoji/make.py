"""Makes emoji_sd3.safetensors: encodes Noto emoji with TAESD3, trains the MMDiT of network.py, saves it in fp16.

    python -m tests.assets.emoji.make --data noto_emoji64.npz --taesd FOLDER --work runs/emoji

The npz holds `x` uint8 (n, 64, 64, 3) on white and `name` ("emoji_u1f600" and so on: code points); FOLDER the two
taesd3_*.safetensors. The work folder keeps the latents and the state of training: the same command again goes on where
it was stopped. The numbers drawn depend on the seed alone.
"""

import io
import math
import os
import time
from pathlib import Path

import click
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from s4s.s4s_nodes.core import classical, sample, schedules
from s4s.s4s_nodes.core.files import write_atomically
from tests.assets.emoji import judge, pictures, taesd
from tests.assets.emoji.conditions import CLASSES, conditions
from tests.assets.emoji.network import FILE, HIDDEN, PATCH, PLACES, PREFIX, SIZE, WAVES, MMDiT, load

PLAIN = 0.5                             # share of a batch's pictures that are not varied
DROP = 0.12                             # share of conditions replaced by none, for classifier-free guidance
FASTEST = 0.05                          # radian per unit of time 0..1000: faster waves of the clock are left out
RATE, RATE_OF_BLOCKS = 3e-3, 2e-2       # at the top; AdamW for what leads in and out, Muon for the blocks' matrices
WARM, KEEP, BATCH = 300, 0.999, 192     # iterations of rise; decay of the average of the weights; pictures
SAVE = 60.0                             # seconds between two savings
CFG = 3.0


class Batches:
    """Random latents of the set: classes weighed by the square root of their size, so that small ones are learnt."""

    def __init__(self, latents: Tensor, label: Tensor, generator):
        self.latents, self.label, self.generator = latents, label, generator
        self.odds = label.bincount()[label].float().rsqrt()

    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Clean latents (B, 16, 8, 8), labels with some dropped (B,), sigma (B,) and noise."""
        g = self.generator
        which = torch.multinomial(self.odds, count, replacement=True, generator=g)
        variant = torch.randint(1, self.latents.shape[1], (count,), generator=g)
        variant[torch.rand(count, generator=g) < PLAIN] = 0
        label = self.label[which].clone()
        label[torch.rand(count, generator=g) < DROP] = len(CLASSES)
        x0 = self.latents[which, variant]
        return x0, label, levels(count, g), torch.randn(x0.shape, generator=g)


def levels(count: int, generator) -> Tensor:
    """Noise levels (B,): half uniform, half logit-normal, with the middle a little up as SD3's shift has it."""
    uniform = torch.rand(count, generator=generator)
    normal = torch.randn(count, generator=generator).add(0.4).sigmoid()
    return torch.where(torch.rand(count, generator=generator) < 0.5, uniform, normal)


def untrained(seed: int) -> MMDiT:
    """The network before training: gates and output at zero, the clock's fast waves cut."""
    torch.manual_seed(seed)
    network = MMDiT()
    for name, weight in network.named_parameters():
        if "adaLN_modulation" in name or name.startswith("final_layer.linear"):
            torch.nn.init.zeros_(weight)
    # A wave of 1 rad per unit of time would let the answer swing within a thousandth of a level.
    slow = (10000.0 ** (-torch.arange(WAVES) / WAVES) <= FASTEST).float().repeat(2)
    clock = network.t_embedder.mlp[0].weight
    clock.data.mul_(slow)
    clock.register_hook(lambda gradient: gradient * slow)
    return network


def rate(iteration: int, iterations: int) -> float:
    """The learning rate's share: a linear rise, then a cosine to zero."""
    return min(1.0, (iteration + 1) / WARM) * 0.5 * (1 + math.cos(math.pi * iteration / iterations))


def optimisers(network: MMDiT) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices of the blocks, AdamW for the rest.

    Tried here for 300 batches: the loss came to 0.53, with AdamW alone to 0.60.
    """
    matrices = [w for w in network.joint_blocks.parameters() if w.ndim == 2]
    taken = {id(w) for w in matrices}
    rest = [w for w in network.parameters() if id(w) not in taken]
    return [torch.optim.AdamW(rest, RATE, betas=(0.9, 0.99), fused=True),
            torch.optim.Muon(matrices, RATE_OF_BLOCKS, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")]


class Training:
    """Weights, their moving average, the optimisers and the generator: what a stopped run needs to go on."""

    def __init__(self, latents: Tensor, label: Tensor, seed: int):
        self.network = untrained(seed)
        self.weights = dict(self.network.named_parameters())
        self.average = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.optimisers = optimisers(self.network)
        self.generator = torch.Generator().manual_seed(seed)
        self.batches = Batches(latents, label, self.generator)
        self.iteration, self.seconds = 0, 0.0

    def step(self, iterations: int) -> float:
        """One batch; its loss, the squared error of the velocity."""
        x0, label, sigma, noise = self.batches.draw(BATCH)
        s = sigma[:, None, None, None]
        with torch.autocast("cpu", torch.bfloat16):
            velocity = self.network((1 - s) * x0 + s * noise, sigma, *conditions(label))
        loss = F.mse_loss(velocity.float(), noise - x0)
        self.network.zero_grad()
        loss.backward()
        self.descend(rate(self.iteration, iterations))
        return loss.item()

    def descend(self, share: float) -> None:
        """One step along the gradients at a share of the top rates, and one of the average towards the weights."""
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimiser, top in zip(self.optimisers, (RATE, RATE_OF_BLOCKS)):
            optimiser.param_groups[0]["lr"] = top * share
            optimiser.step()
        keep = min(KEEP, (1 + self.iteration) / (10 + self.iteration))
        torch._foreach_lerp_(list(self.average.values()), [w.detach() for w in self.weights.values()], 1 - keep)
        self.iteration += 1

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all."""
        content = io.BytesIO()
        torch.save({"weights": self.weights, "average": self.average,
                    "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
                    "generator": self.generator.get_state(), "iteration": self.iteration,
                    "seconds": self.seconds}, content)
        write_atomically(path, content.getvalue())

    def resume(self, path: Path) -> None:
        """Take up the state of the file."""
        kept = torch.load(path)
        self.network.load_state_dict(kept["weights"])
        self.average = kept["average"]
        for optimiser, state in zip(self.optimisers, kept["optimisers"]):
            optimiser.load_state_dict(state)
        self.generator.set_state(kept["generator"])
        self.iteration, self.seconds = kept["iteration"], kept["seconds"]


def train(training: Training, iterations: int, state: Path) -> None:
    """Descend to the given number of iterations, saving the state every SAVE seconds."""
    if state.is_file():
        training.resume(state)
        click.echo(f"goes on at iteration {training.iteration}")
    start, saved, shown = time.monotonic() - training.seconds, time.monotonic(), None
    while training.iteration < iterations:
        loss = training.step(iterations)
        shown = loss if shown is None else 0.99 * shown + 0.01 * loss
        training.seconds = time.monotonic() - start
        if training.iteration % 200 == 0:
            click.echo(f"iteration {training.iteration} of {iterations}  loss {shown:.4f}  {training.seconds:.0f} s")
        if time.monotonic() - saved > SAVE:
            training.save(state)
            saved = time.monotonic()
    training.save(state)


def export(average: dict[str, Tensor], path: Path, notes: dict[str, str]) -> None:
    """Save the averaged weights in fp16 under the names of a checkpoint."""
    weights = average | {"pos_embed": repeated(average["pos_embed"])}
    halves = {PREFIX + name: weight.half().contiguous() for name, weight in weights.items()}
    write_atomically(path, save(halves, notes))


def repeated(positions: Tensor) -> Tensor:
    """The trained middle of the square of positions, laid over all of it: a larger latent gets something sensible."""
    side = SIZE // PATCH
    first = (PLACES - side) // 2
    index = first + (torch.arange(PLACES) - first) % side
    square = positions.unflatten(1, (PLACES, PLACES))
    return square[:, index][:, :, index].reshape(1, PLACES ** 2, HIDDEN)


@torch.inference_mode()
def draw(network: MMDiT, label: Tensor, calls: int = 50, cfg: float = CFG, seed: int = 1) -> Tensor:
    """Latents (B, 16, 8, 8) of the classes by Euler's method on SD3's levels, with guidance."""
    def guided(x, sigma, context, pooled):
        none = network.denoise(x, sigma, torch.zeros_like(context), torch.zeros_like(pooled))
        return none + cfg * (network.denoise(x, sigma, context, pooled) - none)
    context, pooled = conditions(label)
    noise = torch.randn(len(label), 16, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    table = classical.euler(schedules.simple(calls, schedules.flow_levels(3.0)), flow=True)
    return sample(guided, noise, table, {"context": context, "pooled": pooled})


def sheet(network: MMDiT, folder, path, columns: int = 12) -> None:
    """A PNG of samples: a row for each class."""
    label = torch.arange(len(CLASSES)).repeat_interleave(columns)
    shown = taesd.decoder(folder)(draw(network, label)).clamp(0, 1)
    rows = shown.unflatten(0, (len(CLASSES), columns)).permute(0, 3, 1, 4, 2).reshape(-1, 64 * columns, 3)
    Image.fromarray((255 * rows).round().byte().numpy()).save(path, optimize=True)


@click.command(help=__doc__)
@click.option("--data", type=click.Path(exists=True), required=True, help="noto_emoji64.npz")
@click.option("--taesd", "folder", type=click.Path(exists=True), required=True, help="folder of taesd3_*.safetensors")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="folder for latents, state and a sheet")
@click.option("--iterations", default=6000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=FILE.parent, help="folder; default: this script's")
def main(data, folder, work, iterations, seed, out):
    torch.set_num_threads(1)            # the order of sums, and so the last bits, depend on the number of threads
    latents, label = pictures.latents(data, folder, work / "latents.safetensors", seed)
    click.echo(f"{len(label)} pictures; of unseen ones the judge knows {judge.unseen(latents, label):.1%}")
    weights = judge.fit(latents.flatten(0, 1), label.repeat_interleave(latents.shape[1]))
    write_atomically(out / judge.FILE.name, save(weights))
    training = Training(latents, label, seed)
    train(training, iterations, work / "state.pt")
    notes = {"made from": "Noto emoji (Google, Apache-2.0), TAESD3 latents (MIT)", "classes": ", ".join(CLASSES),
             "iterations": str(iterations), "seed": str(seed), "training seconds": f"{training.seconds:.0f}"}
    export(training.average, out / FILE.name, notes)
    sheet(load(out / FILE.name), folder, work / "sheet.png")
    click.echo(f"{out / FILE.name}: {os.path.getsize(out / FILE.name) / 1e6:.2f} MB; samples in {work / 'sheet.png'}")


if __name__ == "__main__":
    main()
