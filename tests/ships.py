"""What ships: every file of the registry's archive or of the wheel with its SHA-256, as a bill of materials.

    python -m tests.ships registry > LIST         or: wheel; CycloneDX 1.5, JSON
    python -m tests.ships check LIST FOLDER       what an installed folder lacks, and holds besides

Nothing else ships: no package is bundled. `pip` and hosts bring those that pyproject.toml names.
"""

import hashlib
import json
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[1]


def registry() -> list[str]:
    """The names in the archive of the ComfyUI registry: what git tracks, without what .comfyignore names."""
    return sorted(set(tracked()) - set(tracked("--ignored", "--exclude-from=.comfyignore")))


def wheel() -> list[str]:
    """The names in the wheel, from the package's folder on: the modules and the data that pyproject.toml lists."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packages = re.findall(r'"s4s\.?(.*?)"', re.search(r"^packages = \[(.*?)\]", text, re.M | re.S)[1])
    data = re.search(r"^\[tool.setuptools.package-data\]\n(.*?)\n\n", text, re.M | re.S)[1]
    patterns = {name: re.findall(r'"(.*?)"', some) for name, some in
                re.findall(r'^"?s4s\.?([\w.]*)"? = \[(.*?)\]', data, re.M)}
    return sorted(path.relative_to(ROOT).as_posix() for package in packages
                  for path in ROOT.joinpath(*package.split(".")).iterdir()
                  if any(fnmatch(path.name, pattern) for pattern in ["*.py", *patterns.get(package, [])]))


def tracked(*options: str) -> list[str]:
    """Raises OSError or CalledProcessError where this is no clone, or git is not there."""
    done = subprocess.run(["git", "ls-files", "-z", "--cached", *options], cwd=ROOT, capture_output=True, text=True,
                          check=True)
    return [name for name in done.stdout.split("\0") if name]


def bill(names: list[str]) -> dict:
    """The list as CycloneDX; the same files give the same list."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.*?)"', text, re.M)[1]
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
            "metadata": {"component": {"type": "application", "name": "s4s-sampler", "version": version,
                                       "licenses": [{"license": {"id": "MIT"}}]}},
            "components": [{"type": "file", "name": name,
                            "hashes": [{"alg": "SHA-256", "content": digest(ROOT / name)}]} for name in names]}


def check(listed: dict, folder: Path) -> list[str]:
    """How a folder differs from a list, in words; caches and what belongs to git are left out."""
    known = {one["name"]: one["hashes"][0]["content"] for one in listed["components"]}
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")
             if path.is_file() and not {"__pycache__", ".git"} & {*path.relative_to(folder).parts}}
    return [*(f"missing: {name}" for name in sorted(known.keys() - there.keys())),
            *(f"not listed: {name}" for name in sorted(there.keys() - known.keys())),
            *(f"changed: {name}" for name in sorted(known.keys() & there.keys()) if digest(there[name]) != known[name])]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: list[str]) -> int:
    match arguments:
        case ["registry" | "wheel" as kind]:
            print(json.dumps(bill({"registry": registry, "wheel": wheel}[kind]()), indent=1))
            return 0
        case ["check", name, folder]:
            differences = check(json.loads(Path(name).read_text(encoding="utf-8")), Path(folder))
            print("\n".join(differences) or "the same")
            return int(bool(differences))
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
