"""S4S at few calls beside what people do instead, in a real ComfyUI: more steps, EasyCache, LazyCache, a CFG interval.

    COMFYUI_PATH=FOLDER FOLDER/.venv/bin/python tests/bench/equal_seconds.py [--work runs/equal] [--write]

FOLDER is a ComfyUI with the node CFG Override. The model is the small emoji model (tests/assets/emoji), which opens as
Stable Diffusion 3, at cfg 2. The Train node makes the presets, one of them for the model with CFG Override; both stay
in --work. Everything is sampled by the host's own KSampler with its own nodes in between, 48 unseen images of six
classes, two of which were never trained on. Errors are RMSE of the latents to a run of many steps from the same noise,
and the Fréchet distance to that run's latents in the means and deviations of their channels, as a race in ComfyUI has
it; of a stochastic sampler only the latter, beside that of the teacher's own images from other noise. Evaluations are
counted inside the network: a guided call is two. Time is the process's own seconds on one core over those of S4S at 6
calls, in the same run. --write puts the table into docs/equal-seconds.md. --full prints the seconds of a few lines on a
Stable Diffusion 1.x network of full size instead, whose weights are random: it has no images that could be compared.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests/hosts/comfyui"), str(ROOT / "tests/assets/emoji")]       # the host has a `tests` too

import emoji_race  # noqa: E402
import s4s_host  # noqa: E402
from conditions import condition  # noqa: E402
from pages import placed  # noqa: E402

CFG, IMAGES, SEED = 2.0, 8, 7000
TEACHER = ("deis", "simple", 100)
CALLS, MORE = (4, 6, 8), (6, 8, 12, 20, 30)
PLAIN, STOCHASTIC = ("euler", "dpmpp_2m", "res_multistep"), ("er_sde",)
OTHER_NOISE = "the teacher from other noise"        # how far two sets of so many images are apart at best
CACHED = ((20, 0.2), (30, 0.2), (30, 0.4))              # steps and threshold
INTERVAL = (0.15, 0.6)      # the part of the sampling that is guided, in the host's percent
SD15 = {"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": [2] * 4,
        "channel_mult": [1, 2, 4, 4], "num_heads": 8, "transformer_depth": [1] * 6 + [0] * 2, "context_dim": 768,
        "transformer_depth_output": [1] * 9 + [0] * 3, "transformer_depth_middle": 1, "use_spatial_transformer": True,
        "use_linear_in_transformer": False, "use_temporal_attention": False, "legacy": False, "adm_in_channels": None}
MARKS = ("<!-- measured: tests/bench/equal_seconds.py -->", "<!-- end -->")


class Bench:
    """The host with the emoji model; every run is measured alike."""

    def __init__(self, base: Path):
        import comfy_extras.nodes_custom_sampler as custom
        import comfy_extras.nodes_easycache as caches
        import nodes
        self.nodes, self.base, self.count = nodes, base, [0]
        self.frechet = s4s_host.pack("training.benchmark.frechet")
        with torch.inference_mode():
            self.model = nodes.CheckpointLoaderSimple().load_checkpoint("emoji_sd3.safetensors")[0]
        hook(self.model.model.diffusion_model)
        self.model.model.diffusion_model.joint_blocks[0].register_forward_pre_hook(self._counted, with_kwargs=True)
        asked = {word: condition(word) for word in (*emoji_race.RACED_ON, *emoji_race.LEARNED_ON, None)}
        self.asked = {word: [[context, {"pooled_output": pooled}]] for word, (context, pooled) in asked.items()}
        early = custom.CFGOverride.execute(self.model, 1.0, 0.0, INTERVAL[0])[0]
        self.interval = custom.CFGOverride.execute(early, 1.0, INTERVAL[1], 1.0)[0]
        self.easy = lambda model, limit: caches.EasyCacheNode.execute(model, limit, 0.15, 0.95, False)[0]
        self.lazy = lambda model, limit: caches.LazyCacheNode.execute(model, limit, 0.15, 0.95, False)[0]

    def _counted(self, module, args, kwargs) -> None:
        shown = args[0] if args else next(iter(kwargs.values()))
        self.count[0] += len(shown)

    @torch.inference_mode()
    def train(self, model, name: str, calls: tuple, work: Path) -> Path:
        """The preset that the Train node makes for this MODEL, kept in `work`."""
        path = work / f"{name}.safetensors"
        if not path.is_file():
            train = s4s_host.pack("s4s_nodes.hosts.comfyui.nodes_training").S4STrainPreset
            prompts = {f"positive{'' if i == 1 else f'_{i}'}": self.asked[word]
                       for i, word in enumerate(emoji_race.LEARNED_ON, 1)}
            train.execute(model=model, negative=self.asked[None], latent=self.latent(1), cfg=CFG,
                          calls=",".join(map(str, calls)), windows="1.0", mode="forward-only", budget="normal",
                          teacher_calls=50, race_seeds=8, name=name, seed=0, resume=False, **prompts)
            shutil.move(self.presets / path.name, path)
        return path

    @property
    def presets(self) -> Path:
        return self.base / "models/s4s_presets"

    def use(self, preset: Path | None) -> None:
        """Let this be the only preset there is."""
        for path in self.presets.glob("*.safetensors"):
            path.unlink()
        if preset is not None:
            shutil.copy(preset, self.presets)

    def named(self, model):
        """The MODEL with this preset chosen by name: a cache or an interval makes another model of it."""
        [path] = self.presets.glob("*.safetensors")
        pin = s4s_host.pack("s4s_nodes.hosts.comfyui.nodes_sampling").S4SUsePreset
        return pin.execute(model=model, preset=path.stem, strict=False).args[0]

    @staticmethod
    def latent(images: int) -> dict:
        return {"samples": torch.zeros(images, 16, 8, 8)}

    @torch.inference_mode()
    def sampled(self, model, sampler: str, scheduler: str, steps: int, words=emoji_race.RACED_ON,
                seed: int = SEED) -> torch.Tensor:
        """Latents (images, ...) of all classes by the host's KSampler."""
        return torch.cat([self.nodes.common_ksampler(
            model, seed, steps, CFG, sampler, scheduler, self.asked[word], self.asked[None],
            self.latent(IMAGES))[0]["samples"] for word in words]).double()

    def row(self, what: str, model, sampler: tuple, target: torch.Tensor, other: torch.Tensor | None = None,
            seed: int = SEED) -> dict:
        """One line of the table. other: a second target, of the guidance that the line itself uses."""
        self.sampled(model, *sampler, words=emoji_race.RACED_ON[:1])
        self.count[0], began = 0, time.process_time()
        made = self.sampled(model, *sampler, seed=seed)
        seconds = time.process_time() - began
        off = (made - target).flatten(1).square().mean(1).sqrt()
        row = {"what": what, "sampler": ", ".join(sampler[:2]), "steps": sampler[2],
               "evaluations": self.count[0] / len(made), "seconds": seconds,
               "rmse": float(off.square().mean().sqrt()), "median": float(off.median()),
               "frechet": self.frechet.distance(*(self.frechet.moments(x).numpy() for x in (made, target)))}
        if other is not None:
            row["own"] = float((made - other).flatten(1).square().mean(1).sqrt().median())
        print(json.dumps(row), flush=True)
        return row


def hook(network) -> None:
    """Give the network the hook that EasyCache hangs on: the host's Stable Diffusion 3 lacks it, most families have it.

    It gets a copy of the state: EasyCache writes into it, and in full precision the host would go on from that.
    """
    from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers
    plain = network.forward

    def forward(x, timestep, context=None, y=None, control=None, transformer_options=None, **more):
        options = transformer_options or {}
        wrappers = get_all_wrappers(WrappersMP.DIFFUSION_MODEL, options)
        executor = WrapperExecutor.new_class_executor(plain, network, wrappers)
        return executor.execute(x.clone(), timestep, context, y, control, options, **more)
    network.forward = forward


def rows_of(bench: Bench, work: Path) -> list[dict]:
    bench.use(bench.train(bench.model, "emoji", CALLS, work))
    target, interval = (bench.sampled(model, *TEACHER) for model in (bench.model, bench.interval))
    rows = [bench.row("S4S", bench.model, ("s4s", "s4s", calls), target) for calls in CALLS]
    rows += [bench.row(OTHER_NOISE, bench.model, TEACHER, target, seed=SEED + 1)]
    for sampler in (*PLAIN, *STOCHASTIC):
        rows += [bench.row("more steps", bench.model, (sampler, "simple", steps), target) for steps in MORE]
    for name, cache in (("EasyCache", bench.easy), ("LazyCache", bench.lazy)):
        rows += [bench.row(f"{name} {limit:g}", cache(bench.model, limit), (sampler, "simple", steps), target)
                 for sampler in PLAIN[:2] for steps, limit in CACHED]
    rows += [bench.row("CFG interval", bench.interval, (sampler, "simple", 20), target, interval)
             for sampler in PLAIN[:2]]
    for name, cache in (("EasyCache", bench.easy), ("LazyCache", bench.lazy)):
        rows += [bench.row(f"S4S under {name} 0.2", bench.named(cache(bench.model, 0.2)), ("s4s", "s4s", calls), target)
                 for calls in CALLS[1:]]
    rows += [bench.row("S4S in a CFG interval", bench.named(bench.interval), ("s4s", "s4s", calls), target, interval)
             for calls in CALLS[1:]]
    bench.use(bench.train(bench.interval, "emoji-interval", CALLS[1:2], work))
    return [*rows, bench.row("S4S trained in the interval", bench.interval, ("s4s", "s4s", CALLS[1]), target, interval)]


def full_size() -> None:
    """Seconds on a network of full size, by the host's KSampler at cfg 7 on latents of 16 x 16."""
    import comfy.supported_models
    import comfy_extras.nodes_easycache as caches
    import nodes
    from comfy.model_patcher import ModelPatcher
    cpu, count = torch.device("cpu"), [0]
    with torch.inference_mode():
        torch.manual_seed(0)
        config = comfy.supported_models.SD15(SD15)
        config.set_inference_dtype(torch.float32, None)
        model = config.get_model({}, "", device="cpu").eval()
        for module in model.diffusion_model.modules():
            for name, weight in module.named_parameters(recurse=False):
                torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5) if weight.ndim > 1 else weight.fill_(
                    float(name == "weight"))
        prompts = [[[torch.randn(1, 77, 768), {}]] for _ in range(2)]
    model.diffusion_model.middle_block[0].register_forward_pre_hook(
        lambda module, given: count.__setitem__(0, count[0] + len(given[0])))
    plain = ModelPatcher(model, cpu, cpu)
    cached = caches.EasyCacheNode.execute(plain, 0.2, 0.15, 0.95, False)[0]
    print(f"{sum(weight.numel() for weight in model.diffusion_model.parameters()):,} weights")
    for patcher, *sampler in ((plain, "euler", "simple", 1), (plain, "s4s", "s4s", 6), (plain, "euler", "simple", 6),
                              (plain, "dpmpp_2m", "simple", 20), (cached, "dpmpp_2m", "simple", 20)):
        count[0], began = 0, time.process_time()
        with torch.inference_mode():
            nodes.common_ksampler(patcher, 1, sampler[2], 7.0, *sampler[:2], *prompts,
                                  {"samples": torch.zeros(1, 4, 16, 16)})
        seconds = time.process_time() - began
        print(*sampler, "EasyCache 0.2" * (patcher is cached), f"{count[0]} evaluations, {seconds:.2f} s", flush=True)


def page(rows: list[dict]) -> str:
    """The table as Markdown."""
    one = next(row["seconds"] for row in rows if row["what"] == "S4S" and row["steps"] == 6)
    lines = ["| what | sampler, scheduler | steps | evaluations an image | time | RMSE | median image "
             "| Fréchet distance | median to the interval's own teacher |", "|---|" + "---|" * 8]
    for row in rows:
        own = f"{row['own']:.4f}" if "own" in row else ""
        same_noise = not row["sampler"].startswith(STOCHASTIC) and row["what"] != OTHER_NOISE
        off = f"{row['rmse']:.4f} | {row['median']:.4f}" if same_noise else "| "
        lines.append(f"| {row['what']} | {row['sampler']} | {row['steps']} | {row['evaluations']:.1f} "
                     f"| {row['seconds'] / one:.2f} | {off} | {row['frechet']:.5f} "
                     f"| {own} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=ROOT / "runs/equal", help="of the presets and the rows")
    parser.add_argument("--write", action="store_true", help="write the table into docs/equal-seconds.md")
    parser.add_argument("--full", action="store_true", help="only the seconds on a network of full size")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {0})
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    base = s4s_host.make_base(Path(tempfile.mkdtemp(prefix="s4s-equal-")))
    try:
        emoji_race.add_emoji(base)
        s4s_host.start(base)
        if options.full:
            return full_size()
        rows = rows_of(Bench(base), work)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    print(page(rows))
    if options.write:
        place = ROOT / "docs/equal-seconds.md"
        place.write_text(placed(place.read_text(), MARKS, page(rows)))


if __name__ == "__main__":
    main()
