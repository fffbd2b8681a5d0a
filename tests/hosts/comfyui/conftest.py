"""Tests in a real ComfyUI: in this process (fixtures host, tiny, conditioning) and over HTTP (fixture comfy).

Run by tests/hosts/test_comfyui_hosts.py, or by hand with a host's own Python (see pytest.ini beside this file). Under
any other Python nothing here is collected.
"""

import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def _reason(config) -> str | None:
    if config.rootpath.resolve() != HERE:
        return "these tests run in a host's own Python: see tests/hosts/test_comfyui_hosts.py"
    import s4s_host
    return s4s_host.missing()


def pytest_ignore_collect(collection_path, config):
    if collection_path.suffix == ".py" and collection_path.stem != "test_host" and _reason(config):
        return True
    if collection_path.name == "test_host.py" and config.rootpath.resolve() != HERE:
        return True


def pytest_configure(config):
    """The host comes up before any test module imports a part of it."""
    if _reason(config) is None:
        import tempfile

        config.pluginmanager.import_plugin("figures")
        import s4s_host
        base = s4s_host.make_base(Path(tempfile.mkdtemp(prefix="s4s-host-")))
        config.s4s_base = base
        s4s_host.start(base)
        import emoji_race
        import tiny_models
        emoji_race.add_emoji(base)
        tiny_models.write_all(base / "models")


def pytest_unconfigure(config):
    if base := getattr(config, "s4s_base", None):
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="session")
def base(pytestconfig) -> Path:
    """The host's base directory: models, custom_nodes, input, output."""
    return pytestconfig.s4s_base


@pytest.fixture(scope="module", autouse=True)
def nothing_left_over(base):
    """A preset one file's tests trained is made for a model that all share: it would be chosen in the next file."""
    folder = base / "models" / "s4s_presets"
    before = set(folder.glob("*"))
    yield
    for path in set(folder.glob("*")) - before:
        path.unlink()


@pytest.fixture(scope="session")
def models(base):
    """name -> MODEL, loaded once: sd15 (eps), v (sd15 patched to v-prediction), sd3, wan, flux (newer hosts)."""
    import functools

    import s4s_tools

    @functools.cache
    def get(name: str):
        if name == "v":
            return s4s_tools.v_prediction(get("sd15"))
        if not (base / "models" / f"{s4s_tools.KINDS[name].file}.safetensors").exists():
            pytest.skip(f"this ComfyUI cannot open a tiny {name}")
        return s4s_tools.load(base, name)
    return get


@pytest.fixture
def installed(base):
    """install(preset) for the length of one test, in which no other preset of the user's is there."""
    import s4s_tools
    folder, aside = base / "models" / "s4s_presets", base / "aside"
    folder.rename(aside)
    folder.mkdir()

    def install(preset):
        s4s_tools.install(base, preset)
        return preset
    yield install
    shutil.rmtree(folder)
    aside.rename(folder)


@pytest.fixture(scope="session")
def comfy(base):
    """A running server on the same base directory, with presets for the tiny models installed."""
    import s4s_client
    server = s4s_client.Server(base)
    try:
        yield server.wait()
    finally:
        server.stop()
