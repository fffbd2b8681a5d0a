"""Several processes, one run: each evaluates its share of the images of every network call.

    torchrun --nproc-per-node 4 -m s4s train ...       (or `accelerate launch --multi_gpu --num_processes 4 -m`)

All processes run the same program on the same numbers. For each network call a process evaluates its share and the
answers are gathered. So the teacher, the optimizer and the validation are distributed alike, and the result matches a
single-process run up to rounding. Latents travel, never weights. Only the first process reads, writes and prints.
"""

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor

from .source import Source, halved


class World:
    """The processes of one run; spread(source) splits its network calls over them."""

    def __init__(self, rank: int, size: int, local_rank: int):
        self.rank, self.size, self.local_rank = rank, size, local_rank

    @property
    def first(self) -> bool:
        """Whether this process is the one that reads, writes and prints."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device of this process for a device setting: with CUDA, one GPU per process."""
        uses_cuda = name == "cuda" or name == "auto" and torch.cuda.is_available()
        return f"cuda:{self.local_rank}" if uses_cuda else name

    def shared(self, work: Callable):
        """work() of the first process, in all of them; what it raises there, all raise."""
        held: list = [None, None]
        if self.first:
            try:
                held[0] = work()
            except Exception as error:
                held[1] = error
        dist.broadcast_object_list(held, src=0)
        if held[1] is not None:
            raise held[1]
        return held[0]

    def spread(self, source: Source) -> Source:
        """The source with every network call split over the processes; its calls are still counted all together."""
        teacher = source.teacher_source and self.spread(source.teacher_source)
        return replace(source, network=Share(self, source.network, source.chunk), chunk=source.chunk * self.size,
                       teacher_source=teacher)


def join_world() -> World | None:
    """The world that torchrun or accelerate started this process in, or None.

    If one process stops, the others get a KeyboardInterrupt, and the first one saves the run.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size < 2:
        return None
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    world = World(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", 0)))
    if torch.cuda.is_available():
        torch.cuda.set_device(world.local_rank)
    return world


def launched_alone() -> bool:
    """Whether several processes were asked for but one runs: `accelerate launch --cpu` starts only one."""
    asked = "MASTER_PORT" in os.environ and os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    return asked and "WORLD_SIZE" not in os.environ


def leave_world() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


class Share:
    """A network (x, sigma (B,), **extra) -> (B, ...) of which each process evaluates an equal share of the images.

    images: how many this process has evaluated. If memory runs out, it evaluates its share in smaller parts.
    """

    def __init__(self, world: World, network: Callable, chunk: int):
        self.world, self.network, self.chunk = world, network, chunk
        self.images = 0

    def __call__(self, x: Tensor, sigma: Tensor, **extra) -> Tensor:
        each = -(-len(x) // self.world.size)            # as many for every process: past the end the last image again
        places = (self.world.rank * each + torch.arange(each)).clamp(max=len(x) - 1).to(x.device)
        done, start = [], 0
        while start < each:
            some = places[start:start + self.chunk]
            try:
                done.append(self.network(x[some], sigma[some], **{key: value[some] for key, value in extra.items()}))
            except (RuntimeError, MemoryError) as error:
                self.chunk = halved(len(some), error)
                continue
            start, self.images = start + len(some), self.images + len(some)
        mine = torch.cat(done).contiguous()
        everyone = [torch.empty_like(mine) for _ in range(self.world.size)]
        dist.all_gather(everyone, mine)
        return torch.cat(everyone)[:len(x)]             # in order, without what lies past the end
