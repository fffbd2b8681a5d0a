"""The door's other side: two dropdown rows, appended in place, and the nodes."""

import comfy.samplers
from comfy.k_diffusion import sampling as k_diffusion_sampling
from comfy_api.latest import ComfyExtension

from . import folder, record
from .sampler import s4s_scheduler, sample_s4s


def register() -> None:
    """Add `s4s` to the host's samplers and schedulers; done twice, it changes nothing.

    The lists the dropdowns show are the host's own objects, so they are appended to, never replaced; where a pack
    put another list in place, that one gets the row.
    """
    setattr(k_diffusion_sampling, f"sample_{record.KEY}", sample_s4s)     # where the host looks samplers up by name
    comfy.samplers.SCHEDULER_HANDLERS[record.KEY] = comfy.samplers.SchedulerHandler(s4s_scheduler, use_ms=True)
    for names in (comfy.samplers.KSAMPLER_NAMES, comfy.samplers.SAMPLER_NAMES, comfy.samplers.KSampler.SAMPLERS,
                  comfy.samplers.SCHEDULER_NAMES, comfy.samplers.KSampler.SCHEDULERS):
        if record.KEY not in names:
            names.append(record.KEY)


class S4SExtension(ComfyExtension):
    """What the host asks for; on_load comes after every pack of an earlier name has been imported."""

    async def on_load(self) -> None:
        register()

    async def get_node_list(self) -> list:
        from . import nodes_collection, nodes_presets, nodes_sampling, nodes_training
        return [*nodes_sampling.NODES, *nodes_presets.NODES, *nodes_collection.NODES, *nodes_training.NODES]


async def comfy_entrypoint() -> ComfyExtension:
    """The host calls this once after importing the pack."""
    return S4SExtension()


folder.register()
register()                  # at import: the oldest hosts never call on_load
record.listen()
