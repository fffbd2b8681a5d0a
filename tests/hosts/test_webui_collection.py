"""The sub-tab Presets in the stand-in for a host: adding, renaming, deleting, joining, and the page after it."""

import json
import pickle
import sys
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from s4s.s4s_nodes.core import preset_file
from s4s.s4s_nodes.core.preset_file import to_bytes
from tests.hosts.webui_double import Host
from tests.hosts.webui_presets import eps_preset, shelved

KEPT, SHIPS = "toy, sd15", "gits-sd15"


@pytest.fixture
def host(monkeypatch, tmp_path):
    folder = shelved(tmp_path / "models")
    (folder / "broken.safetensors").write_bytes(to_bytes(eps_preset("<b>half of a preset"))[:-9])
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    made = Host(monkeypatch, tmp_path / "models")
    made.load()
    made.folder, made.collection, made.outside = folder, made.part("collection"), tmp_path / "uploads"
    made.outside.mkdir()
    return made


def names(host) -> list[str]:
    return [path.stem for path in sorted(host.folder.iterdir())]


def downloaded(host, name="new", **changes):
    return preset_file.save(replace(eps_preset(name), **changes), host.outside / f"downloaded {name}.safetensors")


def test_the_list_shows_every_preset_and_what_cannot_be_read(host):
    preset_file.save(replace(eps_preset("<i>raced</i>"), scores={"calls6": {"ratio": 0.9, "recommended": False},
                                                            "calls8": {"ratio": 1.5, "recommended": True}}),
                host.folder / "raced.safetensors")
    preset_file.save(replace(eps_preset("odd"), scores={"calls6": {"ratio": -1.0}}), host.folder / "odd.safetensors")
    page = host.collection.listing()
    rows = {row.split("</td>")[0].rpartition("<td>")[2]: row for row in page.split("</thead>")[1].split("</tr>")}
    assert "<td>sd15, eps</td><td>4, 6 and 8</td><td>no</td><td>–</td><td>yours</td>" in rows[KEPT]
    assert "1.11 times further to 1.50 times closer</td><td>not calls6" in rows["raced"]
    assert "-1.00 times closer" in rows["odd"] and "ships with S4S" in rows[SHIPS]
    assert "broken.safetensors" in page.split("</table>")[1] and "<b>" not in page


def test_a_long_list_reads_the_folders_no_oftener_than_a_short_one(host, monkeypatch):
    shelf, reads = host.part("shelf"), []
    paths = type(shelf.library())._paths
    monkeypatch.setattr(type(shelf.library()), "_paths", lambda self: reads.append(self) or paths(self))
    asks = [host.collection.listing, lambda: shelf.label_of(eps_preset("none")), lambda: shelf.preset_of("S4S none")]
    shown, _, _ = (ask() for ask in asks)
    once = len(reads)
    for i in range(12):
        preset_file.save(eps_preset(f"more {i}"), host.folder / f"more {i}.safetensors")
    assert host.collection.listing().count("<tr>") == shown.count("<tr>") + 12
    assert [ask() for ask in asks[1:]] == [shelf.labels.AUTO, None] and len(reads) == 2 * once


def test_a_chosen_preset_is_described_with_its_licence_and_its_file(host):
    preset_file.save(replace(eps_preset("mine"), licence="CC0 <1>", source="here"), host.folder / "mine.safetensors")
    words, file, tick = host.collection.show("mine")
    assert "calls5_from1.9: 5 calls" in words and tick is False
    assert words.endswith("<p>License: CC0 &lt;1&gt;</p><p>Source: here</p>")
    assert file == {"value": str(host.folder / "mine.safetensors"), "visible": True}
    words, file, _ = host.collection.show("broken")
    assert "not a whole .safetensors file" in words and file == {"value": None, "visible": False}
    assert host.collection.show(None) == ("", {"value": None, "visible": False}, False)
    assert "there is no preset" in host.collection.show("../secret")[0]


@pytest.mark.parametrize("wrapped", [str, lambda path: SimpleNamespace(name=str(path))])        # gradio 4, gradio 3
def test_presets_are_added_under_the_name_they_carry(host, wrapped):
    done = host.collection.add([wrapped(downloaded(host, "one: two")), wrapped(downloaded(host, "three"))])
    assert done.chosen == "three" and {"one_ two", "three"} < set(names(host))
    assert done.message.startswith("downloaded one: two.safetensors: added as one_ two. It is for sd15, eps prediction")
    assert preset_file.load(host.folder / "one_ two.safetensors").name == "one: two"


def test_a_file_that_is_refused_leaves_nothing_and_hinders_no_other(host):
    """Cut, of another kind, of a newer format, taken: each in words, and the good one is there."""
    good = downloaded(host, "good")
    cut, other, newer = (host.outside / f"{name}.safetensors" for name in ("cut", "other", "newer"))
    cut.write_bytes(good.read_bytes()[:300])
    save_file({"weight": torch.zeros(3)}, other)
    newer.write_bytes(good.read_bytes().replace(b'\\"format_version\\": 1', b'\\"format_version\\": 7'))
    before = names(host)
    done = host.collection.add(list(map(str, (cut, other, newer, downloaded(host, KEPT), good))))
    assert names(host) == sorted([*before, "good"])
    words = done.message.splitlines()
    for line, said in zip(words, ("cut.safetensors: is not a whole", "there is no s4s_preset entry", "update S4S",
                                  "already exists: give the preset another name", "added as good")):
        assert said in line
    with pytest.raises(ValueError, match="choose preset files"):
        host.collection.add(None)


def test_a_file_of_another_project_is_refused_in_words_and_executes_nothing(host):
    ran = host.outside / "ran"

    class Hostile:
        def __reduce__(self):
            return open, (str(ran), "w")
    (host.outside / "bad.pkl").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(ValueError, match=r"bad\.pkl is no preset file.*Version 0.4 was the last that imported"):
        host.collection.add([str(host.outside / "bad.pkl")])
    assert not ran.exists() and "bad" not in names(host)


def test_rename_keeps_what_is_there_and_what_ships(host):
    done = host.collection.rename(KEPT, " portraits ")
    assert (done.chosen, done.renamed) == ("portraits", {KEPT: "portraits"}) and KEPT not in names(host)
    assert preset_file.load(host.folder / "portraits.safetensors").name == "portraits"
    (host.folder / "portraits.safetensors").rename(host.folder / "by hand.safetensors")
    assert host.collection.rename("by hand", "by hand").chosen == "by hand"
    assert preset_file.load(host.folder / "by hand.safetensors").name == "by hand"
    host.collection.rename("by hand", "portraits")
    for name, new, why in (("portraits", "toy-flow", "already exists"), (SHIPS, "mine", "ships with S4S"),
                           (None, "mine", "no preset is chosen"), ("portraits", "", "1 to 100 printable characters"),
                           ("broken", "mine", "not a whole"), ("gone", "mine", "there is no preset")):
        with pytest.raises(ValueError, match=why):
            host.collection.rename(name, new)
    assert names(host) == ["broken", "portraits", "toy-flow"]


def test_delete_wants_a_tick_and_takes_ones_own_only(host):
    for name, sure, why in ((KEPT, False, "tick Delete for good"), (SHIPS, True, "ships with S4S"),
                            (SHIPS, False, "ships with S4S"), (None, True, "no preset is chosen")):
        with pytest.raises(ValueError, match=why):
            host.collection.delete(name, sure)
    host.shared.opts.s4s_default_sd15 = KEPT
    assert "still name it for sd15" in host.collection.delete(KEPT, True).message
    host.collection.delete("broken", True)
    assert names(host) == ["toy-flow"]


def test_presets_of_several_cfgs_are_joined(host):
    for cfg in (3, 7):
        preset_file.save(replace(eps_preset(f"at {cfg}"), training={"cfg": cfg}), host.folder / f"at {cfg}.safetensors")
    done = host.collection.join(["at 7", "at 3"], "both")
    assert done.chosen == "both" and "for cfg 3 to 7. It is for sd15, eps prediction, 4, 6, 8 steps" in done.message
    assert {"calls6_cfg3", "calls6_cfg7"} < set(preset_file.load(host.folder / "both.safetensors").tables)
    for asked, new, why in ((["at 3", "at 7"], "both", "already exists"), (["at 3"], "x", "at least two"),
                            ([], "x", "at least two"), (["at 3", "toy-flow"], "x", "one model"),
                            (["at 3", "at 7"], "", "1 to 100 printable")):
        with pytest.raises(ValueError, match=why):
            host.collection.join(asked, new)


class Dropdown:
    """A host's component: what it lets a user choose."""

    def __init__(self, choices=()):
        self.choices = list(choices)


def test_the_page_follows_a_rename_and_a_deletion(host):
    """No dropdown goes on showing what is gone: hosts refuse to generate then."""
    labels = [row.label for row in host.schedules.schedulers]
    lists = {"txt2img_scheduler": Dropdown(labels), "hr_scheduler": Dropdown(["Use same scheduler", *labels]),
             "s4s_race_preset": Dropdown(), "s4s_collection_preset": Dropdown(), "s4s_collection_several": Dropdown()}

    def page_after(work, asked, shown):
        words, page, files, new, sure, whole, *updates = host.collection.apply(lists, 4, work, *asked, *shown)
        assert (files, new, sure, whole) == ({"value": None}, {"value": ""}, {"value": False}, {"value": ""})
        return page, dict(zip(lists, updates))
    page, now = page_after(host.collection.rename, (KEPT, "portraits"),
                           ("S4S toy_ sd15", "Use same scheduler", "S4S toy_ sd15", KEPT, [KEPT, "toy-flow"]))
    assert "<td>portraits</td>" in page and "S4S portraits" in [row.label for row in host.schedules.schedulers]
    assert now["txt2img_scheduler"]["value"] == now["s4s_race_preset"]["value"] == "S4S portraits"
    assert "value" not in now["hr_scheduler"] and "S4S portraits" in now["hr_scheduler"]["choices"]
    assert now["s4s_collection_preset"]["value"] == "portraits" and "broken" in now["s4s_collection_preset"]["choices"]
    assert now["s4s_collection_several"]["value"] == ["portraits", "toy-flow"]
    _, now = page_after(host.collection.delete, ("portraits", True),
                        ("S4S portraits", "S4S toy-flow", "S4S portraits", "portraits", ["portraits"]))
    assert now["txt2img_scheduler"]["value"] == "S4S Auto" and now["s4s_race_preset"]["value"] is None
    assert "value" not in now["hr_scheduler"] and now["s4s_collection_preset"]["value"] is None
    assert now["s4s_collection_several"]["value"] == [] and "portraits" not in json.dumps(now)


def test_what_cannot_be_done_changes_the_report_only(host):
    lists = {"s4s_collection_preset": Dropdown()}
    words, *others = host.collection.apply(lists, 4, host.collection.delete, SHIPS, True, None)
    assert "ships with S4S" in words and others == [{}] * 6


# --- a host that others reach ---------------------------------------------------------------------------------------

def test_only_uploaded_files_are_read(host):
    """A request can name any file: gradio 3 hands over a copy of it, and the name in orig_name."""
    inside, secret = downloaded(host, "inside"), host.outside.parent / "secret.safetensors"
    secret.write_bytes(inside.read_bytes())
    link = host.outside / "link.safetensors"
    link.symlink_to(secret)
    before = names(host)
    for asked in (str(secret), f"{host.outside}/../secret.safetensors", str(link), "secret.safetensors",
                  SimpleNamespace(name=str(secret)), SimpleNamespace(name=str(inside), orig_name=str(secret))):
        with pytest.raises(ValueError, match="was not uploaded on this page") as caught:
            host.collection.add([asked])
        assert str(host.outside.parent) not in str(caught.value)
    assert names(host) == before
    good = SimpleNamespace(name=str(inside), orig_name=str(inside))
    assert host.collection.add([good]).chosen == "inside"


def test_an_open_host_adds_renames_deletes_and_joins_nothing(host):
    lists, before = {"s4s_collection_preset": Dropdown()}, names(host)
    here = host.collection
    asked = ((here.add, ([str(downloaded(host))],)), (here.rename, (KEPT, "mine")), (here.delete, (KEPT, True)),
             (here.join, ([KEPT, "toy-flow"], "both")))
    host.shared.cmd_opts = SimpleNamespace(disable_extension_access=True)
    for work, inputs in asked:
        words, *others = here.apply(lists, 4, work, *inputs, None)
        assert "--enable-insecure-extension-access" in words and others == [{}] * 6
    assert names(host) == before and KEPT in here.listing()
    host.shared.cmd_opts.disable_extension_access = False
    assert here.apply(lists, 4, here.delete, KEPT, True, None)[0] == f"deleted {KEPT}"


def test_an_open_host_writes_no_races_scores_into_a_preset(host, monkeypatch):
    parts = {"Scene": dict, "Show": object, "inside": None, "sheet": None}
    monkeypatch.setitem(sys.modules, f"{host.collection.__package__}.inside", SimpleNamespace(**parts))
    work = import_module(f"{host.collection.__package__}.work")
    race, label = work.race, "S4S toy_ sd15"
    host.shared.cmd_opts = SimpleNamespace(disable_extension_access=True)
    with pytest.raises(ValueError, match="--enable-insecure-extension-access"):
        race(label, write=True)
    assert callable(race(label))
    host.shared.cmd_opts.disable_extension_access = False
    assert callable(race(label, write=True))


def test_a_checkpoint_behind_a_link_is_not_offered_and_not_deleted(host):
    models = host.folder.parent / "Stable-diffusion"
    models.mkdir()
    save_file({"weight": torch.zeros(3)}, models / "checkpoint.safetensors")
    preset_file.save(eps_preset("far"), models / "far.safetensors")
    (host.folder / "all").symlink_to(models, target_is_directory=True)
    (host.folder / "one.safetensors").symlink_to(models / "checkpoint.safetensors")
    save_file({"weight": torch.zeros(3)}, host.folder / "misplaced.safetensors")
    lists = {"s4s_collection_preset": Dropdown()}
    offered = host.part("dropdowns").refreshed(lists)[0]["choices"]
    assert {KEPT, "broken", SHIPS} < set(offered)
    assert not {"all/checkpoint", "all/far", "one", "misplaced"} & set(offered)
    for name in ("all/checkpoint", "all/far", "one", "misplaced"):
        for work, asked in ((host.collection.delete, True), (host.collection.rename, "x")):
            with pytest.raises(ValueError, match="is behind a link|is not an S4S preset"):
                work(name, asked)
    assert len(list(models.iterdir())) == 2 and (host.folder / "misplaced.safetensors").exists()
    assert "all/far" in host.collection.listing()                # it can be used


@pytest.mark.parametrize("name", ["../x", "/etc/x", "CON", "a:b", ".hidden", "state", "a\u202eb"])
def test_a_name_that_is_no_preset_s_is_refused(host, name):
    before = names(host)
    for work, asked in ((host.collection.rename, KEPT), (host.collection.join, [KEPT, "toy-flow"])):
        with pytest.raises(ValueError, match="Choose another name"):
            work(asked, name)
    assert names(host) == before


def test_no_message_shows_where_the_server_keeps_things(host, monkeypatch):
    here, root = host.collection, str(host.folder.parents[1])
    lists = {"s4s_collection_preset": Dropdown()}
    (host.folder / "taken.safetensors").symlink_to(host.folder / "nothing.safetensors")
    damaged = host.outside / "cut.safetensors"
    damaged.write_bytes(b"x")

    def fails(*_, **__):
        raise OSError(28, "No space left on device", str(host.folder / "x.safetensors"))
    said = [here.listing(), here.show("taken")[0], here.show("broken")[0]]
    for work, *asked in ((here.delete, KEPT, False), (here.rename, KEPT, "toy-flow"), (here.rename, "broken", "x"),
                         (here.add, [str(damaged)]), (here.add, [str(host.outside / "gone.safetensors")])):
        said.append(here.apply(lists, 4, work, *asked, None)[0])
    monkeypatch.setattr(here, "save_new", fails)
    said.append(here.apply(lists, 4, here.add, [str(downloaded(host))], None)[0])
    assert all(words and root not in words for words in said), said
    assert said[-1] == "downloaded new.safetensors, not added: No space left on device: x.safetensors"


def test_an_added_or_renamed_preset_hides_none_that_ships(host):
    for attempt in (lambda: host.collection.add([str(downloaded(host, SHIPS))]),
                    lambda: host.collection.rename(KEPT, SHIPS)):
        with pytest.raises(ValueError, match="ships with S4S, and another of that name would hide it"):
            attempt()
    assert names(host) == ["broken", KEPT, "toy-flow"] and host.part("shelf").library().ships(SHIPS)


def test_the_list_holds_what_a_user_can_use(host):
    assert "digits-" not in host.collection.listing() and "transfer-eps" in host.collection.listing()
    preset_file.save(replace(eps_preset("few"), scores={"calls6": {"ratio": 1.2, "recommended": True, "seeds": 2}}),
                     host.folder / "few.safetensors")
    assert "1.20 times closer, on 2 seeds</td><td>yes" in host.collection.listing()


def test_chips_are_sent_with_the_choices(host):
    """A page may know chips by their place in the list, which a new preset moves."""
    several = SimpleNamespace(choices=[])
    wanted = {"s4s_collection_several": several}
    assert host.part("dropdowns").refreshed(wanted, [[KEPT]])[0]["value"] == [KEPT]
    assert host.part("dropdowns").refreshed(wanted, [[KEPT, "gone"]])[0]["value"] == [KEPT]
    assert host.part("dropdowns").refreshed(wanted)[0]["value"] == []
