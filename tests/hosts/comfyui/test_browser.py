"""The browser's part of S4S in the host's own page: the samplers' menus, an image that is dropped in, old nodes."""

import shutil
import time

import pytest
import s4s_tools as t

pytestmark = pytest.mark.server
sync_api = pytest.importorskip("playwright.sync_api", reason="no browser: pip install playwright")
ENTRY = "S4S: train a preset for this"
# s4s(...): nodes {key: [type, {widget: value}, {input: [key, output]}]} in an empty graph, and what stands in one
HELPERS = """
window.s4s = {
  build(wanted) {
    app.graph.clear();
    const nodes = {};
    Object.entries(wanted).forEach(([key, [type, values, links]], i) => {
      const node = (nodes[key] = LiteGraph.createNode(type));
      app.graph.add(node);
      node.pos = [40 + 420 * (i % 4), 60 + 420 * Math.floor(i / 4)];
      for (const [name, value] of Object.entries(values)) node.widgets.find((w) => w.name === name).value = value;
      for (const [name, [from, slot]] of Object.entries(links))
        nodes[from].connect(slot, node, node.findInputSlot(name));
    });
  },
  find: (type) => app.graph._nodes.find((node) => node.type === type),
  read(node) {
    const linked = node.inputs.filter((input) => input.link != null).map((input) => {
      const link = app.graph.links[input.link];
      return [input.name, app.graph.getNodeById(link.origin_id).type];
    });
    const values = (node.widgets ?? []).map((widget) => [widget.name, widget.value]);
    return { ...Object.fromEntries(values), linked: Object.fromEntries(linked) };
  },
  async drop(url) {
    const image = await (await fetch(url)).blob();
    await app.handleFile(new File([image], "image.png", { type: "image/png" }));
  },
};"""


@pytest.fixture(scope="module")
def page(comfy, base, models):
    path = t.install(base, t.preset_for(models("sd3"), calls=(4,), name="browser-sd3"))
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"),
                                             args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        page.goto(comfy.url)
        page.wait_for_function("!!window.app?.graph && !!LiteGraph.registered_node_types.S4STrainPreset",
                               timeout=120_000)
        page.wait_for_timeout(4000)                 # by then a graph is loaded, and newer hosts greet with templates
        page.keyboard.press("Escape")
        page.wait_for_timeout(800)
        page.evaluate(HELPERS)
        yield page
        browser.close()
    path.unlink(missing_ok=True)


KSAMPLER = {"seed": 1, "steps": 6, "cfg": 4.5, "sampler_name": "s4s", "scheduler": "s4s", "denoise": 0.6}
WORDS = {"width": t.KINDS["sd3"].width, "tokens": 8, "pooled": t.KINDS["sd3"].pooled}


def around(sampler: dict) -> dict:
    """The nodes that feed a sampler of the tiny SD3, and those after it."""
    return {"model": ["CheckpointLoaderSimple", {"ckpt_name": "tiny_sd3.safetensors"}, {}],
            "positive": ["TestConditioning", {**WORDS, "seed": 0}, {}],
            "negative": ["TestConditioning", {**WORDS, "seed": 1}, {}],
            "latent": ["EmptySD3LatentImage", {"width": 64, "height": 64}, {}], **sampler,
            "vae": ["VAELoader", {"vae_name": "taesd3"}, {}],
            "image": ["VAEDecode", {}, {"samples": ["sampler", 0], "vae": ["vae", 0]}],
            "save": ["SaveImage", {"filename_prefix": "browser"}, {"images": ["image", 0]}]}


PROMPTS = {"positive": ["positive", 0], "negative": ["negative", 0]}
FROM = {"model": ["model", 0], "latent_image": ["latent", 0]}
LEVELS = {"levels": ["BasicScheduler", {"scheduler": "s4s", "steps": 5, "denoise": 1.0}, {"model": ["model", 0]}],
          "which": ["KSamplerSelect", {"sampler_name": "s4s"}, {}]}
SAMPLERS = {
    "KSampler": {"sampler": ["KSampler", KSAMPLER, {**FROM, **PROMPTS}]},
    "KSamplerAdvanced": {"sampler": ["KSamplerAdvanced", {"steps": 8, "cfg": 3.0, "start_at_step": 2},
                                     {**FROM, **PROMPTS}]},
    "SamplerCustom": {**LEVELS, "sampler": ["SamplerCustom", {"cfg": 2.0}, {
        **FROM, **PROMPTS, "sampler": ["which", 0], "sigmas": ["levels", 0]}]},
    "SamplerCustomAdvanced": {
        **LEVELS, "guider": ["CFGGuider", {"cfg": 7.0}, {"model": ["model", 0], **PROMPTS}],
        "noise": ["RandomNoise", {}, {}], "sampler": ["SamplerCustomAdvanced", {}, {
            "latent_image": ["latent", 0], "noise": ["noise", 0], "guider": ["guider", 0], "sampler": ["which", 0],
            "sigmas": ["levels", 0]}]}}


def train_node(page, kind: str) -> dict:
    """What stands in the Train node that the menu of a sampler adds, after a right click on its title."""
    page.evaluate("""(kind) => { app.canvas.ds.scale = 1; const node = s4s.find(kind);
        app.canvas.ds.offset = [300 - node.pos[0], 200 - node.pos[1]]; app.canvas.setDirty(true, true); }""", kind)
    page.wait_for_timeout(300)
    left, top = page.evaluate("(({ x, y }) => [x, y])(app.canvas.canvas.getBoundingClientRect())")
    page.mouse.click(left + 340, top + 185, button="right")
    page.get_by_text(ENTRY, exact=True).first.click()
    page.wait_for_function("!!s4s.find('S4STrainPreset')")
    return page.evaluate("s4s.read(s4s.find('S4STrainPreset'))")


@pytest.mark.parametrize("kind, cfg, calls, windows", [
    ("KSampler", "4.5", "6", "1.0, 0.6"), ("KSamplerAdvanced", "3", "6", "1.0, 0.75"),
    ("SamplerCustom", "2", "5", "1.0"), ("SamplerCustomAdvanced", "7", "5", "1.0")])
def test_the_menu_of_a_sampler_adds_a_train_node_for_what_it_makes(page, kind, cfg, calls, windows):
    page.evaluate("(nodes) => s4s.build(nodes)", around(SAMPLERS[kind]))
    made = train_node(page, kind)
    assert (made["cfg"], made["calls"], made["windows"]) == (cfg, calls, windows)
    assert made["linked"] == {"model": "CheckpointLoaderSimple", "positive": "TestConditioning", "vae": "VAELoader",
                              "negative": "TestConditioning", "latent": "EmptySD3LatentImage"}


def queue(page, comfy) -> str:
    """Queue the page's graph; the image's address."""
    before = set(comfy.get("/history"))
    page.evaluate("app.queuePrompt(0)")
    for _ in range(300):
        if done := [run for key, run in comfy.get("/history").items() if key not in before]:
            break
        time.sleep(0.1)
    [image] = [image for output in done[0]["outputs"].values() for image in output.get("images", ())]
    return f"/view?filename={image['filename']}&subfolder={image['subfolder']}&type={image['type']}"


def test_an_image_that_is_dropped_in_offers_its_lost_tables_and_to_train_for_it(page, comfy, base):
    sampler = {"sampler": ["KSampler", {**KSAMPLER, "steps": 4, "denoise": 1.0, "cfg": 3.0}, {**FROM, **PROMPTS}]}
    page.evaluate("(nodes) => s4s.build(nodes)", around(sampler))
    address, folder = queue(page, comfy), base / "models" / "s4s_presets"
    (folder / "browser-sd3.safetensors").unlink()
    page.evaluate("app.graph.clear()")
    page.evaluate("(url) => { s4s.drop(url); }", address)
    page.get_by_text("made with a preset that is lost here").wait_for()
    page.get_by_role("button", name="Confirm").click()
    page.get_by_text("Choose it in S4S Use Preset").first.wait_for()
    assert [path.stem for path in folder.glob("browser-sd3*")] == ["browser-sd3"]
    made = train_node(page, "KSampler")
    assert (made["cfg"], made["calls"], made["windows"], len(made["linked"])) == ("3", "4", "1.0", 5)


@pytest.mark.parametrize("vue", [False, True], ids=["classic nodes", "Nodes 2.0"])
def test_what_a_node_says_stands_on_it(page, comfy, vue):
    if vue and page.evaluate("app.extensionManager.setting.get('Comfy.VueNodes.Enabled')") is None:
        pytest.skip("this ComfyUI has no Nodes 2.0")
    page.evaluate("(on) => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", vue)
    page.evaluate("(nodes) => s4s.build(nodes)", {
        "list": ["S4SPresets", {"preset": "browser-sd3"}, {}], "load": ["S4SLoadPreset", {"preset": "browser-sd3"}, {}],
        "show": ["S4SShowPreset", {}, {"preset": ["load", 0]}]})
    page.evaluate("app.queuePrompt(0)")
    for words in ("of yours in ", "prediction, sigma"):
        page.wait_for_function("""(words) => [...document.querySelectorAll("textarea")].some(
            (field) => field.checkVisibility() && field.value.includes(words))""", arg=words)
    page.evaluate("app.extensionManager.setting.set('Comfy.VueNodes.Enabled', false)")


def test_what_a_sampler_says_is_read_without_scrolling(page, comfy):
    sampler = {"sampler": ["KSampler", {**KSAMPLER, "steps": 3, "denoise": 1.0}, {**FROM, **PROMPTS}]}
    page.evaluate("(nodes) => s4s.build(nodes)", around(sampler))
    queue(page, comfy)
    page.wait_for_function("() => s4s.find('KSampler').widgets.some((widget) => /^S4S fallback/.test(widget.value))")
    page.wait_for_timeout(1000)
    hidden = page.evaluate("""() => [...document.querySelectorAll(".dom-widget *")].filter(
        (each) => /^S4S fallback/.test(each.innerText)).map((each) => each.scrollHeight - each.clientHeight)""")
    assert hidden and max(hidden) <= 0, hidden


def reloaded(page, kind: str, saved: list) -> dict:
    """What stands in a node of a workflow that was saved with these values."""
    page.evaluate("(nodes) => s4s.build(nodes)", {"old": [kind, {}, {}]})
    workflow = page.evaluate("app.graph.serialize()")
    workflow["nodes"][0]["widgets_values"] = saved
    page.evaluate("(workflow) => app.loadGraphData(workflow)", workflow)
    return page.evaluate("(kind) => s4s.read(s4s.find(kind))", kind)


@pytest.mark.parametrize("saved, unmatched", [
    (["any", True], "error"), (["any", False], "classical solver"),
    (["any", True, "classical solver"], "classical solver")])
def test_a_use_preset_node_from_before_unmatched_refuses_as_it_did(page, saved, unmatched):
    """The saved values of a workflow: strict alone meant an error."""
    assert reloaded(page, "S4SUsePreset", saved)["unmatched"] == unmatched


@pytest.mark.parametrize("cfg, range_, more, wanted", [
    (4.5, [""], [], "4.5"), (5.0, ["3-7"], [], "3-7"), ("3-7", [], [], "3-7"), ("3-7", [], [6.0], "3-7")])
def test_a_train_node_keeps_the_values_it_had_when_cfg_was_a_number(page, cfg, range_, more, wanted):
    values = [cfg, "4,5", "1.0", "auto", "quick", 32, 8, "mine", 7, "fixed", True, *range_, 0.9, 2.5, *more]
    made = reloaded(page, "S4STrainPreset", values)
    assert (made["cfg"], made["boundary"], made["low_noise_cfg"]) == (wanted, 0.9, 2.5)
    assert [made[name] for name in ("calls", "budget", "name", "seed", "resume")] == ["4,5", "quick", "mine", 7, True]
    assert not more or made["teacher_cfg"] == more[0]
