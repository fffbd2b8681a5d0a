"""Lets the API pages read the package under its name: the root of the repository is the package `s4s`."""

import tempfile
from pathlib import Path

from mkdocs.plugins import event_priority


@event_priority(100)                    # before mkdocstrings reads its settings
def on_config(config):
    """Link a folder named s4s to the root, and let mkdocstrings look there; the sources are read, never imported."""
    folder = Path(tempfile.mkdtemp(prefix="s4s-docs-"))
    (folder / "s4s").symlink_to(Path(config.config_file_path).resolve().parent, target_is_directory=True)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(folder)]
    return config
