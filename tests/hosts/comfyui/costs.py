"""What the pack adds to the start of a real ComfyUI, and what its samplers cost beside ours.

    PYTHON_OF_THE_HOST tests/hosts/comfyui/costs.py [--seconds 60]

Writes a line of JSON for the start, and with --seconds one for each sampler on each latent: fields of `Cell` in
tests/bench/proof/loop_cost.py. `python -m tests.bench.proof --only cost` runs it.
"""

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import s4s_host

sys.path.append(str(s4s_host.ROOT / "tests" / "bench" / "proof"))       # as files: the host has a package `tests` too


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.0)
    wanted = parser.parse_args()
    from start_cost import Clock
    base = s4s_host.make_base(Path(tempfile.mkdtemp(prefix="s4s-cost-")))
    try:
        clock = Clock()
        s4s_host.import_host(base)
        clock.next()
        s4s_host.load_pack(base)
        tell(clock.told(s4s_host.pack("").__name__))
        if wanted.seconds:
            sys.modules["s4s"] = s4s_host.pack("")
            import loop_cost
            for cell in loop_cost.cells(samplers(), wanted.seconds):
                tell(asdict(cell))
    finally:
        shutil.rmtree(base, ignore_errors=True)


def samplers() -> dict:
    """name -> the host's own function, with k-diffusion's signature."""
    from comfy.extra_samplers.uni_pc import sample_unipc
    from comfy.k_diffusion import sampling
    named = {name: getattr(sampling, f"sample_{name}") for name in ("dpmpp_2m", "ipndm", "res_multistep", "lms")}
    return {"dpmpp_2m": named.pop("dpmpp_2m"), "uni_pc": sample_unipc, **named}


def tell(what) -> None:
    print(f"\x1e{json.dumps(what)}", flush=True)


if __name__ == "__main__":
    main()
