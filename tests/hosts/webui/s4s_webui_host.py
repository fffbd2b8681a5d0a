"""A WebUI checkout for the tests: what it is, a folder of data for it, its server."""

import base64
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
CLONE = "S4S-clone under an odd.name"      # the folder a user chose: nothing may depend on it
QUIET = ["--skip-torch-cuda-test", "--skip-install", "--skip-prepare-environment", "--skip-version-check",
         "--skip-python-version-check", "--no-download-sd-model", "--do-not-download-clip"]


def folder() -> Path:
    """The host's checkout."""
    return Path(os.environ["S4S_WEBUI_HOST"]).resolve()


def kind() -> str:
    """forge, reforge or a1111, by what the checkout holds."""
    if (folder() / "backend" / "diffusion_engine").is_dir():
        return "forge"
    return "reforge" if (folder() / "ldm_patched").is_dir() else "a1111"


def quiet() -> list[str]:
    """Of the flags that keep a start offline, those this host knows: another would end it."""
    known = (folder() / "modules" / "cmd_args.py").read_text(encoding="utf-8")
    return [flag for flag in QUIET if f'"{flag}"' in known]


def on_cpu() -> list[str]:
    if kind() == "a1111":
        return ["--use-cpu", "all", "--no-half"]
    # Forge Neo's own attention asks for an argument it has not
    return ["--always-cpu", *(["--attention-pytorch"] if _mentions("attention.py", "args.dont_upcast") else [])]


def _mentions(name: str, word: str) -> bool:
    """Whether Forge's backend uses an argument that it does not define."""
    backend = folder() / "backend"
    texts = [(backend / file).read_text(encoding="utf-8") if (backend / file).is_file() else ""
             for file in (name, "args.py")]
    return word in texts[0] and word.partition(".")[2].replace("_", "-") not in texts[1]


def make_data(path: Path, checkpoint: bool = True, learned_on_it: bool = False) -> Path:
    """A --data-dir: the clone linked in as an extension, beside one of the tests' own; a checkpoint; quick settings.

    learned_on_it: whether the presets on the shelf were learned on the checkpoint, or on another.
    """
    from webui_presets import HASHES, shelved

    for name in ("models/Stable-diffusion", "extensions", "embeddings", "probe/scripts"):
        (path / name).mkdir(parents=True, exist_ok=True)
    _link(ROOT, path / "extensions" / CLONE)
    (path / "probe").rename(path / "extensions" / "s4s-test-probe")
    shutil.copy(HERE / "probe_extension.py", path / "extensions" / "s4s-test-probe" / "scripts")
    hashes = HASHES
    if checkpoint:
        import tiny_checkpoint
        file = tiny_checkpoint.write(path / "models" / "Stable-diffusion")
        if learned_on_it:
            hashes = {"sha256_10": hashlib.sha256(file.read_bytes()).hexdigest()[:10]}
    shelved(path / "models", hashes)
    (path / "models" / "s4s_presets" / "broken.safetensors").write_bytes(b"not a preset")
    (path / "config.json").write_text(json.dumps({
        "live_previews_enable": True, "show_progress_type": "Approx cheap", "samples_save": False, "grid_save": False,
        "save_images_add_number": False, "disabled_extensions": [], "sd_checkpoint_cache": 0}), encoding="utf-8")
    return path


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source, target_is_directory=True)
    except OSError:                         # Windows without the right to link
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*", "runs", "tests"))


class Server:
    """The host's server in a process of its own, and its HTTP API."""

    def __init__(self, data: Path, *arguments: str):
        self.log = data / f"server-{time.time():.0f}.log"
        self.port, began = free_port(), time.monotonic()
        command = [sys.executable, str(HERE / "start.py"), *quiet(), *on_cpu(), "--data-dir", str(data), "--api",
                   "--server-name", "127.0.0.1", "--enable-insecure-extension-access", "--port", str(self.port),
                   *arguments]           # hosts take any --server-name for one that others reach
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GRADIO_ANALYTICS_ENABLED": "False",
                       "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, cwd=folder(), env=environment, stdout=log,
                                            stderr=subprocess.STDOUT)
        self.wait_for_start(1)
        self.seconds = time.monotonic() - began

    def wait_for_start(self, count: int, seconds: float = 900) -> None:
        """Until the log says for the count-th time that all is loaded. Raises with the end of the log.

        Nothing is asked over HTTP before: a request between the page and its API leaves reForge without the API.
        """
        end = time.monotonic() + seconds
        while self.text().count("Startup time:") < count:
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError("the server did not come up; its log ends in:\n" + self.text()[-4000:])
            time.sleep(0.5)

    def reload_ui(self) -> None:
        """Press the button of that name."""
        starts = self.text().count("Startup time:")
        self.call("/s4s-test/reload", {})
        self.wait_for_start(starts + 1)

    def call(self, path: str, body: dict | None = None, seconds: float = 240):
        """POST body, or GET. Raises RuntimeError with the server's words."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}",
                                         None if body is None else json.dumps(body).encode(),
                                         {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {error.code} {error.read().decode(errors='replace')[:600]}") from None

    def text(self) -> str:
        """What the server printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def pixels(picture: str):
    """(height, width, 3) integers of a picture in base64."""
    import io

    import numpy as np
    from PIL import Image
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")).astype(int)
