"""Run by WebUI at every start and by ComfyUI-Manager once. S4S needs only what the hosts have, so this only looks.

It installs nothing, reaches no network and says nothing when all is there.
"""

from importlib.util import find_spec

NEEDED = ("torch", "numpy", "safetensors", "tqdm")


def missing() -> list:
    """Names of packages a host should have and this Python lacks; nothing is imported to find out."""
    return [name for name in NEEDED if find_spec(name) is None]


if __name__ == "__main__" and missing():
    print(f"S4S: this Python lacks {', '.join(missing())}, which every host brings along: start it with the host's own "
          "Python, or install them there")
