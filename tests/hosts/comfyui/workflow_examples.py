"""What the example workflows hold: nodes with their inputs, in groups of columns from left to right, and notes.

`python workflow_files.py http://127.0.0.1:8188` writes them as the browser's files into example_workflows/.
"""

from dataclasses import dataclass

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
CFG = 5.0                   # what S4S Train Preset learns at unless told otherwise
CALLS = 6


@dataclass(frozen=True)
class Example:
    """nodes: key -> (class, inputs), an input being a value or (key, number of the output).

    groups: (title, columns of keys) from left to right; without a title no frame is drawn.
    """

    nodes: dict
    groups: list


def note(text: str) -> tuple:
    """A note on the canvas; the browser's own node, unknown to the server."""
    return "MarkdownNote", {"text": text}


FOX = "photograph of a red fox in the snow, soft morning light"


def checkpoint(positive: str = FOX, name: str = CHECKPOINT) -> dict:
    """A checkpoint with its own text encoders, Stable Diffusion 1.5 unless named, and two prompts."""
    return {"checkpoint": ("CheckpointLoaderSimple", {"ckpt_name": name}),
            "positive": ("CLIPTextEncode", {"text": positive, "clip": ("checkpoint", 1)}),
            "negative": ("CLIPTextEncode", {"text": "blurry, low quality", "clip": ("checkpoint", 1)})}


def empty(size: int = 512) -> dict:
    return {"latent": ("EmptyLatentImage", {"width": size, "height": size, "batch_size": 1})}


def of_files(unet: str, shift: tuple, clip: tuple, vae: str, positive: str, negative: str) -> dict:
    """A flow in a file for each part, and two prompts; shift: (node, value), clip: (file, type)."""
    (sampling, value), (encoder, kind) = shift, clip
    return {"model": ("UNETLoader", {"unet_name": f"{unet}.safetensors", "weight_dtype": "default"}),
            "checkpoint": (sampling, {"model": ("model", 0), "shift": value}),
            "clip": ("CLIPLoader", {"clip_name": f"{encoder}.safetensors", "type": kind, "device": "default"}),
            "vae": ("VAELoader", {"vae_name": f"{vae}.safetensors"}),
            "positive": ("CLIPTextEncode", {"text": positive, "clip": ("clip", 0)}),
            "negative": ("CLIPTextEncode", {"text": negative, "clip": ("clip", 0)})}


def ksampler(latent: str = "latent", denoise: float = 1.0, cfg: float = CFG) -> dict:
    """A plain KSampler on the two dropdown rows."""
    return {"sampler": ("KSampler", {
        "model": ("checkpoint", 0), "seed": 1, "steps": CALLS, "cfg": cfg, "sampler_name": "s4s", "scheduler": "s4s",
        "positive": ("positive", 0), "negative": ("negative", 0), "latent_image": (latent, 0), "denoise": denoise})}


def saved(name: str, latent: str = "sampler", vae: tuple = ("checkpoint", 2), told: bool = True) -> dict:
    """Decoded and saved, with S4S Image Info on the way where its words are wanted."""
    nodes = {"decode": ("VAEDecode", {"samples": (latent, 0), "vae": vae})}
    if told:
        nodes |= {"info": ("S4SImageInfo", {"images": ("decode", 0)}), "words": shown(("info", 1))}
    images = ("info", 0) if told else ("decode", 0)
    return nodes | {"save": ("SaveImage", {"images": images, "filename_prefix": f"S4S/{name}"})}


def shown(text: tuple) -> tuple:
    return "PreviewAny", {"source": text}


def trained(cfg: float, name: str, **more) -> tuple:
    """S4S Train Preset on the checkpoint, under a name."""
    return "S4STrainPreset", {
        "model": ("checkpoint", 0), "positive": ("positive", 0), "latent": ("latent", 0), "cfg": f"{cfg:g}",
        "calls": str(CALLS), "windows": "1.0", "mode": "auto", "budget": "normal", "teacher_calls": 50, "race_seeds": 8,
        "name": name, "seed": 0, "resume": True, "negative": ("negative", 0), **more, "vae": ("checkpoint", 2)}


def loaded(picture: str = "example.png") -> tuple:
    return "LoadImage", {"image": picture}


TEXT_TO_IMAGE = Example(
    {"note": note("## Text to image in 6 calls\n\n"
                  "A plain **KSampler** with sampler `s4s` **and** scheduler `s4s`. The preset for the loaded "
                  "model, this number of steps and this denoise is selected automatically. The log and the saved "
                  "image say which one ran.\n\n"
                  "**No preset for your checkpoint yet?** Then a classical solver runs, and the node says *S4S "
                  "fallback*. Open the example *s4s_train* and train one.\n\n"
                  "* **steps**: one of the numbers of calls that the preset has tables for\n"
                  "* **cfg**: the one it was learned at"),
     **checkpoint(), **empty(), **ksampler(), **saved("text_to_image", told=False)},
    [("", [["note"]]), ("Model and prompts", [["checkpoint", "latent"], ["positive", "negative"]]),
     ("Sampler s4s, scheduler s4s", [["sampler"]]), ("Image", [["decode", "save"]])])

CUSTOM = Example(
    {"note": note("## Custom sampling\n\n"
                  "**S4S Preset** passes a preset's SAMPLER and SIGMAS to SamplerCustomAdvanced, and the cfg it "
                  "was learned at to the guider.\n\n"
                  "* **auto** selects the preset for the connected MODEL; if there is none, the node stops with a "
                  "message\n"
                  "* **strict** refuses to sample if no learned table fits, instead of falling back to a classical "
                  "solver\n"
                  "* its picture shows the noise levels, the coefficients and the scores of the table"),
     **checkpoint(), **empty(),
     "preset": ("S4SPreset", {"preset": "auto", "calls": CALLS, "denoise": 1.0, "strict": False,
                              "model": ("checkpoint", 0)}),
     "text": shown(("preset", 5)),
     "noise": ("RandomNoise", {"noise_seed": 1}),
     "guider": ("CFGGuider", {"model": ("checkpoint", 0), "positive": ("positive", 0), "negative": ("negative", 0),
                              "cfg": ("preset", 4)}),
     "sampler": ("SamplerCustomAdvanced", {"noise": ("noise", 0), "guider": ("guider", 0), "sampler": ("preset", 1),
                                           "sigmas": ("preset", 2), "latent_image": ("latent", 0)}),
     **saved("custom_sampling", told=False)},
    [("", [["note"]]), ("Model and prompts", [["checkpoint", "latent"], ["positive", "negative"]]),
     ("The preset", [["preset", "text"]]), ("Sampling", [["noise", "guider", "sampler"]]),
     ("Image", [["decode", "save"]])])

FLUX = Example(
    {"note": note("## Flux and other models with built-in guidance\n\n"
                  "This is like *s4s_custom_sampling*, with **BasicGuider**: there is no negative prompt, and the "
                  "model reads the guidance as a number.\n\n"
                  "Train the preset on a MODEL and a prompt from the same nodes: **FluxGuidance** in front of the "
                  "Train node's positive, its cfg 1, its negative unconnected."),
     "model": ("UNETLoader", {"unet_name": "flux1-dev.safetensors", "weight_dtype": "default"}),
     "clip": ("DualCLIPLoader", {"clip_name1": "clip_l.safetensors", "clip_name2": "t5xxl_fp16.safetensors",
                                 "type": "flux", "device": "default"}),
     "vae": ("VAELoader", {"vae_name": "ae.safetensors"}),
     "positive": ("CLIPTextEncode", {"text": FOX, "clip": ("clip", 0)}),
     "guidance": ("FluxGuidance", {"conditioning": ("positive", 0), "guidance": 3.5}),
     "latent": ("EmptySD3LatentImage", {"width": 1024, "height": 1024, "batch_size": 1}),
     "preset": ("S4SPreset", {"preset": "auto", "calls": CALLS, "denoise": 1.0, "strict": False,
                              "model": ("model", 0)}),
     "text": shown(("preset", 5)),
     "noise": ("RandomNoise", {"noise_seed": 1}),
     "guider": ("BasicGuider", {"model": ("model", 0), "conditioning": ("guidance", 0)}),
     "sampler": ("SamplerCustomAdvanced", {"noise": ("noise", 0), "guider": ("guider", 0), "sampler": ("preset", 1),
                                           "sigmas": ("preset", 2), "latent_image": ("latent", 0)}),
     **saved("flux", vae=("vae", 0), told=False)},
    [("", [["note"]]), ("Model and prompt", [["model", "clip", "vae"], ["positive", "guidance", "latent"]]),
     ("The preset", [["preset", "text"]]), ("Sampling", [["noise", "guider", "sampler"]]),
     ("Image", [["decode", "save"]])])

SDXL = Example(
    {"note": note("## SDXL, Illustrious, NoobAI and Pony in 6 calls\n\n"
                  "A plain **KSampler** with sampler `s4s` **and** scheduler `s4s`. Until you have trained a "
                  "preset for your checkpoint, the published *Align Your Steps* levels for SDXL run, and the node "
                  "says *S4S fallback*.\n\n"
                  "* choose your own checkpoint; v-prediction models with zero terminal SNR are recognized\n"
                  "* train at the **size** and **cfg** you use: a preset runs on half to twice its area, and within "
                  "10 % of its cfg"),
     **checkpoint(name="sd_xl_base_1.0.safetensors"), **empty(1024), **ksampler(), **saved("sdxl", told=False)},
    [("", [["note"]]), ("Model and prompts", [["checkpoint", "latent"], ["positive", "negative"]]),
     ("Sampler s4s, scheduler s4s", [["sampler"]]), ("Image", [["decode", "save"]])])

SD3 = Example(
    {"note": note("## SD3 and SD3.5 in 6 calls\n\n"
                  "A plain **KSampler** with sampler `s4s` **and** scheduler `s4s`. Until you have trained a "
                  "preset for your checkpoint, Euler runs on an even schedule with the model's own shift, as in "
                  "the official workflow, and the node says *S4S fallback*.\n\n"
                  "**ModelSamplingSD3** changes the shift of the fallback. A preset brings its own levels."),
     **checkpoint(name="sd3.5_large_fp8_scaled.safetensors"),
     "latent": ("EmptySD3LatentImage", {"width": 1024, "height": 1024, "batch_size": 1}), **ksampler(),
     **saved("sd3", told=False)},
    [("", [["note"]]), ("Model and prompts", [["checkpoint", "latent"], ["positive", "negative"]]),
     ("Sampler s4s, scheduler s4s", [["sampler"]]), ("Image", [["decode", "save"]])])

Z_IMAGE = Example(
    {"note": note("## Z-Image in 6 calls\n\n"
                  "A plain **KSampler** with sampler `s4s` **and** scheduler `s4s`. Until you have trained a "
                  "preset for your model, RES multistep runs on an even schedule with the model's own shift, as "
                  "in the official workflow, and the node says *S4S fallback*.\n\n"
                  "This is Z-Image with cfg. For **Z-Image-Turbo** set the cfg to 1, and train its preset with the "
                  "Turbo's own sampler as the teacher: connect **teacher_sampler** and **teacher_sigmas** of *S4S "
                  "Train Preset*."),
     **of_files("z_image_bf16", ("ModelSamplingAuraFlow", 3.0), ("qwen_3_4b", "lumina2"), "ae", FOX, ""),
     "latent": SD3.nodes["latent"], **ksampler(cfg=4.0), **saved("z_image", vae=("vae", 0), told=False)},
    [("", [["note"]]), ("Model and prompts", [["model", "checkpoint", "clip", "vae"],
                                              ["positive", "negative", "latent"]]),
     ("Sampler s4s, scheduler s4s", [["sampler"]]), ("Image", [["decode", "save"]])])

WAN = Example(
    {"note": note("## Wan 2.1 text to video in 6 calls\n\n"
                  "A plain **KSampler** with sampler `s4s` **and** scheduler `s4s` on one Wan model. Until you "
                  "have trained a preset for it, UniPC runs with the model's own shift, as in the official "
                  "workflow, and the node says *S4S fallback*.\n\n"
                  "Train on short, small videos of the kind you make: a preset runs on half to twice the area of a "
                  "frame, whatever the length. For the two experts of Wan 2.2 14B open *s4s_wan22*."),
     **of_files("wan2.1_t2v_1.3B_fp16", ("ModelSamplingSD3", 8.0), ("umt5_xxl_fp8_e4m3fn_scaled", "wan"), "wan_2.1_vae",
                "a red fox trots through the snow, soft morning light", "blurry, still, low quality"),
     "latent": ("EmptyHunyuanLatentVideo", {"width": 832, "height": 480, "length": 33, "batch_size": 1}),
     **ksampler(),
     "decode": ("VAEDecode", {"samples": ("sampler", 0), "vae": ("vae", 0)}),
     "save": ("SaveAnimatedWEBP", {"images": ("decode", 0), "filename_prefix": "S4S/wan", "fps": 16.0,
                                   "lossless": False, "quality": 90, "method": "default"})},
    [("", [["note"]]), ("Model and prompts", [["model", "checkpoint", "clip", "vae"],
                                              ["positive", "negative", "latent"]]),
     ("Sampler s4s, scheduler s4s", [["sampler"]]), ("Video", [["decode", "save"]])])

WAN_CFG, TURN = 3.5, 4          # of 6 calls with shift 8, until a preset says another: the first level below 0.875


def expert(noise: str) -> dict:
    """One of the two experts of Wan 2.2 14B for text to video, with its shift."""
    file = f"wan2.2_t2v_{noise}_noise_14B_fp8_scaled.safetensors"
    return {noise: ("UNETLoader", {"unet_name": file, "weight_dtype": "default"}),
            f"{noise}_shifted": ("ModelSamplingSD3", {"model": (noise, 0), "shift": 8.0})}


def half(noise: str, latent: str, first: bool) -> tuple:
    """KSamplerAdvanced for one expert's steps, on the two dropdown rows."""
    switch = "enable" if first else "disable"
    return "KSamplerAdvanced", {
        "model": (f"{noise}_shifted", 0), "add_noise": switch, "noise_seed": 1, "steps": CALLS, "cfg": WAN_CFG,
        "sampler_name": "s4s", "scheduler": "s4s", "positive": ("positive", 0), "negative": ("negative", 0),
        "latent_image": (latent, 0), "start_at_step": 0 if first else TURN, "end_at_step": TURN if first else 10000,
        "return_with_leftover_noise": switch}


BOTH = {**expert("high"), **expert("low"),
        **{key: WAN.nodes[key] for key in ("clip", "vae", "positive", "negative", "latent")}}
BOTH_GROUP = ("Both experts and prompts", [["high", "high_shifted", "low", "low_shifted"], ["clip", "vae", "latent"],
                                           ["positive", "negative"]])

WAN22 = Example(
    {"note": note("## Wan 2.2 14B text to video in 6 calls\n\n"
                  "Two experts take turns: **two KSamplerAdvanced**, both with sampler `s4s` **and** scheduler "
                  "`s4s`. Train one preset for both with the example *s4s_wan22_train*.\n\n"
                  "* **end_at_step** of the first and **start_at_step** of the second: the step that the training's "
                  "report names. At any other step both fall back to a classical solver, and the log says which "
                  "step is right\n"
                  "* **steps** are the same in both: all calls together\n"
                  "* the first returns with leftover noise, the second adds none\n"
                  "* if you change a model or a LoRA, the preset is no longer for the two: train again"),
     **BOTH, "first": half("high", "latent", True), "second": half("low", "first", False),
     "decode": ("VAEDecode", {"samples": ("second", 0), "vae": ("vae", 0)}),
     "save": ("SaveAnimatedWEBP", {"images": ("decode", 0), "filename_prefix": "S4S/wan22", "fps": 16.0,
                                   "lossless": False, "quality": 90, "method": "default"})},
    [("", [["note"]]), BOTH_GROUP, ("High noise, then low noise", [["first"], ["second"]]),
     ("Video", [["decode", "save"]])])

WAN22_TRAIN = Example(
    {"note": note("## One preset for both experts of Wan 2.2 14B\n\n"
                  "1. Connect both experts as you sample them, with their LoRAs and shift.\n"
                  "2. **boundary**: 0.875 for text to video, 0.9 for image to video. **low_noise_cfg**: 0 for the "
                  "same cfg in both.\n"
                  "3. Use a small, short latent: a training makes about 10,000 network calls. *only estimate* shows "
                  "how long that takes.\n"
                  "4. The report names the step at which the models change. Use it in the example *s4s_wan22*."),
     **BOTH, "latent": ("EmptyHunyuanLatentVideo", {"width": 416, "height": 240, "length": 17, "batch_size": 1}),
     "train": ("S4STrainPreset", {**trained(WAN_CFG, "my-wan22")[1], "model": ("high_shifted", 0), "vae": ("vae", 0),
                                  "low_noise_model": ("low_shifted", 0)}),
     "report": shown(("train", 1)), "tables": ("PreviewImage", {"images": ("train", 2)}),
     "sheet": ("PreviewImage", {"images": ("train", 3)})},
    [("", [["note"]]), BOTH_GROUP, ("Training", [["train"]]), ("What was learned", [["report", "tables"], ["sheet"]])])

IMAGE_TO_IMAGE = Example(
    {"note": note("## Image to image, denoise 0.6\n\n"
                  "Sampling that starts part of the way needs its own table: train the preset with **windows** "
                  "`1.0,0.6`. S4S finds the table by the noise level where sampling starts, so a denoise near 0.6 "
                  "uses it too, moved a little.\n\n"
                  "Without such a table a classical solver runs on the preset's levels. **S4S Image Info** says which "
                  "of the two made the image."),
     **checkpoint("oil painting of a red fox in the snow"),
     "picture": loaded(),
     "scaled": ("ImageScale", {"image": ("picture", 0), "upscale_method": "lanczos", "width": 512, "height": 512,
                               "crop": "center"}),
     "encode": ("VAEEncode", {"pixels": ("scaled", 0), "vae": ("checkpoint", 2)}),
     **ksampler("encode", 0.6), **saved("image_to_image")},
    [("", [["note"]]), ("Model and prompts", [["checkpoint", "positive", "negative"]]),
     ("The image to start from", [["picture", "scaled", "encode"]]), ("Sampler s4s, scheduler s4s", [["sampler"]]),
     ("Image, and what made it", [["decode", "info", "words"], ["save"]])])

INPAINT = Example(
    {"note": note("## Inpainting\n\n"
                  "Right-click **Load Image**, choose *Open in MaskEditor*, and paint over what you want to "
                  "replace.\n\n"
                  "**VAE Encode (for Inpainting)** empties the painted region, so denoise stays 1 and the "
                  "preset's table for text to image is the right one. The rest of the latent stays exactly as it "
                  "was.\n\n"
                  "To keep something of the old content, use *VAE Encode* and *Set Latent Noise Mask* with a denoise "
                  "below 1, and a preset with a table for that window (see *s4s_image_to_image*)."),
     **checkpoint(), "picture": loaded(),
     "encode": ("VAEEncodeForInpaint", {"pixels": ("picture", 0), "vae": ("checkpoint", 2), "mask": ("picture", 1),
                                        "grow_mask_by": 6}),
     **ksampler("encode"), **saved("inpaint")},
    [("", [["note"]]), ("Model and prompts", [["checkpoint", "positive", "negative"]]),
     ("The image and its mask", [["picture", "encode"]]), ("Sampler s4s, scheduler s4s", [["sampler"]]),
     ("Image, and what made it", [["decode", "info", "words"], ["save"]])])

TRAIN = Example(
    {"note": note("## Train a preset for your checkpoint\n\n"
                  "1. Choose the checkpoint you sample with; put your LoRAs between it and the Train node.\n"
                  "2. Write prompts typical of what you make, at your usual size and **cfg**.\n"
                  "3. **calls**: the numbers of steps you want, e.g. `4,6,8`. **windows**: add `0.6` for image to "
                  "image. Each combination of the two costs one budget; *only estimate* shows how long each takes.\n"
                  "4. Queue. The node shows the time left, how many times closer it is than the best baseline, "
                  "and images as they get better. If you cancel, the best tables so far are kept; queue again to "
                  "resume.\n\n"
                  "Then use sampler `s4s` and scheduler `s4s` in any KSampler."),
     **checkpoint(),
     "positive_2": ("CLIPTextEncode", {"text": "portrait of an old sailor, film grain", "clip": ("checkpoint", 1)}),
     **empty(),
     "train": trained(CFG, "my-sd15", positive_2=("positive_2", 0)),
     "report": shown(("train", 1)), "tables": ("PreviewImage", {"images": ("train", 2)}),
     "sheet": ("PreviewImage", {"images": ("train", 3)})},
    [("", [["note"]]), ("What you sample", [["checkpoint", "latent"], ["positive", "positive_2", "negative"]]),
     ("Training", [["train"]]), ("What was learned", [["report", "tables"], ["sheet"]])])

SEVERAL_CFG = Example(
    {"note": note("## One preset for a range of cfg\n\n"
                  "A preset belongs to the cfg it was learned at. Here two are learned, at 4 and at 6. **S4S Join "
                  "Presets** makes one of them, and **S4S Save Preset** keeps it as *my-sd15 cfg 4 to 6*.\n\n"
                  "A KSampler with sampler `s4s` and scheduler `s4s` then runs the table for its own cfg. Between "
                  "the two it interpolates; outside them it runs the nearest.\n\n"
                  "* choose two cfg about 2 apart, around the one you use; you can add a third and a fourth\n"
                  "* everything else is the same for all: model, prompts, size, calls\n"
                  "* to join presets that you already have, use **S4S Load Preset** instead of the Train nodes"),
     **checkpoint(), **empty(), "low": trained(CFG - 1, "my-sd15 cfg 4"), "high": trained(CFG + 1, "my-sd15 cfg 6"),
     "join": ("S4SJoinPresets", {"preset": ("low", 0), "preset_2": ("high", 0), "name": "my-sd15 cfg 4 to 6"}),
     "keep": ("S4SSavePreset", {"preset": ("join", 0), "name": "", "overwrite": False}),
     "words": shown(("join", 1))},
    [("", [["note"]]), ("What you sample", [["checkpoint", "latent"], ["positive", "negative"]]),
     ("Learned at two cfg", [["low"], ["high"]]), ("Joined and saved", [["join", "keep", "words"]])])

RACE = Example(
    {"note": note("## Race a preset on your model\n\n"
                  "All samplers get the same unseen seeds and the same number of calls: how far is each from what "
                  "the model makes in 50 calls or more? All classical samplers on all schedules take part.\n\n"
                  "* **seeds**: more give firmer numbers\n"
                  "* **samplers**: more samplers to race, by their ComfyUI names, or all\n"
                  "* **budget**: the most network calls to spend; a larger one finds the best sampler more reliably\n"
                  "* **write_scores** writes the result into the preset's file; a table that loses is no longer "
                  "selected automatically"),
     **checkpoint(), **empty(),
     "preset": ("S4SPreset", {"preset": "auto", "calls": CALLS, "denoise": 1.0, "strict": False,
                              "model": ("checkpoint", 0)}),
     "race": ("S4SRace", {
         "model": ("checkpoint", 0), "positive": ("positive", 0), "latent": ("latent", 0), "cfg": ("preset", 4),
         "preset": ("preset", 0), "calls": "", "seeds": 16, "seed": 0, "samplers": "", "budget": 20000,
         "teacher_calls": 50, "write_scores": False, "negative": ("negative", 0), "vae": ("checkpoint", 2)}),
     "report": shown(("race", 1)), "sheet": ("PreviewImage", {"images": ("race", 2)})},
    [("", [["note"]]), ("Model and prompts", [["checkpoint", "latent"], ["positive", "negative"]]),
     ("The preset", [["preset"]]), ("Race", [["race"]]), ("Result", [["report", "sheet"]])])

EXAMPLES = {"s4s_text_to_image": TEXT_TO_IMAGE, "s4s_custom_sampling": CUSTOM, "s4s_flux": FLUX, "s4s_sdxl": SDXL,
            "s4s_sd3": SD3, "s4s_z_image": Z_IMAGE, "s4s_wan": WAN, "s4s_wan22": WAN22, "s4s_wan22_train": WAN22_TRAIN,
            "s4s_image_to_image": IMAGE_TO_IMAGE, "s4s_inpaint": INPAINT, "s4s_train": TRAIN,
            "s4s_several_cfg": SEVERAL_CFG, "s4s_race": RACE}
