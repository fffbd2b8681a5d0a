"""Opens S4S in a host: its rows in the dropdowns, its settings, its panel. Safe to do again at any time."""

import logging
from contextlib import suppress
from importlib.util import find_spec

log = logging.getLogger("S4S")


def load(earlier=None):
    """Register S4S with this host, and return the two script classes it should find; none if it has no room.

    earlier: the module `jobs` of before a Reload UI.
    """
    if find_spec("modules.sd_samplers_kdiffusion") is None:
        log.warning("S4S: not loaded: this host has no k-diffusion samplers (SD.Next has its own kind)")
        return None, None
    if find_spec("modules.sd_schedulers") is None:
        log.warning("S4S: this host is older than WebUI 1.9 and has no schedule types: not loaded")
        return None, None
    from modules import images

    from ... import picture
    from . import dropdowns, jobs, panel, rows, settings, shelf, tab
    if earlier is not None:
        with suppress(AttributeError):      # an older version that is being updated
            jobs.JOBS.take_over(earlier.JOBS)
    picture.host_font = getattr(images, "get_font", None)
    rows.register()
    settings.register(shelf.library())
    dropdowns.register()
    tab.register()
    for problem in shelf.library().problems():
        log.warning("S4S: a preset was left out: %s", problem)
    return panel.S4SScript, panel.S4SNotice
