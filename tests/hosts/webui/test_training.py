"""A training and a race in a host's server: minutes, for each asks the network a thousand times."""

import json
import re
import shutil
import threading
import time

import pytest
import s4s_webui_host as hosts

TRAINING = {"name": "trained here", "prompts": ["a cat", "a red house <lora:none:1>"], "negative": "bad", "cfg": 2.0,
            "width": 64, "height": 64, "calls": [2], "budget": 500, "teacher_calls": 8, "race_seeds": 2}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    data = hosts.make_data(tmp_path_factory.mktemp("data"))
    made = hosts.Server(data)
    yield made
    made.stop()
    shutil.rmtree(data / "models" / "Stable-diffusion", ignore_errors=True)


def infotext(server, schedule: str, steps: int = 4) -> str:
    """What so many steps of a schedule type say of themselves."""
    answer = server.call("/sdapi/v1/txt2img", {
        "prompt": "a cat", "width": 64, "height": 64, "cfg_scale": 2, "steps": steps, "seed": 1,
        "sampler_name": "S4S", "scheduler": schedule})
    return json.loads(answer["info"])["infotexts"][0]


def test_a_preset_is_trained_for_the_loaded_checkpoint_and_is_there_at_once(server):
    cost = server.call("/s4s-test/forecast", TRAINING)
    calls = int(re.search(r"([\d,]+) network calls", cost["words"][0])[1].replace(",", ""))
    assert 250 < calls <= TRAINING["budget"] and cost["images"] == 0            # an upper bound within the budget
    assert "S4S: fallback " in infotext(server, "Automatic", 2)                 # the shelf's are another checkpoint's
    made = server.call("/s4s-test/train", TRAINING, seconds=2400)
    assert "error" not in made, made
    assert made["images"] == 1 and made["scores"]["calls2"]["seeds"] == 2, made
    assert any("saved as" in words for words in made["words"]) and made["previewed"]
    assert "S4S trained here" in server.call("/s4s-test/rows")["schedules"]
    assert "S4S: trained here " in infotext(server, "S4S trained here", 2)
    won = not made["scores"]["calls2"]["lost"]                                  # a loser waits to be named
    assert ("S4S: trained here " in infotext(server, "Automatic", 2)) == won    # made for these very weights
    again = server.call("/s4s-test/train", TRAINING, seconds=2400)
    assert "was trained before" in again["words"][0]
    assert sum("trained here" in label for label in server.call("/s4s-test/rows")["schedules"]) == 1


def test_a_training_is_interrupted_and_refused_in_words(server):
    asked, done = {**TRAINING, "name": "stopped", "budget": 100_000}, []
    runner = threading.Thread(target=lambda: done.append(server.call("/s4s-test/train", asked, seconds=900)))
    runner.start()
    time.sleep(5)
    server.call("/sdapi/v1/interrupt", {})
    runner.join(120)
    assert not runner.is_alive() and done[0]["scores"] is None and "stopped" in done[0]["words"][-1]
    assert "calls4 exact" in infotext(server, "S4S toy_ sd15")
    refused = server.call("/s4s-test/train", {**TRAINING, "name": "toy, sd15"}, seconds=2400)
    assert "is a preset for another model" in refused["error"]


def test_an_estimate_at_several_sizes_leaves_the_host_as_it_was(server):
    before = infotext(server, "S4S toy_ sd15")
    cost = server.call("/s4s-test/forecast", {**TRAINING, "more_sizes": [[96, 64], [64, 64]]})
    assert "2 rows, " in cost["words"][0], cost
    assert infotext(server, "S4S toy_ sd15") == before


def test_a_distilled_models_own_sampler_teaches(server):
    asked = {**TRAINING, "name": "distilled", "calls": [2], "teacher": "euler, nowhere", "teacher_calls": 8}
    refused = server.call("/s4s-test/train", asked)
    assert "unknown teacher 'euler, nowhere': use a solver and a schedule" in refused["error"], refused
    asked["teacher"] = "euler, sgm_uniform"
    runner = threading.Thread(target=server.call, args=("/s4s-test/train", asked, 900))
    runner.start()
    end = time.monotonic() + 300
    while "teacher euler, sgm_uniform, 8 calls: off by" not in server.text() and time.monotonic() < end:
        time.sleep(1)
    server.call("/sdapi/v1/interrupt", {})
    runner.join(120)
    assert "teacher euler, sgm_uniform, 8 calls: off by" in server.text()


RACE = {"prompts": ["a cat", "a red house"], "cfg": 2.0, "width": 64, "height": 64, "label": "S4S toy_ sd15",
        "calls": [4], "seeds": 2, "budget": 1400}


def test_a_race_says_how_near_each_comes_and_writes_it_where_asked(server):
    raced = server.call("/s4s-test/race", {**RACE, "write": True}, seconds=2400)
    assert raced["images"] == 1 and set(raced["scores"]) == {"calls4"} and raced["scores"]["calls4"]["seeds"] == 2
    assert any(" baselines that took part, on 2 seeds" in words for words in raced["words"])
    assert "scores written into " in raced["words"][-1]


def test_samplers_of_the_webui_take_part_by_name(server):
    asked = {**RACE, "seeds": 9, "budget": 3000, "samplers": ["Heun", "euler a"]}
    raced = server.call("/s4s-test/race", asked, seconds=2400)
    report = "\n".join(raced["words"])
    assert "by the Fréchet distance" in report and "Euler a of WebUI, " in report, raced
    assert raced["scores"]["calls4"]["feature_space"] == "means and deviations of the latent's channels"
    refused = server.call("/s4s-test/race", {**RACE, "samplers": ["nothing such"]}, seconds=100)
    assert "unknown sampler 'nothing such' here: use some of " in str(refused)
    refused = server.call("/s4s-test/race", {**RACE, "samplers": ["DPM fast"]}, seconds=100)
    assert "DPM fast runs its own loop and cannot be raced" in str(refused)


def test_a_race_is_interrupted(server):
    done = []
    runner = threading.Thread(target=lambda: done.append(server.call("/s4s-test/race", {**RACE, "write": True}, 900)))
    runner.start()
    time.sleep(5)
    server.call("/sdapi/v1/interrupt", {})
    runner.join(120)
    assert not runner.is_alive() and done[0]["scores"] is None and "nothing was written" in done[0]["words"][-1]


def test_a_race_is_refused_in_words(server):
    for changes, why in (({"label": "S4S none"}, "there is no preset"), ({"calls": [7]}, "none for 7"),
                         ({"label": "S4S toy-flow", "calls": []}, "cannot be raced on this model"),
                         ({"budget": 100}, "too small for this race"), ({"prompts": []}, "no prompt is given")):
        assert why in server.call("/s4s-test/race", {**RACE, **changes}, seconds=900)["error"]
