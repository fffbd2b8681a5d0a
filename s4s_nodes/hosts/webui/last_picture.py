"""Settings for a training from a picture: prompt, cfg, size and steps of the last one here, or of a given one."""

from contextlib import suppress

from modules import images

from . import facts, labels
from .words import say

USEFUL = 12                 # steps up to which a learned table pays off
_last: list = []            # the infotext of this server's last picture, and whether the network was patched


def remember(processed) -> None:
    """Keep what a generation said of its first picture."""
    texts = getattr(processed, "infotexts", None) or [getattr(processed, "info", "")]
    _last[:] = [texts[min(getattr(processed, "index_of_first_image", 0), len(texts) - 1)], facts.is_patched()]


def of_last() -> dict:
    """The settings of the last picture. Raises ValueError if there is none yet."""
    if not _last or not _last[0]:
        raise ValueError("no picture was made here since the server started: make one in txt2img, then press again")
    return of_infotext(_last[0]) | {"patched": _last[1]}


def of_picture(picture) -> dict:
    """The settings in a picture's parameters. Raises ValueError if it has none."""
    text = images.read_info_from_image(picture)[0] if picture is not None else None
    if not text:
        raise ValueError("this picture carries no generation parameters: take one as the host saved it")
    return of_infotext(text)


def of_infotext(text: str) -> dict:
    """{"prompts", "negative", "cfg", "width", "height", "steps", "strength"} as far as they stand there."""
    from modules import infotext_utils
    read = infotext_utils.parse_generation_parameters(text)
    wanted = {"prompts": ("Prompt", lambda prompt: " ".join(prompt.split())), "negative": ("Negative prompt", str),
              "cfg": ("CFG scale", float), "width": ("Size-1", int), "height": ("Size-2", int), "steps": ("Steps", int),
              "strength": ("Denoising strength", float)}
    if labels.has_hires(read):
        del wanted["strength"]              # of the second pass, not of an img2img
    settings = {}
    for name, (key, kind) in wanted.items():
        with suppress(KeyError, TypeError, ValueError):
            settings[name] = kind(read[key])
    return settings


def fields(settings: dict) -> tuple:
    """(prompts, negative, cfg, width, height, steps, strengths, words on it): None for what stays as it is."""
    steps, strength = settings.get("steps"), settings.get("strength")
    notes = []
    if steps is not None and steps > USEFUL:
        notes = [say("It was made with {} steps. Learned tables pay off up to about {}, so these steps were not "
                     "copied.").format(steps, USEFUL)]
        steps = None
    if settings.get("patched"):
        notes.append(say("This picture was made with a patch of the network, such as FreeU or Perturbed-Attention "
                         "Guidance. A training leaves it out: the preset will not run while it is on."))
    cfg = f"{settings['cfg']:g}" if "cfg" in settings else None
    return (settings.get("prompts"), settings.get("negative"), cfg, settings.get("width"), settings.get("height"),
            None if steps is None else str(steps), f"1, {strength:g}" if strength and strength < 1 else None,
            " ".join(notes))
