"""Tests in a real WebUI host: its modules in this process (test_modules.py), its server over HTTP (test_server.py).

Run by tests/hosts/test_webui_hosts.py with the host's own Python and $S4S_WEBUI_HOST, its folder. Under any other
Python nothing here is collected.
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]


def import_clone() -> None:
    """The clone as the package s4s, which is not installed in a host's environment."""
    spec = spec_from_file_location("s4s", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    sys.modules["s4s"] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules["s4s"])


def pytest_configure(config):
    if config.rootpath.resolve() == HERE:
        import_clone()
        config.pluginmanager.import_plugin("figures")


def pytest_ignore_collect(collection_path, config):
    if collection_path.suffix == ".py" and config.rootpath.resolve() != HERE:
        return True
