"""A custom node of the tests: CONDITIONING without a text encoder."""

import torch


class RandomConditioning:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"width": ("INT", {"default": 768}), "tokens": ("INT", {"default": 8}),
                             "pooled": ("INT", {"default": 0}), "seed": ("INT", {"default": 0})}}

    RETURN_TYPES, FUNCTION, CATEGORY = ("CONDITIONING",), "make", "test"

    def make(self, width, tokens, pooled, seed):
        generator = torch.Generator().manual_seed(seed)
        extra = {"pooled_output": torch.randn(1, pooled, generator=generator)} if pooled else {}
        return ([[torch.randn(1, tokens, width, generator=generator), extra]],)


NODE_CLASS_MAPPINGS = {"S4STestConditioning": RandomConditioning}
