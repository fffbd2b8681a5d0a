"""The pictures of docs/comfyui.md, shot in ComfyUI's page: see tests/hosts/pictures.py."""

import io
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import TimeoutError

from tests.hosts.pictures import IMAGES, clip_of, save, until

sys.path[:0] = [str(Path(__file__).parent)]
import emoji_race  # noqa: E402
import s4s_client  # noqa: E402
import s4s_host  # noqa: E402
from emoji_race import node  # noqa: E402

LEFT, TOP, RIGHT, MARGIN = 80, 120, 400, 14         # where a graph stands in the page, clear of the host's own panels
SETTINGS = {"Comfy.Minimap.Visible": False, "Comfy.Graph.CanvasInfo": False, "Comfy.Graph.CanvasMenu": False,
            "Comfy.NodeBadge.NodeSourceBadgeMode": "None"}
HELPERS = """
window.shots = {
  async settings(all) {
    for (const [name, value] of Object.entries(all)) await app.extensionManager.setting.set(name, value);
  },
  arrange(places) {
    for (const [id, [x, y, width, height, title]] of Object.entries(places)) {
      const node = app.graph.getNodeById(id);
      node.pos = [x, y];
      node.flags.collapsed = !width;
      if (width) node.setSize([width, height]);
      if (title) node.title = title;
      for (const widget of node.widgets ?? []) if (widget.value === "randomize") widget.value = "fixed";
    }
  },
  box(ids) {
    const nodes = ids.map((id) => app.graph.getNodeById(id)).filter((node) => !node.flags.collapsed);
    const [x, y] = [0, 1].map((i) => Math.min(...nodes.map((node) => node.pos[i] - 30 * i)));
    return [x, y, ...[0, 1].map((i) => Math.max(...nodes.map((node) => node.pos[i] + node.size[i])) - [x, y][i])];
  },
  look(x, y, left, top, scale) {
    const { ds, canvas } = app.canvas, page = canvas.getBoundingClientRect();
    app.canvas.deselectAll();
    ds.scale = scale;
    ds.offset = [(left - page.x) / scale - x, (top - page.y) / scale - y];
    app.canvas.setDirty(true, true);
  },
  place(id, x, y) { // of a point in a node on the page
    const { ds, canvas } = app.canvas, page = canvas.getBoundingClientRect(), { pos } = app.graph.getNodeById(id);
    return [page.x + (pos[0] + x + ds.offset[0]) * ds.scale, page.y + (pos[1] + y + ds.offset[1]) * ds.scale];
  },
  widget: (id, name) => app.graph.getNodeById(id).widgets.find((widget) => widget.name === name),
};"""


class Graph:
    """ComfyUI's page, and what is done in it."""

    def __init__(self, page, server):
        self.page, self.server = page, server
        page.goto(server.url)
        page.wait_for_function("!!window.app?.graph && !!LiteGraph.registered_node_types.S4STrainPreset")
        page.wait_for_timeout(6000)                 # by then the templates are open
        page.evaluate(HELPERS)
        page.evaluate("(all) => shots.settings(all)", SETTINGS)

    def load(self, prompt: dict, places: dict) -> None:
        """A prompt as nodes {id: (x, y, width, height[, title])}; a node of no width is collapsed."""
        self.page.evaluate("(prompt) => app.loadApiJson(prompt, 'S4S')", prompt)
        self.page.wait_for_timeout(1500)
        self.page.evaluate("(places) => shots.arrange(places)", places)
        self.page.wait_for_timeout(500)

    def look(self, ids, scale: float = 1.0, frame: tuple = (), below: int = 0) -> dict:
        """Bring these nodes into view, or what is below so many pixels of them; where they are on the page.

        frame: width and height of what is shown, with the nodes in its middle.
        """
        x, y, width, height = self.page.evaluate("(ids) => shots.box(ids)", list(ids))
        y, wide, high = y + below, *(frame or (round(width * scale) + 2 * MARGIN, round(height * scale) + 2 * MARGIN))
        size = {"width": wide, "height": high}
        self.page.set_viewport_size({"width": LEFT + size["width"] + RIGHT, "height": TOP + size["height"]})
        self.page.wait_for_timeout(300)
        left = LEFT + (wide - width * scale) / 2
        self.page.evaluate("(all) => shots.look(...all)", [x, y, left, TOP + MARGIN, scale])
        self.page.mouse.move(LEFT + size["width"] + RIGHT // 2, TOP + 100)
        self.page.wait_for_timeout(500)
        return {"x": LEFT, "y": TOP, **size}

    def shoot(self, name: str, ids, scale: float = 1.0) -> None:
        save(name, self.page.screenshot(clip=self.look(ids, scale)))

    def run(self, meanwhile=lambda: None, seconds: float = 1800) -> None:
        """Queue the graph and wait for its end; meanwhile() is called over and over."""
        before, end = len(self.server.get("/history")), time.monotonic() + seconds
        self.page.evaluate("() => app.queuePrompt(0)")
        while len(self.server.get("/history")) == before and time.monotonic() < end:
            self.page.wait_for_timeout(500)
            meanwhile()
        self.page.wait_for_timeout(8000)            # by then "Job completed" is gone

    def click(self, id_: str, x: float, y: float, button: str = "left") -> None:
        self.page.mouse.click(*self.page.evaluate("(all) => shots.place(...all)", [id_, x, y]), button=button)
        self.page.wait_for_timeout(700)


def shoot(page, base: Path, taesd: Path) -> None:
    """All pictures of docs/comfyui.md, beginning with a training whose preset the others use."""
    s4s_host.PACK = "s4s-sampler"
    emoji_race.add_emoji(s4s_host.make_base(base), taesd)
    server = s4s_client.Server(base, "--preview-method", "taesd")
    try:
        server.wait()
        graph = Graph(page, server)
        templates(page)
        frames = train(graph)
        custom(graph)
        race(graph)
        film([*frames, *sample(graph)])
        dropdown_and_menu(graph)
        blueprints(graph)
    finally:
        server.stop()


def templates(page) -> None:
    page.set_viewport_size({"width": 1500, "height": 1680})
    page.get_by_text("s4s-sampler", exact=True).first.click()
    page.wait_for_timeout(4000)
    save("comfyui-templates.webp", page.locator("[role=dialog]").last.screenshot())
    page.keyboard.press("Escape")
    page.wait_for_timeout(800)


def search(page, words: str) -> None:
    """Open the search of nodes, anew if it is open, and type the words."""
    page.keyboard.press("Escape")
    page.mouse.dblclick(1300, 700)
    with suppress(TimeoutError):                    # typed into the page itself, an "n" opens a panel
        page.locator("[role=dialog] input").last.fill(words, timeout=10_000)


def blueprints(graph: Graph) -> None:
    """The search for one, and all three on the canvas."""
    page = graph.page
    page.set_viewport_size({"width": 1500, "height": 850})
    page.evaluate("() => app.graph.clear()")
    for number, name in enumerate(("sampler", "train", "race")):
        found = page.get_by_test_id("result-item").filter(has_text="Blueprint").filter(has_text=f"S4S {name}").first
        until(found, partial(search, page, f"S4S {name}"))
        if name == "sampler":
            clip = clip_of(page, "[role=dialog]", "[data-testid=node-preview-card]", margin=0)
            save("comfyui-blueprint.png", page.screenshot(clip=clip))
        found.click()
        found.wait_for(state="hidden")
        page.wait_for_timeout(800)
        page.mouse.click(300, 300)
        page.wait_for_function("(before) => app.graph._nodes.length > before", arg=number)
    ids = page.evaluate("() => app.graph._nodes.map((node) => node.id)")
    page.evaluate("(places) => shots.arrange(places)", {id_: (330 * i, 0, 300, 230) for i, id_ in enumerate(ids)})
    graph.shoot("comfyui-blueprints.webp", ids)


FRAME = (960, 690)
COMPARED = (("Euler, 5 steps", "euler", "simple", 5), ("S4S, 5 steps", "s4s", "s4s", 5),
            ("Euler, 50 steps", "euler", "simple", 50))
SOURCES = {"model": (0, 0, 240, 98), "vae": (0, 140, 240, 58), "latent": (0, 240, 240, 106),
           "none": (0, 388, 240, 58, "Negative")}


def sources(words, **more) -> dict:
    """The places of what feeds a node: loaders, and a column of prompts below."""
    return SOURCES | {f"emoji_{word}": (0, 488 + 100 * i, 240, 58, "Prompt") for i, word in enumerate(words)} | more


def train(graph: Graph) -> list:
    """Pictures of a training, of its result and its report; the film's frames (screenshot, words, milliseconds)."""
    frames, still, words = [], [True], "ComfyUI, S4S Train Preset on a small emoji model (sped up)"
    prompt = emoji_race.training("normal") | {"vae": node("VAELoader", vae_name="taesd3")}
    prompt["train"]["inputs"] |= {"vae": ["vae", 0], "cfg": "2", "race_seeds": 16}
    graph.load(prompt, places := sources(emoji_race.LEARNED_ON, train=(310, 0, 560, 980)))
    whole = graph.look(places, 0.66, FRAME)

    def filmed():
        frames.append(graph.page.screenshot(clip=whole))
        graph.page.wait_for_timeout(2000)
        if still and graph.page.evaluate("() => app.graph.getNodeById('train').progress > 0.85"):
            graph.shoot("comfyui-training.png", places)
            graph.look(places, 0.66, FRAME)
            still.clear()
    graph.run(filmed)
    frames.append(graph.page.screenshot(clip=graph.look(places, 0.92, FRAME, below=650)))
    graph.shoot("comfyui-trained.png", ["train"])
    with graph.page.expect_popup() as report:
        graph.page.evaluate("() => shots.widget('train', 'open report').callback()")
    report.value.set_viewport_size({"width": 1100, "height": 1010})
    report.value.wait_for_timeout(1500)
    save("comfyui-report.png", report.value.screenshot())
    report.value.close()
    few = frames[:-1:max(1, len(frames) // 25)]
    return [*((frame, words, 260) for frame in few), (frames[-1], words, 4000)]


def large(decoded: str) -> dict:
    """A node that makes an image as large as the preview of it is drawn."""
    return node("ImageScale", image=[decoded, 0], upscale_method="lanczos", width=256, height=256, crop="disabled")


def custom(graph: Graph) -> None:
    graph.load(emoji_race.model(4) | {
        "vae": node("VAELoader", vae_name="taesd3"), "emoji_cat": node("TestEmoji", emoji="cat"),
        "preset": node("S4SPreset", model=["model", 0], preset="auto", calls=5, denoise=1.0, strict=True),
        "noise": node("RandomNoise", noise_seed=7),
        "guider": node("CFGGuider", model=["model", 0], positive=["emoji_cat", 0], negative=["none", 0],
                       cfg=["preset", 4]),
        "sampler": node("SamplerCustomAdvanced", noise=["noise", 0], guider=["guider", 0], sampler=["preset", 1],
                        sigmas=["preset", 2], latent_image=["latent", 0]),
        "decoded": node("VAEDecode", samples=["sampler", 0], vae=["vae", 0]),
        "large": large("decoded"),
        "image": node("PreviewImage", images=["large", 0])},
        places := sources(["cat"], preset=(280, 0, 380, 720), noise=(700, 0, 260, 82), guider=(700, 130, 260, 98),
                          sampler=(700, 280, 260, 420), decoded=(1000, 0, 0, 0), large=(1000, 60, 0, 0),
                          image=(1000, 130, 300, 340)))
    graph.run()
    graph.shoot("comfyui-nodes.png", places, 0.8)


def race(graph: Graph) -> None:
    """Of the preset, on more seeds than the race of its training had."""
    words = emoji_race.LEARNED_ON
    given = {f"positive{'' if i == 1 else f'_{i}'}": [f"emoji_{word}", 0] for i, word in enumerate(words, 1)}
    graph.load(
        emoji_race.model() | {f"emoji_{word}": node("TestEmoji", emoji=word) for word in words} | {
            "vae": node("VAELoader", vae_name="taesd3"), "preset": node("S4SLoadPreset", preset="emoji", path=""),
            "race": node("S4SRace", model=["model", 0], negative=["none", 0], latent=["latent", 0], vae=["vae", 0],
                         preset=["preset", 0], cfg=2.0, calls="", seeds=32, seed=1, samplers="", budget=20000,
                         teacher_calls=50, write_scores=False, **given)},
        places := sources(words, preset=(0, 888, 240, 300), race=(310, 0, 560, 1158)))
    graph.run()
    graph.shoot("comfyui-race.png", places)


def dropdown_and_menu(graph: Graph) -> None:
    """The rows in a KSampler's list, and the entry in its menu with the node that it adds."""
    page = graph.page
    graph.load(emoji_race.model() | {
        "emoji_cat": node("TestEmoji", emoji="cat"), "vae": node("VAELoader", vae_name="taesd3"),
        "sampler": node("KSampler", model=["model", 0], seed=7, steps=5, cfg=2.0, sampler_name="s4s", scheduler="s4s",
                        positive=["emoji_cat", 0], negative=["none", 0], latent_image=["latent", 0], denoise=1.0),
        "decoded": node("VAEDecode", samples=["sampler", 0], vae=["vae", 0])},
        places := sources(["cat"], sampler=(310, 0, 400, 262), decoded=(780, 0, 200, 46)))
    clip = graph.look([id_ for id_ in places if id_ != "decoded"])
    graph.click("sampler", 200, page.evaluate("() => shots.widget('sampler', 'scheduler').last_y + 12"))
    page.wait_for_timeout(2000)
    page.keyboard.type("s4", delay=100)
    page.wait_for_timeout(2000)
    save("comfyui-dropdown.png", page.screenshot(clip=clip))
    page.keyboard.press("Escape")
    graph.click("sampler", 180, 15, "right")
    page.get_by_text("S4S: train a preset for this", exact=True).first.click()
    page.wait_for_timeout(700)
    train = page.evaluate("() => app.graph._nodes.find((node) => node.type === 'S4STrainPreset').id")
    page.evaluate("(places) => shots.arrange(places)", {train: (780, 110, 300, 630)})
    clip = graph.look([*places, train])
    graph.click("sampler", 180, 15, "right")
    save("comfyui-menu.png", page.screenshot(clip=clip))
    page.keyboard.press("Escape")


def sample(graph: Graph) -> list:
    """The film's frames of the new preset between Euler's few and many steps."""
    frames, places = [], sources(["person"])
    prompt = emoji_race.model(4) | {"vae": node("VAELoader", vae_name="taesd3"),
                                    "emoji_person": node("TestEmoji", emoji="person")}
    for i, (name, sampler, scheduler, steps) in enumerate(COMPARED):
        prompt |= {
            name: node("KSampler", model=["model", 0], seed=1001, steps=steps, cfg=2.0, sampler_name=sampler,
                       scheduler=scheduler, positive=["emoji_person", 0], negative=["none", 0],
                       latent_image=["latent", 0], denoise=1.0),
            f"{name} decoded": node("VAEDecode", samples=[name, 0], vae=["vae", 0]),
            f"{name} large": large(f"{name} decoded"),
            f"{name} image": node("PreviewImage", images=[f"{name} large", 0])}
        x = 300 + 360 * i
        places |= {name: (x, 0, 330, 400, name), f"{name} decoded": (x, 450, 0, 0),
                   f"{name} large": (x + 150, 450, 0, 0), f"{name} image": (x, 500, 330, 420, name)}
    graph.page.evaluate("() => shots.settings({ 'Comfy.Execution.PreviewMethod': 'none' })")
    graph.load(prompt, places)
    clip = graph.look(places, 0.68, FRAME)
    frames.append(graph.page.screenshot(clip=clip))
    graph.run(lambda: frames.append(graph.page.screenshot(clip=clip)))
    frames.append(graph.page.screenshot(clip=clip))
    times = [900, *[400] * (len(frames) - 2), 6000]
    words = "The same seeds: Euler in 5 steps, S4S in 5 steps with the new preset, Euler in 50 steps"
    return [(frame, words, time_) for frame, time_ in zip(frames, times)]


def film(frames: list) -> None:
    """Write (screenshot, words, milliseconds) as comfyui-train.webp."""
    font, pages = ImageFont.load_default(size=19), []
    for shot, words, _ in frames:
        page = Image.new("RGB", (FRAME[0], FRAME[1] + 38), "#111111")
        page.paste(Image.open(io.BytesIO(shot)).convert("RGB"))
        ImageDraw.Draw(page).text((12, FRAME[1] + 7), words, fill="#eeeeee", font=font)
        pages.append(page)
    path = IMAGES / "comfyui-train.webp"
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=[ms for *_, ms in frames], loop=0, quality=55,
                  method=6, minimize_size=True)
    print(path.name, path.stat().st_size)
