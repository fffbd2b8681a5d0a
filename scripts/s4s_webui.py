"""WebUI's door: every host of that family executes this file at its start and again at Reload UI.

The clone becomes a package under a name of its own. Some hosts keep every extension on sys.path for good, others only
while this file runs, and names like `training` belong to everybody: nothing is looked for there.
"""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

NAME = "s4s_webui_clone"

jobs = sys.modules.get(f"{NAME}.s4s_nodes.hosts.webui.jobs")
for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
    del sys.modules[name]                           # Reload UI after an update: no module of the old version stays
sys.modules[NAME] = ModuleType(NAME)
sys.modules[NAME].__path__ = [str(Path(__file__).parents[1])]

S4S, NOTICE = import_module(f"{NAME}.s4s_nodes.hosts.webui.door").load(jobs)        # hosts look for classes by value
