"""A real trained model in the real host: the Train node over HTTP, then KSampler s4s against all of core's samplers.

    HOST/.venv/bin/python tests/hosts/comfyui/emoji_race.py            (COMFYUI_PATH: another checkout of the host)
    ... --taesd FOLDER --sheet race.png                          also draws the pictures, with the real taesd3_decoder

Everything is asked of the host over HTTP. The error is the RMSE of the latents to the host's own 50-call run from the
same noise, over all images and of the median image, on seeds that no training used. Every core sampler x scheduler gets
as many network calls as S4S, or fewer where its steps do not divide them; the best of them is picked on the race's own
images.
"""

import argparse
import itertools
import shutil
import tempfile
from pathlib import Path

import s4s_client
import s4s_host
import torch
from safetensors.torch import load_file

EMOJI = s4s_host.ROOT / "tests" / "assets" / "emoji"
CFG = 4.0                               # as in ComfyUI's template for SD 3
USUAL = ("euler", "simple")             # likewise
TEACHER = ("deis", "simple", 50)
LEARNED_ON = ("face", "heart", "moon", "zodiac")
RACED_ON = ("face", "cat", "heart", "fruit", "moon", "zodiac")      # two of them were never trained on
TWICE = ("heun", "heunpp2", "dpm_2", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_2s_ancestral_cfg_pp", "dpmpp_sde",
         "dpmpp_sde_gpu", "exp_heun_2_x0", "exp_heun_2_x0_sde", "seeds_2", "sa_solver_pece")     # two calls a step
OTHER_CALLS = ("dpm_adaptive", "seeds_3", "heunpp2")                # as many as they like, or three a step
FINALISTS = 24


def add_emoji(base: Path, taesd: Path | None = None) -> None:
    """Put the emoji model, its prompt node and the real TAESD3, where there is one, into a host's base directory."""
    folder = base / "models" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(EMOJI / "emoji_sd3.safetensors", folder)
    pack = base / "custom_nodes" / "emoji_nodes"
    pack.mkdir(parents=True)
    shutil.copy(Path(__file__).parent / "emoji_nodes.py", pack / "__init__.py")
    shutil.copy(EMOJI / "conditions.py", pack)
    for part in ("taesd3_decoder", "taesd3_encoder") if taesd else ():
        (base / "models" / "vae_approx").mkdir(parents=True, exist_ok=True)
        shutil.copy(taesd / f"{part}.safetensors", base / "models" / "vae_approx")


def node(kind: str, /, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def model(images: int = 1) -> dict:
    """The loader, the empty negative and an empty latent."""
    return {"model": node("CheckpointLoaderSimple", ckpt_name="emoji_sd3.safetensors"),
            "none": node("TestEmoji", emoji="none"),
            "latent": node("EmptySD3LatentImage", width=64, height=64, batch_size=images)}


def training(budget: str, calls: str = "5", name: str = "emoji") -> dict:
    """The Train node on four classes."""
    prompts = {f"positive{'' if i == 1 else f'_{i}'}": [f"emoji_{word}", 0] for i, word in enumerate(LEARNED_ON, 1)}
    return model() | {f"emoji_{word}": node("TestEmoji", emoji=word) for word in LEARNED_ON} | {"train": node(
        "S4STrainPreset", model=["model", 0], negative=["none", 0], latent=["latent", 0], cfg=CFG, calls=calls,
        windows="1.0", mode="auto", budget=budget, teacher_calls=50, race_seeds=8, name=name, seed=0, resume=False,
        **prompts)}


def runs(pairs, word: str, seed: int, images: int) -> dict:
    """One KSampler and one SaveLatent for each (sampler, scheduler, steps)."""
    prompt = model(images) | {"asked": node("TestEmoji", emoji=word)}
    for sampler, scheduler, steps in pairs:
        key = f"{sampler}-{scheduler}"
        prompt |= {key: node("KSampler", model=["model", 0], seed=seed, steps=steps, cfg=CFG, sampler_name=sampler,
                             scheduler=scheduler, positive=["asked", 0], negative=["none", 0],
                             latent_image=["latent", 0], denoise=1.0),
                   f"{key}.save": node("SaveLatent", samples=[key, 0], filename_prefix=f"race/{word}-{seed}-{key}")}
    return prompt


def sampled(server, pairs, word: str, seed: int, images: int) -> dict:
    """{(sampler, scheduler): latents (images, ...)} by the host. Raises RuntimeError where it refuses."""
    run = server.run(runs(pairs, word, seed, images), timeout=3600)
    if run.error:
        raise RuntimeError(str(run.error)[:2000])
    made = {}
    for sampler, scheduler, _ in pairs:
        file = run.outputs(f"{sampler}-{scheduler}.save")["latents"][0]
        made[sampler, scheduler] = load_file(server.base / file["type"] / file["subfolder"] / file["filename"])[
            "latent_tensor"].double()
    return made


def baselines(server, calls: int) -> list:
    """Every sampler x scheduler of the host with the steps that make `calls` calls."""
    sampler = server.get("/object_info/KSampler")["KSampler"]["input"]["required"]
    names = [name for name in sampler["sampler_name"][0] if name != "s4s" and name not in OTHER_CALLS]
    return [(name, scheduler, (calls + 1) // 2 if name in TWICE else calls)
            for name in names for scheduler in sampler["scheduler"][0] if scheduler != "s4s"]


def measured(server, pairs: list, words, seeds, images: int) -> dict:
    """{(sampler, scheduler): RMSE of each image to the teacher's}."""
    errors = {pair[:2]: [] for pair in pairs}
    for word, seed in itertools.product(words, seeds):
        wanted = sampled(server, [TEACHER], word, seed, images)[TEACHER[:2]]
        for pair, latents in sampled(server, pairs, word, seed, images).items():
            errors[pair].append((latents - wanted).flatten(1).square().mean(1).sqrt())
    return {pair: torch.cat(found) for pair, found in errors.items()}


def pooled(errors: torch.Tensor) -> float:
    return float(errors.square().mean().sqrt())


def race(server, calls: int, images: int = 8, seeds=(1001, 2002)) -> dict:
    """{(sampler, scheduler): RMSE of each image} of the finalists and of s4s; the rest fall out on a few images."""
    every, (first, *_) = baselines(server, calls), seeds
    few = measured(server, every, RACED_ON[::3], [first], 4)
    sound = [pair for pair in few if bool(few[pair].isfinite().all())]
    chosen = {pair for value in (pooled, torch.median) for pair in
              sorted(sound, key=lambda pair: float(value(few[pair])))[:FINALISTS]}
    left = [pair for pair in every if pair[:2] in chosen] + [("s4s", "s4s", calls)]
    return measured(server, left, RACED_ON, seeds, images)


def converged(server) -> float:
    """RMSE of the 50-call teacher to a run of 400 Heun steps: the median of a few images."""
    fine = ("heun", "simple", 400)
    return float(measured(server, [fine], RACED_ON, [1001], 2)[fine[:2]].median())


def table(errors: dict, calls: int, shown: int = 10) -> str:
    """The race in rows: the best by each measure and how many times farther from the teacher than s4s."""
    mine, lines = errors["s4s", "s4s"], [f"{f'KSampler, {calls} calls':40} RMSE  times s4s   median  times s4s"]
    best = [sorted(errors, key=lambda pair: float(value(errors[pair])))[:shown] for value in (pooled, torch.median)]
    for pair in dict.fromkeys([("s4s", "s4s"), *best[0], *best[1]]):
        whole, middle = pooled(errors[pair]), float(errors[pair].median())
        lines.append(f"{', '.join(pair):36} {whole:8.4f} {whole / pooled(mine):9.2f}x {middle:8.4f} "
                     f"{middle / float(mine.median()):9.2f}x")
    return "\n".join([*lines, f"{len(mine)} unseen images of {len(RACED_ON)} classes, cfg {CFG:g}"])


def sheet(server, calls: int, best: tuple, path: Path) -> None:
    """Teacher, the usual and the best core pair and s4s from the same noise, decoded by the host's VAELoader taesd3.

    The first two images of each class.
    """
    from PIL import Image, ImageDraw, ImageFont
    rows = [(f"Teacher: {TEACHER[0]} {TEACHER[1]}, {TEACHER[2]} calls", TEACHER),
            (f"S4S, {calls} calls", ("s4s", "s4s", calls)),
            (f"Best of core: {' '.join(best)}, {calls} calls", (*best, calls)),
            (f"Usual choice: {' '.join(USUAL)}, {calls} calls", (*USUAL, calls))]
    pictures = []
    for word in RACED_ON:
        prompt = runs([pair for _, pair in rows], word, 1001, 2) | {"vae": node("VAELoader", vae_name="taesd3")}
        for sampler, scheduler, _ in (pair for _, pair in rows):
            key = f"{sampler}-{scheduler}"
            prompt |= {f"{key}.decode": node("VAEDecode", samples=[key, 0], vae=["vae", 0]),
                       f"{key}.png": node("SaveImage", images=[f"{key}.decode", 0], filename_prefix="race/picture")}
        run = server.run(prompt, timeout=600)
        pictures.append([[Image.open(server.base / file["type"] / file["subfolder"] / file["filename"]).convert("RGB")
                          for file in run.outputs(f"{p[0]}-{p[1]}.png")["images"]] for _, p in rows])
    size, head = 96, 26
    page = Image.new("RGB", (size * 2 * len(RACED_ON), (size + head) * len(rows)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=16)
    for r, (title, _) in enumerate(rows):
        draw.text((6, r * (size + head) + 4), title, fill="#222222", font=font)
        for c, made in enumerate(p for word in pictures for p in word[r]):
            page.paste(made.resize((size - 4, size - 4), Image.LANCZOS), (c * size + 2, r * (size + head) + head))
    page.save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", default="normal", choices=("quick", "normal", "thorough"))
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--taesd", type=Path, help="folder with the real taesd3_encoder and taesd3_decoder.safetensors")
    parser.add_argument("--sheet", type=Path, help="PNG to draw; needs --taesd")
    options = parser.parse_args()
    base = s4s_host.make_base(Path(tempfile.mkdtemp(prefix="s4s-emoji-")))
    add_emoji(base, options.taesd)
    server = s4s_client.Server(base)
    try:
        server.wait()
        run = server.run(training(options.budget, str(options.calls)), timeout=7200)
        if run.error:
            raise SystemExit(str(run.error)[:3000])
        print(*run.outputs("train")["text"], "", sep="\n")
        print(f"teacher to 400 Heun steps, median image: RMSE {converged(server):.4f}\n")
        errors = race(server, options.calls)
        print(table(errors, options.calls))
        if options.sheet and options.taesd:
            del errors["s4s", "s4s"]
            sheet(server, options.calls, min(errors, key=lambda pair: pooled(errors[pair])), options.sheet)
    finally:
        server.stop()
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
