// What our nodes say, on the nodes: the host sends it ("text", "s4s_report"), its own nodes alone draw it by themselves.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { ComfyWidgets } from "../../scripts/widgets.js";

const TRAIN = "S4STrainPreset";
const SAMPLERS = ["KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced"];
const USEFUL = 12; // steps up to which a learned table pays off
const TEXT = "s4s_text";
const REPORT = "open report";
const HEIGHT = 180; // pixels of a node for its words, at least
const PICTURE = 320; // and for its pictures
const SETTLED = 500; // ms until Nodes 2.0 has drawn what was added; it shares the rest of the height out
const LETTER = 6.3; // pixels of a letter the host's widget shows a node's words in
const LINE = 17; // and of a line
const AROUND = 36; // and above and below the lines
const PROGRESS = "$$node-text-preview"; // the host's own widget, for what a running node says

const ours = (name) => String(name ?? "").startsWith("S4S");
const find = (node, name) => node.widgets?.find((widget) => widget.name === name);

function unsaved(widget) {
  widget.serialize = false; // not in the workflow
  widget.options = { ...widget.options, serialize: false }; // nor sent to the server
  return widget;
}

function addText(node, pictures) {
  const [, bare] = node.computeSize();
  const widget = unsaved(ComfyWidgets.STRING(node, TEXT, ["STRING", { multiline: true }], app).widget);
  widget.label = " ";
  widget.options.read_only = true;
  widget.options.getMinHeight = () => HEIGHT;
  const field = widget.element ?? widget.inputEl;
  if (field) field.readOnly = true;
  node.setSize([Math.max(node.size[0], 380), Math.max(node.size[1], bare + HEIGHT + (pictures ? PICTURE : 0))]);
  if (window.LiteGraph.vueNodesMode) setTimeout(() => node.setSize([node.size[0], node.size[1] + HEIGHT]), SETTLED);
  return widget;
}

// of a run that ended: what the node said last, cut short, and its last live picture, which would hide those put out
function removeProgress(node) {
  delete app.nodePreviewImages?.[node.graph?.isRootGraph === false ? `${node.graph.id}:${node.id}` : node.id];
  const place = node.widgets?.findIndex((widget) => widget.name === PROGRESS) ?? -1;
  if (place < 0) return;
  node.widgets[place].onRemove?.();
  node.widgets.splice(place, 1);
}

// the host gives two lines to what it shows of a node, and cuts the rest
function makeRoom({ detail }) {
  const node = app.graph?.getNodeById(detail.nodeId);
  const widget = node && find(node, PROGRESS);
  const text = String(widget?.value ?? "");
  if (!widget || window.LiteGraph.vueNodesMode || !(ours(node.type) || ours(text))) return;
  const lines = Math.ceil(text.length / Math.max(10, (node.size[0] - 50) / LETTER));
  widget.options.getMinHeight = () => Math.max(58, AROUND + LINE * lines);
  node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
}

// the host serves pages as downloads; this one holds no script, and shows names as text
async function openReport(place) {
  const tab = window.open("", "_blank");
  const page = await (await api.fetchApi(`/view?${new URLSearchParams(place)}`)).text();
  tab.location = URL.createObjectURL(new Blob([page], { type: "text/html" }));
}

function show(node, output) {
  if (output?.text) {
    removeProgress(node);
    const widget = find(node, TEXT) ?? addText(node, output.images?.length);
    widget.value = [].concat(output.text).join("\n");
  }
  if (output?.s4s_report?.length) {
    node.s4sReport = output.s4s_report[0];
    if (!find(node, REPORT)) unsaved(node.addWidget("button", REPORT, null, () => openReport(node.s4sReport)));
  }
}

// an input of one node takes what an input of another takes: another node's output, or an input of their subgraph
function share(from, name, to, target) {
  const link = from.graph.links[from.inputs[from.findInputSlot(name)]?.link];
  if (!link) return false;
  const slot = to.findInputSlot(target);
  const origin = from.graph.getNodeById(link.origin_id);
  if (origin) origin.connect(link.origin_slot, to, slot);
  else from.graph.inputs?.[link.origin_slot]?.connect(to.inputs[slot], to);
  return true;
}

// the node that feeds an input, as far as it is in the same graph
function before(node, name) {
  const link = node.graph.links[node.inputs[node.findInputSlot(name)]?.link];
  return link && node.graph.getNodeById(link.origin_id);
}

// the settings of what a sampler makes, of a custom one from the nodes that feed it
function settingsOf(sampler) {
  const guider = before(sampler, "guider") ?? sampler;
  let levels = before(sampler, "sigmas");
  while (levels && !find(levels, "steps") && !find(levels, "calls")) levels = before(levels, "sigmas"); // SplitSigmas
  const widgets = [levels, guider, sampler].flatMap((node) => node?.widgets ?? []);
  const values = Object.fromEntries(widgets.map(({ name, value }) => [name, value]));
  const { cfg = 1, calls, steps = calls, start_at_step: start = 0 } = values;
  const left = Math.floor((1000 * (steps - start)) / steps) / 1000; // rounded down, as many steps come of it again
  return { guider, cfg, steps: steps - start, denoise: values.denoise ?? left };
}

// a Train node for what a sampler makes: fed by the same nodes, with its cfg, steps and denoise
function trainFor(sampler) {
  const node = window.LiteGraph.createNode(TRAIN);
  sampler.graph.add(node);
  node.pos = [sampler.pos[0], sampler.pos[1] + sampler.size[1] + 60];
  const { guider, cfg, steps, denoise } = settingsOf(sampler);
  for (const name of ["model", "positive", "negative"]) share(guider, name, node, name);
  share(guider, "conditioning", node, "positive"); // of BasicGuider
  share(sampler, "latent_image", node, "latent");
  const next = sampler.outputs.flatMap((_, slot) => sampler.getOutputNodes(slot) ?? []);
  const decoder = next.find((each) => each.findInputSlot("vae") >= 0);
  if (decoder) share(decoder, "vae", node, "vae");
  if (!share(guider, "cfg", node, "cfg")) find(node, "cfg").value = String(cfg);
  if (steps <= USEFUL) find(node, "calls").value = String(steps);
  if (denoise < 1) find(node, "windows").value = `1.0, ${denoise}`;
}

function offerTraining(type) {
  const usual = type.prototype.getExtraMenuOptions;
  type.prototype.getExtraMenuOptions = function (canvas, options) {
    const more = usual?.apply(this, arguments);
    options.push({ content: "S4S: train a preset for this", callback: () => trainFor(this) });
    return more;
  };
}

// of saved workflows: what stands in nodes whose inputs have changed since
const OLD = {
  // from before `unmatched`: strict alone refused every fallback
  S4SUsePreset(node, saved) {
    if (saved?.length === 2 && saved[1]) find(node, "unmatched").value = "error";
  },
  // cfg was a number; a range had a text field of its own, where a number stands now
  S4STrainPreset(node, saved) {
    const [range, boundary, lowNoiseCfg] = typeof saved?.[11] === "string" ? saved.slice(11) : [];
    if (boundary != null) [find(node, "boundary").value, find(node, "low_noise_cfg").value] = [boundary, lowNoiseCfg];
    find(node, "cfg").value = String(range || find(node, "cfg").value);
  },
};

function readOld(type, name) {
  const usual = type.prototype.onConfigure;
  type.prototype.onConfigure = function ({ widgets_values: saved }) {
    usual?.apply(this, arguments);
    OLD[name](this, saved);
  };
}

async function recorded(notes, save) {
  const answer = await api.fetchApi("/s4s/recorded", { method: "POST", body: JSON.stringify({ notes, save }) });
  return answer.json();
}

// an image's workflow holds the tables that made it: where their preset is lost, they can be saved again, once asked
async function offerTables() {
  const notes = [].concat(app.graph?.extra?.s4s ?? []).filter((note) => note?.numbers);
  const { text } = notes.length ? await recorded(notes, false) : {};
  if (!text || sessionStorage.getItem(text)) return;
  sessionStorage.setItem(text, "asked");
  const { dialog, toast } = app.extensionManager ?? {};
  const message = `This image was made with a preset that is lost here: ${text}. Save its tables as a preset again?`;
  const wanted = dialog ? await dialog.confirm({ title: "S4S", message }) : window.confirm(message);
  if (!wanted) return;
  const saved = await recorded(notes, true);
  const names = saved.names?.join(", ");
  const detail = names ? `Saved as ${names}. Choose it in S4S Use Preset to make the image again.` : saved.text;
  toast?.add({ severity: names ? "success" : "error", summary: "S4S", detail, life: 15000 });
  app.refreshComboInNodes?.();
}

app.registerExtension({
  name: "S4S.words",
  setup() {
    api.addEventListener("progress_text", (event) => setTimeout(() => makeRoom(event), 0)); // after the host's own
  },
  beforeRegisterNodeDef(type, data) {
    if (SAMPLERS.includes(data.name)) offerTraining(type);
    if (!ours(data.name)) return;
    if (OLD[data.name]) readOld(type, data.name);
    const usual = type.prototype.onExecuted;
    type.prototype.onExecuted = function (output) {
      usual?.apply(this, arguments);
      show(this, output);
    };
  },
  afterConfigureGraph() {
    offerTables().catch((error) => console.warn("S4S:", error)); // in the way of no workflow
  },
  nodeCreated(node) {
    // an older host would draw another seed for every run; what a workflow saved is set after this
    const control = ours(node.comfyClass) && find(node, "control_after_generate");
    if (control) control.value = "fixed";
  },
  onNodeOutputsUpdated(outputs) {
    for (const [id, output] of Object.entries(outputs)) {
      const node = app.graph?.getNodeById(id);
      if (ours(node?.type)) show(node, output);
    }
  },
});
