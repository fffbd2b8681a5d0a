"""What the browser fetches beside the nodes: help pages and translations, whole and of today's inputs and outputs."""

import json
from urllib.parse import quote

import pytest
import s4s_host
import workflow_files

pytestmark = pytest.mark.server
LANGUAGES = ("en", "zh", "ja")


@pytest.fixture(scope="module")
def ours(comfy):
    """The nodes' own words, in the shape of a translation."""
    return workflow_files.locale_of(comfy.get("/object_info"))


def words(lang: str) -> dict:
    path = workflow_files.ROOT / "locales" / lang / "nodeDefs.json"
    return json.loads(path.read_text(encoding="utf-8"))


def shape(content):
    """A translation's keys, with nothing for its texts."""
    return {key: shape(value) for key, value in content.items()} if isinstance(content, dict) else None


def test_the_english_words_are_the_nodes_own(ours):
    assert words("en") == ours


@pytest.mark.parametrize("lang", LANGUAGES)
def test_no_word_is_missing_or_left_over(ours, lang):
    assert shape(words(lang)) == shape(ours)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_host_serves_the_words(comfy, lang):
    served = comfy.get("/i18n")[lang]["nodeDefs"]
    assert {kind: served.get(kind) for kind in words(lang)} == words(lang)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_host_serves_a_help_page_for_every_node(comfy, ours, lang):
    for kind, node in ours.items():
        page = comfy.get(f"/extensions/{quote(s4s_host.PACK)}/docs/{kind}/{lang}.md").decode()
        assert page.startswith(f"# {words(lang)[kind]['display_name']}\n")
        for name in [*node["inputs"], *(output["name"] for output in node["outputs"].values())]:
            assert f"| `{name}`" in page, (kind, name)


def test_the_browser_is_given_the_script_that_shows_words_on_the_nodes(comfy):
    [path] = [path for path in comfy.get("/extensions") if s4s_host.PACK in path or quote(s4s_host.PACK) in path]
    assert path.endswith("/s4s.js") and b'name: "S4S.words"' in comfy.get(quote(path))
