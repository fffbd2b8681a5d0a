"""LoRAs and the like in the stand-in for a host: a preset that was learned with them belongs to the checkpoint with
them alone."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from s4s.s4s_nodes.core.preset_file import save
from tests.hosts.test_webui_sampling import ran
from tests.hosts.webui_double import Host, module
from tests.hosts.webui_presets import eps_preset, shelved


class Unet:
    """A patched network as Forge (lora_patches) and reForge (patches) keep it."""

    def __init__(self, **kept):
        vars(self).update(kept)


def lora(seed: int, strength: float = 1.0) -> dict:
    made = torch.Generator().manual_seed(seed)
    weights = torch.randn(4, 200, generator=made), torch.randn(200, 4, generator=made)
    return {"diffusion_model.out.weight": [[strength, ("lora", (*weights, 1.0, None, None)), 1.0, None, None]]}


def listed(name: str, strength: float = 1.0):
    """An active network of A1111's own extension."""
    return SimpleNamespace(network_on_disk=SimpleNamespace(hash=f"hash of {name}"), name=name, dyn_dim=None,
                           unet_multiplier=strength)


WAYS = {     # a host's model with these LoRAs: [(seed, strength), ...]
    "forge": lambda loras: Unet(lora_patches={(f"{i}", s, 1.0, False): lora(i, s) for i, s in loras}),
    "reforge": lambda loras: Unet(patches={k: [p for i, s in loras for p in lora(i, s)[k]] for k in lora(0)} if loras
                                  else {}),
    "a1111": lambda loras: [listed(str(i), s) for i, s in loras]}


@pytest.fixture(params=WAYS)
def host(request, monkeypatch, tmp_path):
    shelved(tmp_path)
    made = Host(monkeypatch, tmp_path)
    made.load()
    made.folder = tmp_path / "s4s_presets"

    def use(*loras):
        kept = WAYS[request.param](loras)
        if request.param == "a1111":
            monkeypatch.setitem(sys.modules, "networks", module("networks", loaded_networks=kept))
        else:
            made.shared.sd_model.forge_objects = SimpleNamespace(unet=kept)
        return made.part("facts")._changes(made.shared.sd_model)
    made.use, made.kind = use, request.param
    return made


def test_a_digest_tells_loras_and_strengths_apart_and_their_order_does_not_count(host):
    found = [host.use(*loras) for loras in ((), ((1, 1.0),), ((1, 0.5),), ((2, 1.0),), ((1, 1.0), (2, 1.0)))]
    assert found[0] == "" and len(set(found)) == 5 and all(len(each) == 16 for each in found[1:])
    assert host.use((1, 1.0)) == found[1]


def test_a_preset_runs_by_itself_only_with_the_loras_it_was_learned_with(host):
    patches = host.use((1, 0.8))
    made = eps_preset("with a LoRA")
    save(replace(made, model=replace(made.model, hashes={**made.model.hashes, "patches": patches})),
         host.folder / "with a LoRA.safetensors")
    for loras, wanted in ((((1, 0.8),), "with a LoRA "), ((), "toy sd15 "), (((2, 0.8),), "fallback "),
                          (((1, 0.7),), "fallback ")):
        host.use(*loras)
        p = host.process()
        ran(host, p)
        assert p.extra_generation_params["S4S"].startswith(wanted), loras


def freeu(scale: float):
    """What Forge's FreeU hangs into a UNet."""
    def output_block_patch(h, hsp, transformer_options):
        return h * scale, hsp
    return {"transformer_options": {"patches": {"output_block_patch": [output_block_patch]}}}


def thresholded(strength: float):
    return {"transformer_options": {}, "sampler_cfg_function": lambda args: args["cond"] * strength}


def test_what_extensions_hang_into_forges_network_makes_another_model(host):
    if host.kind == "a1111":
        pytest.skip("A1111 has no patched UNet")
    unet, changes = host.shared.sd_model, host.part("facts")._changes

    def seen(options):
        unet.forge_objects.unet.model_options = options
        return changes(unet)
    host.use()
    plain = seen({"transformer_options": {"optimized_attention_override": print, "sample_sigmas": torch.ones(3)},
                  "memory_peak_estimation_modifier": print})
    found = [plain, *map(seen, (freeu(1.1), freeu(1.2), thresholded(1.1), thresholded(1.2)))]
    assert plain == "" and len(set(found)) == 5 and seen(freeu(1.1)) == found[1]
    p = host.process()
    ran(host, p)
    assert p.extra_generation_params["S4S"].startswith("fallback ")
    host.use((1, 1.0))
    assert seen({}) == host.use((1, 1.0)) != seen(freeu(1.1))


def test_a1111s_hypernetworks_and_merged_tokens_make_another_model(host):
    if host.kind != "a1111":
        pytest.skip("only A1111 has hypernetworks, and merges tokens by itself")
    host.use()

    def seen(*networks, merged=0):
        host.shared.loaded_hypernetworks, host.shared.sd_model.applied_token_merged_ratio = list(networks), merged
        return host.part("facts")._changes(host.shared.sd_model)

    def network(strength, value=1.0, name="style"):
        layer = torch.nn.Linear(2, 2)
        torch.nn.init.constant_(layer.weight, value)
        torch.nn.init.zeros_(layer.bias)
        layer.multiplier = strength
        return SimpleNamespace(name=name, layers={320: (layer, layer)})
    found = [seen(), seen(network(1.0)), seen(network(0.5)), seen(network(1.0, 2.0)), seen(merged=0.5)]
    assert found[0] == "" and len(set(found)) == 5 and seen(network(1.0)) == found[1]
