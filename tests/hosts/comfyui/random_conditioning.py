"""Custom nodes of the tests: CONDITIONING without a text encoder, and a stand-in for packs that take SCHEDULER_FUNC."""

import torch


class RandomConditioning:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"width": ("INT", {"default": 768, "max": 16384}), "tokens": ("INT", {"default": 8}),
                             "pooled": ("INT", {"default": 0, "max": 16384}), "seed": ("INT", {"default": 0})}}

    RETURN_TYPES, FUNCTION, CATEGORY = ("CONDITIONING",), "make", "test"

    def make(self, width, tokens, pooled, seed):
        generator = torch.Generator().manual_seed(seed)
        extra = {"pooled_output": torch.randn(1, pooled, generator=generator)} if pooled else {}
        return ([[torch.randn(1, tokens, width, generator=generator), extra]],)


class SchedulerFunc:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "scheduler_func_opt": ("SCHEDULER_FUNC",), "steps": ("INT",)}}

    RETURN_TYPES, FUNCTION, CATEGORY = ("STRING",), "make", "test"

    def make(self, model, scheduler_func_opt, steps):
        return (",".join(str(float(level)) for level in scheduler_func_opt(model, "s4s", steps)),)


NODE_CLASS_MAPPINGS = {"TestConditioning": RandomConditioning, "TestSchedulerFunc": SchedulerFunc}
