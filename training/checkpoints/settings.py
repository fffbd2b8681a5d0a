"""How a checkpoint is opened, as settings of a training."""

from dataclasses import dataclass

from ...s4s_nodes.core.lists import sizes
from ..settings import Group, setting

PREDICTIONS, DTYPES = ("auto", "eps", "v", "v_zsnr"), ("auto", "fp32", "fp16", "bf16")


@dataclass(frozen=True)
class ModelSettings(Group):
    """What is distilled: a bundled model, or a checkpoint and how it is opened."""

    name: str = setting("digits-eps", "the bundled model to train for: digits-eps or digits-flow", "model")
    checkpoint: str = setting("", "use this checkpoint instead of a bundled model: a .safetensors file, or a "
                                  "folder in diffusers' layout")
    prompts: str = setting("", "for a checkpoint: a text file with one prompt per line; seeds take turns")
    negative: str = setting("", "for a checkpoint: the negative prompt, for a cfg above 1")
    width: int = setting(0, "for a checkpoint: image width in pixels; 0: the model's native size")
    height: int = setting(0, "for a checkpoint: image height in pixels; 0: the width")
    more_sizes: str = setting("", "for a checkpoint: other sizes to learn for in the same tables, in pixels, e.g. "
                                  "768x512,1024x1024")
    dtype: str = setting("auto", "for a checkpoint: fp32, fp16 or bf16; auto: a half type on a GPU, fp32 on a CPU")
    config: str = setting("", "for a checkpoint: a folder in diffusers' layout that describes the model, with the "
                              "weights of what its file lacks; default: diffusers' cache on this machine")
    prediction: str = setting("auto", "for a checkpoint: eps, v or v_zsnr, if its file does not say")
    shift: float = setting(0.0, "for a flow checkpoint: the shift of its levels; 0: its own")
    guidance: float = setting(3.5, "for Flux dev: the distilled guidance; use --cfg 1 with it")

    def __post_init__(self):
        self.check_choices(prediction=PREDICTIONS, dtype=DTYPES)
        self.check_least(0, "width", "height", "shift")
        if sizes(self.more_sizes, "more_sizes") and not self.checkpoint:
            raise ValueError("--more-sizes is for checkpoints: the bundled models have one size")
        if bool(self.checkpoint) != bool(self.prompts):
            raise ValueError("--checkpoint and --prompts go together: a checkpoint is trained on prompts, and the "
                             "bundled models have none")
