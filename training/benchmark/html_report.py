"""A run or a race as one HTML page that loads nothing from elsewhere and runs no script, so you can send it."""

import base64
import json
import re
from pathlib import Path

import jinja2
import numpy as np

from ...s4s_nodes.core import Preset, Table, write_atomically
from ...s4s_nodes.core.levels import starts_below
from ...s4s_nodes.core.lists import range_text
from ...s4s_nodes.core.scores import compared, lost
from ...s4s_nodes.select.match import cfg_range
from ..run_identity import CONFIG, LOG
from .host_race import frechet_lines
from .race import TableResult, row_of
from .verdict import EVEN, UNSURE, WITHIN

NAME = "report.html"
PICTURES = {"sheet": "The same noise by teacher, usual choice, best baseline and S4S, with their errors.",
            "race": "RMSE to the teacher with 95 % intervals over seeds.",
            "solver": "Left: the noise levels of the states, and those the network is told. Right: the weights of the "
                      "predictions in the next state."}
PROVENANCE = ("checkpoint", "prompts", "size", "dtype", "guidance",
              "teacher", "teacher_error", "cfg", "resolution", "family", "base", "learn", "clock", "mode", "objective",
              "relaxed", "pairs", "seed", "budget", "iterations", "start", "baseline", "held_out_rmse",
              "nothing_gained", "model_calls", "seconds", "processes", "trainer", "imported", "evidence", "note")


def write(folder, preset: Preset, raced: dict[str, TableResult] | None = None) -> Path:
    """Write FOLDER/report.html of a preset, of its races, and of the pictures and settings in the folder."""
    return write_atomically(Path(folder) / NAME, page(preset, raced or {}, Path(folder)).encode())


def page(preset: Preset, raced: dict[str, TableResult], folder: Path) -> str:
    """The page's text. Whatever names and records hold is shown as text."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
    tables = {**preset.tables, **{name: race.learned.table for name, race in raced.items()}}
    names = sorted(tables, key=lambda name: (tables[name].calls, name not in preset.tables, name))
    facts, config = preset.training, folder / CONFIG
    settings = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
    return template.render(
        preset=preset, tables=[_table(preset, name, tables[name], raced.get(name), folder) for name in names],
        spent=facts.get("model_calls"), seconds=facts.get("seconds"),
        sheet=_uri(folder / "sheet.png") if raced else None,
        provenance=_provenance(preset), settings=[(name, _spoken(value)) for name, value in settings.items()])


def _provenance(preset: Preset) -> list[tuple[str, str]]:
    record, trained = preset.training, cfg_range(preset)
    known = [(name.replace("_", " "), range_text(trained) if name == "cfg" and trained else _spoken(record[name]))
             for name in PROVENANCE if name in record]
    return [*known, ("licence", preset.licence or "not stated"), ("source", preset.source or "not stated")]


def _table(preset: Preset, name: str, table: Table, race: TableResult | None, folder: Path) -> dict:
    pictures = [{"kind": kind, "uri": uri, "caption": caption} for kind, caption in PICTURES.items()
                if (race or kind == "solver") and (uri := _uri(folder / f"{kind}-{name}.png"))]
    scores = race.scores if race else preset.score(name)
    return {"id": f"table-{name}", "title": _title(preset, name, table, race), "rows": _numbers(table),
            "pictures": pictures, "curve": _curve(folder / LOG, name),
            "result": _result(scores) if "ratio" in scores else None, "verdict": race and race.verdict,
            "lost": bool(lost(scores)), "race": race and _race(race)}


def _curve(log: Path, name: str) -> dict | None:
    """A run's held-out error by the network calls it has spent, as points on a field 600 wide and 160 high."""
    noted = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    points = [(row["model_calls"], error) for row in noted if row["table"] == name and (error := row["held_out_rmse"])]
    if len({error for _, error in points}) < 2:
        return None
    calls, errors = map(np.array, zip(*points))
    across = 600 * (calls - calls[0]) / (calls[-1] - calls[0])
    down = 160 * np.log(errors.max() / errors) / np.log(errors.max() / errors.min())
    return {"points": " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down)), "calls": (calls[0], calls[-1]),
            "errors": (errors.max(), errors.min())}


def _result(scores: dict) -> tuple[str, str]:
    """(how many times closer or further, what that says) of a race."""
    times, side = compared(scores["ratio"], scores.get("ratio_95", ()))
    times, _, interval = times.partition(" ")
    words = {UNSURE: "too few seeds to decide", EVEN: "nothing was gained: it is the baseline",
             WITHIN: "within the teacher's error"}.get(str(scores.get("verdict")))
    clause = f"{side} the teacher than the best baseline {interval}".rstrip()
    return times, f"{clause}: {words}" if words else clause


def _title(preset: Preset, name: str, table: Table, race: TableResult | None) -> str:
    start = f" from sigma {table.sigmas[0]:.3g}" if starts_below(table.sigmas[0], preset.curve[0]) else ""
    learned_at = f" at cfg {match[1]}" if (match := re.search(r"_cfg([\d.]+)$", name)) else ""
    between = f" at cfg {race.scores['cfg']:g}, between those learned" if race and name not in preset.tables else ""
    return f"{table.calls} network calls{start}{learned_at}{between}"


def _race(race: TableResult) -> dict:
    entries = sorted((race.learned, *race.ranked), key=lambda entry: (-len(entry.errors), entry.rmse))
    rows, whole = [row_of(entry, race) for entry in entries], 1 + len(race.finalists)
    return {"all": len(race.ranked), "seeds": len(race.learned.errors), "space": race.scores.get("feature_space", ""),
            "top": rows[:whole], "rest": rows[whole:], "frechet": frechet_lines(race)}


def _numbers(table: Table) -> list[list[str]]:
    columns = (table.sigmas, table.query, table.scale, table.carry)
    return [[str(i), *(f"{column[i]:.4g}" for column in columns),
             *(f"{weight:.4f}" if j <= i else "" for j, weight in enumerate(table.weights[i]))]
            for i in range(table.calls)]


def _uri(path: Path) -> str | None:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" if path.exists() else None


def _spoken(value) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_spoken(part)}" for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_spoken, value))
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
