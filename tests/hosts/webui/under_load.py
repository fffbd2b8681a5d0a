"""Four clients ask one server for pictures at once, with other checkpoints, presets, samplers and steps.

    S4S_WEBUI_HOST=FOLDER PYTHON_OF_THE_HOST tests/hosts/webui/under_load.py --tries 200 [--seed 0]

Each picture and each infotext has to be the one that the same request gives alone, before and after. Writes a line of
JSON for each request: null, or what is wrong in words; last {"figures": words}. `python -m tests.bench.proof --only
hosts` runs it.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).resolve().parent
CLIENTS, MOST_GROWTH = 4, 60.0          # MB of the server, from a quarter of the requests on
MODELS, BLOCK = ("tiny", "other"), 8    # checkpoints, and requests in a row for one
BASE = {"prompt": "a cat", "negative_prompt": "bad", "width": 64, "height": 64, "cfg_scale": 3, "seed": 1}
ROWS = [{"sampler_name": "S4S", "scheduler": "S4S toy_ sd15", "steps": 8},
        {"sampler_name": "S4S", "scheduler": "S4S toy_ sd15", "steps": 4},
        {"sampler_name": "S4S", "scheduler": "S4S Auto", "steps": 6},
        {"sampler_name": "S4S", "scheduler": "S4S gits-sd15", "steps": 6},
        {"sampler_name": "S4S", "scheduler": "S4S toy_ sd15", "steps": 11},                      # no such table
        {"sampler_name": "Euler", "scheduler": "S4S toy_ sd15", "steps": 6},
        {"sampler_name": "DPM++ 2M", "scheduler": "Karras", "steps": 5}]


def main() -> None:
    import s4s_webui_host as hosts
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    data = hosts.make_data(Path(tempfile.mkdtemp(prefix="s4s-load-")), learned_on_it=True)
    write_other(data / "models" / "Stable-diffusion")
    server = hosts.Server(data)
    try:
        load(server, wanted.tries, random.Random(wanted.seed))
    finally:
        server.stop()
        shutil.rmtree(data, ignore_errors=True)


def write_other(folder: Path) -> None:
    """A second checkpoint, on which no preset was learned."""
    from safetensors.torch import load_file, save_file
    first, other = (folder / f"{name}.safetensors" for name in MODELS)
    save_file({name: tensor * 0.8 if ".out.2." in name else tensor for name, tensor in load_file(first).items()}, other)
    shutil.copy(first.with_suffix(".yaml"), other.with_suffix(".yaml"))


def load(server, tries: int, chance: random.Random) -> None:
    def asked(kind) -> dict:
        row, seed, model = kind
        return {**BASE, **ROWS[row], "seed": seed, "override_settings": {"sd_model_checkpoint": f"{model}.safetensors"}}
    kinds = [(row, seed, model) for model in MODELS for row in range(len(ROWS)) for seed in (1, 2)]
    alone = {kind: answered(server, asked(kind)) for kind in kinds}
    models = [chance.choice(MODELS) for _ in range(tries // BLOCK + 1)]
    some = [(*chance.choice(kinds)[:2], models[number // BLOCK]) for number in range(tries)]
    held, changes = [], sum(one != other for one, other in pairwise(models))
    assert len({alone[0, 1, model][0] for model in MODELS}) == len(MODELS)

    def one(kind) -> str | None:
        try:
            got = answered(server, asked(kind))
        except (RuntimeError, OSError) as error:
            return f"{asked(kind)}: {str(error)[:300]}"
        held.append(memory(server))
        return None if got == alone[kind] else f"another answer than alone: {got[1]}, not {alone[kind][1]}"
    with ThreadPoolExecutor(CLIENTS) as clients:
        for failure in clients.map(one, some):
            tell(failure)
    first = held[len(held) // 4]
    tell(None if held[-1] - first < MOST_GROWTH else f"the server grew by {held[-1] - first:.0f} MB")
    after = all(answered(server, asked(kind)) == alone[kind] for kind in kinds)
    tell(None if after else "the same request alone gives another answer afterwards")
    tell({"figures": f"{CLIENTS} clients, {changes} changes of checkpoint or more; the server held {first:.0f} MB "
                     f"after {len(held) // 4} requests and {held[-1]:.0f} MB at the end"})


def answered(server, request: dict) -> tuple:
    """(the picture's pixels, its infotext) of the only picture."""
    from s4s_webui_host import pixels
    answer = server.call("/sdapi/v1/txt2img", request, seconds=900)
    [picture], [text] = answer["images"], json.loads(answer["info"])["infotexts"]
    return pixels(picture).tobytes(), text


def memory(server) -> float:
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4096 / 1e6


def tell(what) -> None:
    print(f"\x1e{json.dumps(what)}", flush=True)


if __name__ == "__main__":
    sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[2])]
    import conftest
    conftest.import_clone()
    main()
