"""What the page's settings would run, before Generate: a text, and the steps that would have a table."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

from modules import sd_models, sd_samplers_common

from ...library import ModelFacts, Preset, PresetError, Selection, schedule, select
from ...select.match import FAMILY_SCHEDULES, counts_text, is_solver
from . import facts, labels, pasted, sampler, shelf
from .words import say

# an infotext's key of a setting
_WRITTEN = {"steps": "Steps", "cfg_scale": "CFG scale", "width": "Size-1", "height": "Size-2",
            "denoising_strength": "Denoising strength", "hires_steps": "Hires steps", "hires_scale": "Hires upscale",
            "hires_cfg": "Hires CFG Scale"}
MOST_STEPS = 40             # the most steps to search if a strength leaves some of them out


@dataclass(frozen=True)
class Settings:
    """What the page's controls show, by `controls`; of hires fix whether it is on, and what is its own (0: the same).

    preset: the panel's choice of a preset or ""; strict: refuse it on another model; pasted: a picture's tables.
    """

    sampling: str = labels.SAMPLER
    scheduler: str = labels.AUTO
    steps: float = 20
    cfg_scale: float = 7.0
    width: float = 512
    height: float = 512
    denoising_strength: float = 1.0
    hires: bool = False
    hires_steps: float = 0
    hires_sampler: str = ""
    hires_scheduler: str = ""
    hires_scale: float = 2.0
    hires_cfg: float = 0.0
    preset: str = ""
    strict: bool = False
    pasted: str = ""
    prompt: str = ""

    def second(self) -> "Settings":
        """The settings of the hires pass."""
        same_sampler = self.hires_sampler in (None, "", "Use same sampler")
        same_schedule = self.hires_scheduler in (None, "", "Use same scheduler")
        return replace(self, hires=False, steps=self.hires_steps or self.steps,
                       cfg_scale=self.hires_cfg or self.cfg_scale,
                       sampling=self.sampling if same_sampler else self.hires_sampler,
                       scheduler=self.scheduler if same_schedule else self.hires_scheduler,
                       width=self.width * self.hires_scale, height=self.height * self.hires_scale)


def controls(tab: str) -> dict[str, str]:
    """{field of Settings: elem_id} on the host's page; tab: txt2img or img2img."""
    names = ("sampling", "scheduler", "steps", "cfg_scale", "width", "height", "denoising_strength")
    ids = {name: f"{tab}_{name}" for name in (*names, "prompt")}
    if tab == "txt2img":
        ids |= {"hires": "txt2img_hr-checkbox", "hires_steps": "txt2img_hires_steps", "hires_sampler": "hr_sampler",
                "hires_scheduler": "hr_scheduler", "hires_scale": "txt2img_hr_scale", "hires_cfg": "txt2img_hr_cfg"}
    return ids


def settings_of(values: dict) -> Settings:
    """The Settings that the page's controls show; an emptied field counts as its default."""
    return Settings(**{name: value for name, value in values.items() if value is not None})


@dataclass(frozen=True)
class Outlook:
    """text: what will run; warning: the warning shown before Generate, or ""; steps, sampling: what would help."""

    text: str
    warning: str = ""
    steps: int = 0                          # steps that have a table; 0: these have one, or none would
    sampling: str = ""                      # the sampler that is not chosen, though a preset is
    preset: Preset | None = None            # whose table it is, or that comes nearest
    table: str = ""


def of(asked: Settings, img2img: bool) -> Outlook:
    seen = loaded()
    passes = [("", asked, "img2img" if img2img else "txt2img")]
    if asked.hires and not img2img:
        passes.append((say("Hires fix") + ": ", asked.second(), "hires"))
    ours = [one for one in passes if one[1].sampling == labels.SAMPLER]
    if not ours:
        text = say("Sampling method is {}: S4S does not run.").format(asked.sampling)
        return Outlook(text, text if asked.preset or shelf.is_ours(asked.scheduler) else "", sampling=labels.SAMPLER)
    outlooks = [_pass(*one, seen) for one in ours]
    first = outlooks[0]
    return replace(first, text="\n".join(each.text for each in outlooks),
                   warning="\n".join(each.warning for each in outlooks if each.warning),
                   steps=first.steps if ours[0] is passes[0] else 0)


def loaded() -> ModelFacts | None:
    """The facts of the checkpoint that Generate would sample; None if the host has not loaded it yet."""
    data = sd_models.model_data
    model, asked = data.sd_model, getattr(data, "forge_loading_parameters", {}).get("checkpoint_info")
    here = getattr(model, "sd_checkpoint_info", None)
    if here is None or asked is not None and asked.filename != here.filename:
        return None
    return facts.of(sampler.for_model(model).model_wrap, model)


def _pass(name: str, asked: Settings, kind: str, seen: ModelFacts | None) -> Outlook:
    label = shelf.meant(asked.preset, asked.scheduler)
    named, missing = pasted.named(label, asked.pasted, kind == "hires")
    if missing and label == pasted.CHOICE:
        return Outlook(name + missing, name + missing)
    known = seen
    if known is None:
        if named is None:
            return _unseen(name, asked, kind)
        known = replace(ModelFacts.of(named.model), fingerprint=lambda: named.model.hashes)    # taken to be for it
    choice = selection(label, asked, kind, known)
    text = name + spoken(choice) + ("" if seen else " " + say("The checkpoint is not loaded yet."))
    if "<lora:" in asked.prompt:
        text += " " + say("LoRAs in the prompt are checked when you generate.")
    if label == pasted.CHOICE:
        text = f"{name}{pasted.standing(named)}. {spoken(choice)}"
        return Outlook(text, text, next(iter(named.tables.values())).calls if choice.fallback else 0, preset=named,
                       table=next(iter(named.tables)))
    better = _better_steps(label, asked, kind, known, choice) if choice.warns and kind != "hires" else 0
    preset = choice.preset or choice.about
    quiet = not choice.warns or choice.fallback and choice.preset is not None and choice.about is choice.preset
    return Outlook(text, "" if quiet and not better else text, better, preset=preset,
                   table=_table_near(preset, choice, asked))


def selection(label: str, asked: Settings, kind: str, seen: ModelFacts) -> Selection:
    """What our sampler would run: on the levels of its own schedule, cut as the host cuts it."""
    p = SimpleNamespace(steps=int(asked.steps), denoising_strength=float(asked.denoising_strength))
    whole, calls = p.steps, None
    if kind != "txt2img":
        whole, last = sd_samplers_common.setup_img2img_steps(p, p.steps if kind == "hires" else None)
        calls = last + 1
    request = shelf.request(*pasted.named(label, asked.pasted, kind == "hires"), seen, asked.strict,
                            steps=max(whole, 1), calls=calls, cfg=asked.cfg_scale,
                            size=(int(asked.height) // 8, int(asked.width) // 8))
    levels = sampler.as_tensor(schedule(request))               # in the host's precision
    return select(replace(request, steps=None, calls=None, levels=levels if calls is None else levels[-calls - 1:],
                          own_schedule=True))


# --- a pasted infotext ----------------------------------------------------------------------------------------------

def choice(written: dict) -> str:
    """What the panel chooses for a pasted infotext: nothing if the page's settings run the picture's tables by
    themselves, a preset that has them under another name, else the picture's own. written: {key: value}."""
    try:
        texts = [written.get(key) for key in (labels.TABLE_KEY, labels.HIRES_TABLE_KEY)]
        own = [(place > 0, pasted.preset(text)) for place, text in enumerate(texts) if text]
    except PresetError:
        return labels.BY_SCHEDULE
    if all(_runs_again(preset, hires, written) for hires, preset in own):
        return labels.BY_SCHEDULE
    return next((label for label, there in shelf.presets().items()
                 if all(pasted.same(there, preset) for _, preset in own)), pasted.CHOICE)


def _runs_again(preset: Preset, hires: bool, written: dict) -> bool:
    """Whether a pass would run this table of the picture: its schedule type names the preset; of a classical solver,
    the same one runs today on the loaded model."""
    second = written.get(labels.hires_schedule(written))
    label = second if hires and second else written.get("Schedule type")
    if not is_solver(preset):
        return pasted.same(shelf.preset_of(label), preset)
    seen, model = loaded(), sd_models.model_data.sd_model
    if seen is None or written.get("Model hash") != model.sd_checkpoint_info.shorthash or not shelf.is_ours(label):
        return False
    try:
        asked = settings_of({"scheduler": label, **{name: float(written[key]) for name, key in _WRITTEN.items()
                                                    if key in written}})
    except ValueError:
        return False
    img2img = "Denoising strength" in written and not labels.has_hires(written)
    kind = "hires" if hires else "img2img" if img2img else "txt2img"
    now = selection(label, asked.second() if hires else asked, kind, seen)
    return now.table.same_as(next(iter(preset.tables.values())))


def spoken(choice: Selection) -> str:
    """A selection as what is about to run."""
    text = choice.message().removeprefix("S4S fallback: ").removeprefix("S4S ")
    return text.replace(" ran", " will run", 1) if choice.fallback else f"{text}."


def _unseen(name: str, asked: Settings, kind: str) -> Outlook:
    """Auto, before a checkpoint is loaded: nothing but the numbers of steps can be told."""
    text = say("The checkpoint is not loaded yet: S4S selects a preset for it when you generate.")
    library = shelf.library()
    counts = sorted({count for name, preset in library.named().items() for count in preset.counts
                     if preset.short_hash in FAMILY_SCHEDULES.values() or not library.ships(name)})
    if kind != "txt2img" or not counts or asked.steps in counts:
        return Outlook(name + text)
    text = say("No preset here has {} steps; they have {}.").format(int(asked.steps), counts_text(counts))
    return Outlook(name + text, name + text, min(counts, key=lambda count: abs(count - asked.steps)))


def _rank(choice: Selection) -> int:
    """0: learned for this; 1: a preset's table all the same; 2: a classical solver."""
    return 2 if choice.preset is None else int(choice.warns)


def _better_steps(label: str, asked: Settings, kind: str, seen: ModelFacts, now: Selection) -> int:
    """The nearest number of steps with a table for them, one that was learned before others; or 0."""
    counts = range(1, MOST_STEPS + 1)
    if kind == "txt2img":
        counts = {count for preset in shelf.library().named().values() for count in preset.counts}
    ranks = ((_rank(selection(label, replace(asked, steps=count), kind, seen)), abs(count - asked.steps), count)
             for count in counts if count != asked.steps)
    rank, _, best = min(ranks, default=(2, 0, 0))
    return best if rank < _rank(now) else 0


def _table_near(preset: Preset | None, choice: Selection, asked: Settings) -> str:
    """The table that runs; where none of the preset's does, the one of the nearest number of steps."""
    if preset is None or choice.table_name in preset.tables:
        return choice.table_name
    return min(preset.tables, key=lambda name: (abs(preset.tables[name].calls - asked.steps), name))
