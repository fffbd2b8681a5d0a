"""Tests in a real WebUI host: its modules in this process (test_modules.py), its server over HTTP (test_server.py).

Run by tests/test_webui_hosts.py with the host's own Python and $S4S_WEBUI_HOST, its folder. Under any other Python
nothing here is collected.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent


def pytest_ignore_collect(collection_path, config):
    if collection_path.suffix == ".py" and config.rootpath.resolve() != HERE:
        return True
