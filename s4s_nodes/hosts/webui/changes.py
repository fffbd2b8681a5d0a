"""What LoRAs add to the loaded checkpoint's network, as a digest: a preset that was learned with them is not without.

Forge and reForge keep a LoRA's tensors as patches of their UNet; A1111 merges them into the weights and keeps a list.
"""

from __future__ import annotations

import sys
import weakref

from ..digest import digest

_digests: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()       # the host's patched UNet -> (patches, digest)


def of(model) -> str:
    """16 hex digits of the changes; "" where there are none."""
    unet = getattr(getattr(model, "forge_objects", None), "unet", None)
    return _of_list(sys.modules.get("networks")) if unet is None else _of_patches(unet)


def _of_patches(unet) -> str:
    """Of a Forge's UNet: {(file, strength, ...): {weight: [patch, ...]}}; of a reForge's {weight: [patch, ...]}."""
    loras = getattr(unet, "lora_patches", None)
    sets = list(loras.values()) if isinstance(loras, dict) else [getattr(unet, "patches", None) or {}]
    sets = [each for each in sets if each]
    if not sets:
        return ""
    mark = [id(each) for each in sets]
    if _digests.get(unet, ((), ""))[0] != mark:
        _digests[unet] = mark, digest(sorted(digest(each) for each in sets))[:16]
    return _digests[unet][1]


def _of_list(networks) -> str:
    """Of A1111's own LoRA extension: what is active, and how strongly on the network."""
    active = [(str(getattr(net.network_on_disk, "hash", "") or net.name), float(net.unet_multiplier), net.dyn_dim)
              for net in getattr(networks, "loaded_networks", None) or () if net.unet_multiplier]
    return digest(sorted(map(repr, active)))[:16] if active else ""
