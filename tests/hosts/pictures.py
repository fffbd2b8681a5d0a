"""Shoot the pictures of docs/comfyui.md or docs/webui.md anew, in the pages of the hosts as they are today.

    HOST/.venv/bin/python -m tests.hosts.pictures comfyui --taesd FOLDER        ($COMFYUI_PATH is the checkout)
    HOST/.venv/bin/python -m tests.hosts.pictures webui                         ($S4S_WEBUI_HOST)

Run it in the repository's folder with the host's own Python, with playwright in it (pip install playwright), and with
Chromium. FOLDER holds the real taesd3_encoder and taesd3_decoder.safetensors. --base is a new folder for the host's
data; a picture shows its name.
"""

import argparse
import importlib
import io
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from PIL import Image
from playwright.sync_api import TimeoutError, sync_playwright

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"


def save(name: str, picture: bytes) -> None:
    """Write a screenshot: a PNG of few colours, or a WebP that is no wider than a page of the docs."""
    path, image = IMAGES / name, Image.open(io.BytesIO(picture)).convert("RGB")
    if path.suffix == ".png":
        image = image.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        image.save(path, optimize=True)
    else:
        image.thumbnail((1000, 1000), Image.LANCZOS)
        image.save(path, quality=75, method=6)
    print(name, image.size, path.stat().st_size, flush=True)


def clip_of(page, *parts: str, margin: int = 10) -> dict:
    """The box around parts of a page."""
    for part in parts:
        page.locator(part).last.wait_for()
    boxes = [page.locator(part).last.bounding_box() for part in parts]
    x, y = (min(box[side] for box in boxes) - margin for side in "xy")
    right, bottom = (max(box[side] + box[length] for box in boxes) for side, length in zip("xy", ("width", "height")))
    return {"x": x, "y": y, "width": right + margin - x, "height": bottom + margin // 5 - y}


def until(shown, act) -> None:
    """Act until something is shown: a page that is still being built loses clicks."""
    while not shown.is_visible():
        act()
        with suppress(TimeoutError):
            shown.wait_for(timeout=10_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("host", choices=("comfyui", "webui"))
    parser.add_argument("--taesd", type=Path)
    parser.add_argument("--base", type=Path)
    options = parser.parse_args()
    base = options.base or Path(tempfile.mkdtemp(prefix="s4s-pictures-")) / "data"
    base.mkdir(parents=True)                                # Raises FileExistsError: it is removed in the end
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"),
                                             args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.set_default_timeout(300_000)                   # a training keeps the machine busy
        try:
            importlib.import_module(f"tests.hosts.{options.host}.pictures").shoot(page, base, options.taesd)
        finally:
            browser.close()
            shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
