"""The prompts a solver is learned on: a file, one per line, read by the model's own text encoders once."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

TOGETHER = 8                            # prompts per call of the text encoders
T5_LENGTHS = {"StableDiffusion3Pipeline": (77, 256), "FluxPipeline": (256, 512)}     # the hosts pad to the first
_HOST_SYNTAX = re.compile(r"<(lora|lyco|hypernet):|\([^()]+:\s*[\d.]+\s*\)|\bBREAK\b")


@dataclass(frozen=True)
class Embeddings:
    """What the network is told of every prompt: rows on the CPU, the negative prompt's last.

    context (n + 1, tokens, width); pooled (n + 1, width), None for a model without.
    """

    context: Tensor
    pooled: Tensor | None


def read(path: str) -> list[str]:
    """The prompts of a file: a line each, blank lines and those that begin with # left out."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "it is not UTF-8 text")
        raise ValueError(f"the prompts in {path} cannot be read ({reason}): use a text file with "
                         "one prompt per line") from None
    prompts = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not prompts:
        raise ValueError(f"{path} holds no prompt: write one per line; lines that begin with # do not count")
    return prompts


def remarks(prompts: list[str], pipeline) -> list[str]:
    """What has to be said of the prompts: too long for the model, or in a syntax that only hosts know."""
    said = []
    tokenizer, most = pipeline.tokenizer, pipeline.tokenizer.model_max_length
    long = [text for text in prompts if len(tokenizer(text).input_ids) > most]
    if long and type(pipeline).__name__ not in T5_LENGTHS:         # a T5 reads on
        said.append(f"{len(long)} prompts are longer than the text encoder's {most} tokens: their ends are cut off "
                    f"({long[0][:50]!r}...)")
    if odd := [text for text in prompts if _HOST_SYNTAX.search(text)]:
        said.append(f"{len(odd)} prompts are written in a host's syntax (weights, LoRAs), which is read as plain words "
                    f"here ({odd[0][:50]!r}...)")
    return said


@torch.no_grad()
def embed(pipeline, prompts: list[str], negative: str, device: torch.device) -> Embeddings:
    """Encode the prompts and the negative one, then drop the text encoders and tokenizers from the pipeline."""
    encoders = [name for name in ("text_encoder", "text_encoder_2", "text_encoder_3") if getattr(pipeline, name, None)]
    for name in encoders:
        getattr(pipeline, name).to(device).eval()       # diffusers leaves the T5 of a single file in training: dropout
    every = [*prompts, negative]
    options = _length(pipeline, every)
    parts = [_encoded(pipeline, every[start:start + TOGETHER], device, options)
             for start in range(0, len(every), TOGETHER)]
    for name in encoders:
        setattr(pipeline, name, None)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    context, pooled = zip(*parts)
    return Embeddings(torch.cat(context), None if pooled[0] is None else torch.cat(pooled))


def _length(pipeline, texts: list[str]) -> dict:
    """The T5's number of tokens: the hosts' for prompts that fit, more for longer ones."""
    if (lengths := T5_LENGTHS.get(type(pipeline).__name__)) is None:
        return {}
    tokenizer = getattr(pipeline, "tokenizer_3", None) or pipeline.tokenizer_2
    longest = max(len(tokenizer(text).input_ids) for text in texts)
    return {"max_sequence_length": min(max(longest, lengths[0]), lengths[1])}


def _encoded(pipeline, texts: list[str], device: torch.device, options: dict) -> tuple[Tensor, Tensor | None]:
    """(context, pooled) of a few prompts, by the pipeline's own encoding; an empty prompt is a prompt like others."""
    kind = type(pipeline).__name__
    if kind == "StableDiffusionPipeline":
        return pipeline.encode_prompt(texts, device, 1, False)[0].cpu(), None
    if kind == "StableDiffusionXLPipeline":
        context, _, pooled, _ = pipeline.encode_prompt(texts, device=device, do_classifier_free_guidance=False)
    elif kind == "StableDiffusion3Pipeline":
        context, _, pooled, _ = pipeline.encode_prompt(texts, texts, texts, device=device,
                                                       do_classifier_free_guidance=False, **options)
        if pipeline.text_encoder_3 is None:                 # diffusers puts zeros there, the hosts nothing
            context = context[:, :pipeline.tokenizer_max_length]
    else:
        context, pooled, _ = pipeline.encode_prompt(texts, device=device, **options)
    return context.cpu(), pooled.cpu()
