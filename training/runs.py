"""A run on disk: configuration, cached teacher pairs, state, log, preset. Stopping it anywhere loses seconds.

    FOLDER/config.json  pairs/*.safetensors  state.safetensors  log.jsonl  NAME.safetensors (the preset)
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from tqdm.auto import tqdm

from . import denoisers
from .config import Config
from .core import Preset, preset as preset_file, write_atomically
from .forward_only import calls_per_image, learn_forward, pairs_at
from .loop import State, learn
from .pairs import VALIDATION_SEEDS, Pairs, load_targets, make_pairs, teacher_error, teacher_name, teacher_solver
from .parameters import Parameters
from .starts import settle_start

TRAINER = "s4s 0.1.0"
CHUNK = 64                  # teacher pairs made, then saved, at a time
LEARNERS = {"gradient": learn, "forward": learn_forward}
_PLAIN_STATE = ("iteration", "best_error", "rate_factor", "setbacks", "damping", "finished", "curve")


class Stopped(Exception):
    """The user stopped the run; it is saved, and the message says how to go on."""


class Run:
    """One training run in its folder: of the bundled model its configuration names, or of a source from outside.

    Raises ValueError where the folder holds another run, or the configuration cannot work.
    """

    def __init__(self, config: Config, folder, resume: bool = False, quiet: bool = False, source=None):
        self.config, self.folder, self.quiet = config, Path(folder), quiet
        self.states: dict[str, State] = {}
        self.starts: dict[str, dict] = {}           # table name -> {"schedule": ..., "sigmas": [...]}
        self.calls_before, self.seconds_before = 0, 0.0
        self._opened, self._warned = time.monotonic(), False
        self.source = source or denoisers.bundled(config.model, config.cfg, denoisers.pick_device(config.device))
        self.device = self.source.device
        self._open_folder(resume)

    # --- the course of a run ------------------------------------------------------------------------------------

    def train(self) -> Preset:
        """Make the pairs, learn every table, write the preset and return it.

        Raises Stopped on Ctrl-C, and whatever the model raises, with everything saved; a full disk is reported and
        the run goes on in memory.
        """
        try:
            return self._train()
        except KeyboardInterrupt:
            raise Stopped(f"stopped and saved; go on with: s4s train --resume {self.folder}{self._keep()}") from None
        except Exception:
            if self.states:
                self._say(f"the run broke off and is saved; go on with: s4s train --resume {self.folder}{self._keep()}")
            raise

    def _train(self) -> Preset:
        config = self.config
        solver = teacher_solver(self.source, config.teacher, config.teacher_calls)
        self.pairs = self._cached_pairs("train", range(config.seed, config.seed + config.pairs), solver)
        first = VALIDATION_SEEDS + config.seed
        self.held_out = self._cached_pairs("validation", range(first, first + config.validation), solver)
        if "teacher" not in self.starts:
            self.starts["teacher"] = {"error": teacher_error(self.source, config, self.held_out)}
        error = self.starts["teacher"]["error"]
        self._say(f"teacher {self.teacher}: its targets move by RMSE {error:.2g} "
                  "when its calls are doubled")
        for calls in config.calls:
            self._learn_table(calls)
        return self._write_preset()

    def _learn_table(self, calls: int) -> None:
        name, config = table_name(calls), self.config
        if name not in self.states:
            parameters, schedule_name, self.states[name] = settle_start(self.source, calls, self.pairs, self.held_out,
                                                                        config, self._say)
            self.starts[name] = {"schedule": schedule_name, "sigmas": parameters.start.tolist()}
        parameters, state = self.parameters(name), self.states[name]
        free = int(parameters.moving().sum())
        left = self._calls_left(parameters, state)
        self._say(f"{name}: {calls} rows, {free} free numbers, from {config.base} on {self.starts[name]['schedule']}; "
                  f"{config.iterations - state.iteration} iterations, about {left:,} network calls"
                  + (" and as many backward" if config.mode == "gradient" else ", none backward"))
        with tqdm(total=left, desc=f"learning {name}", unit="call", disable=self.quiet or None) as bar:
            def on_progress(state, loss, checked):
                bar.set_postfix({"iteration": f"{state.iteration}/{config.iterations}", "loss": f"{loss:.4f}",
                                 "held-out": f"{state.best_error:.4f}", "all calls": f"{self.model_calls:,}"})
                if checked:
                    self.save()
            self.source.on_model_calls = bar.update
            try:
                LEARNERS[config.mode](self.source, parameters, self.pairs, self.held_out, config, state, on_progress)
            finally:
                self.source.on_model_calls = None
        self.save()
        began = state.curve[0][2]
        warn = self.starts["teacher"]["error"] > state.best_error / 5
        self._say(f"{name}: held-out RMSE {began:.4f} -> {state.best_error:.4f}"
                  + (f"; the teacher's own error is not far below: use more than {config.teacher_calls} "
                     "teacher calls" if warn else ""))

    def _calls_left(self, parameters: Parameters, state: State) -> int:
        """Network calls until the table is learned: a forecast, close in gradient mode, an upper bound in forward."""
        config, left = self.config, self.config.iterations - state.iteration
        if config.mode == "forward":
            per_image = calls_per_image(parameters) + 2 * parameters.calls
            images = sum(pairs_at(done, config.iterations, config.pairs)
                         for done in range(state.iteration, config.iterations))
            return images * per_image + left * config.validation * parameters.calls
        checks = 1 + left // config.every
        return parameters.calls * (left * min(config.batch, config.pairs) + checks * config.validation)

    def parameters(self, name: str) -> Parameters:
        """The parametrisation of one of the run's tables."""
        return Parameters(np.array(self.starts[name]["sigmas"]), self.config.base, self.config.order,
                          self.source.flow, self.config.learn)

    @property
    def teacher(self) -> str:
        """The teacher in words."""
        return f"{teacher_name(self.source, self.config.teacher)}, {self.config.teacher_calls} calls"

    @property
    def model_calls(self) -> int:
        """Network calls spent by this run so far, all sessions together."""
        return self.calls_before + self.source.model_calls

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self._opened

    # --- files --------------------------------------------------------------------------------------------------

    def _open_folder(self, resume: bool) -> None:
        config_file = self.folder / "config.json"
        if config_file.exists() and not resume:
            raise ValueError(f"{self.folder} already holds a run: go on with --resume {self.folder}, or choose another "
                             "folder with --out")
        if not resume:
            write_atomically(config_file, self.config.to_json().encode())
        elif (self.folder / "state.safetensors").exists():
            self._load_state()

    def _cached_pairs(self, kind: str, seeds: range, solver) -> Pairs:
        """Pairs from the run's folder where they were saved, made and saved where not."""
        parts = []
        for start in range(seeds.start, seeds.stop, CHUNK):
            chunk = range(start, min(start + CHUNK, seeds.stop))
            path = self.folder / "pairs" / f"{kind}-{chunk.start}-{chunk.stop}.safetensors"
            if (made := load_targets(path, len(chunk))) is not None:
                target = made.to(self.device)
                parts.append(Pairs(list(chunk), self.source.noise(chunk), self.source.conditions(chunk), target))
                continue
            label = f"teacher, {kind} pairs {chunk.start - seeds.start + 1}-{chunk.stop - seeds.start} of {len(seeds)}"
            parts.append(make_pairs(self.source, chunk, solver, label, self.quiet))
            self._write(path, safetensors.torch.save({"target": parts[-1].target.contiguous().cpu()}))
            self.save()
        return Pairs(list(seeds), torch.cat([p.noise for p in parts]),
                     {key: torch.cat([p.extra[key] for p in parts]) for key in parts[0].extra},
                     torch.cat([p.target for p in parts]))

    def save(self) -> None:
        """Write state and log, whole or not at all; a failing disk is reported once and the run goes on."""
        tensors, about = {}, {}
        for name, state in self.states.items():
            tensors |= {f"{name}/vector": state.vector, f"{name}/average": state.average, f"{name}/best": state.best,
                        f"{name}/moment1": state.moments[0], f"{name}/moment2": state.moments[1]}
            about[name] = {part: getattr(state, part) for part in _PLAIN_STATE}
        tensors["version"] = torch.ones(1)
        text = json.dumps({"states": about, "starts": self.starts, "model_calls": self.model_calls,
                           "seconds": self.seconds})
        self._write(self.folder / "state.safetensors", safetensors.torch.save(
            {name: tensor.clone() for name, tensor in tensors.items()}, metadata={"s4s_run": text}))
        self._write(self.folder / "log.jsonl", self._log().encode())

    def _log(self) -> str:
        names = ("iteration", "loss", "held_out_rmse", "model_calls")
        rows = [{"table": table, **dict(zip(names, row))}
                for table, state in self.states.items() for row in state.curve]
        return "".join(json.dumps({k: None if isinstance(v, float) and not math.isfinite(v) else v
                                   for k, v in row.items()}) + "\n" for row in rows)

    def _load_state(self) -> None:
        path = self.folder / "state.safetensors"
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                about = json.loads(file.metadata()["s4s_run"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error}): delete it to start over with the cached pairs") from None
        self.starts, self.calls_before, self.seconds_before = about["starts"], about["model_calls"], about["seconds"]
        for name, facts in about["states"].items():
            get = {part: tensors[f"{name}/{part}"] for part in ("vector", "average", "best", "moment1", "moment2")}
            self.states[name] = State(get["vector"], get["average"], get["best"], (get["moment1"], get["moment2"]),
                                      **facts)

    def _write(self, path: Path, content: bytes) -> None:
        try:
            write_atomically(path, content)
            self._warned = False
        except OSError as error:
            if not self._warned:
                self._say(f"WARNING: cannot write {path}: {error.strerror or error}. The run goes on in memory and "
                          "tries again; free some space before it ends")
            self._warned = True

    @property
    def preset_path(self) -> Path:
        return self.folder / f"{self.config.name}.safetensors"

    def preset(self) -> Preset:
        """The best tables learned so far. Raises ValueError while there is none."""
        tables = {name: self.parameters(name).solver(state.best) for name, state in self.states.items()}
        if not tables:
            raise ValueError("no table has been learned yet")
        config = self.config
        training = {"teacher": self.teacher,
                    "teacher_error": self.starts["teacher"]["error"], "cfg": [config.cfg, config.cfg],
                    "resolution": list(self.source.shape[1:]), "base": config.base, "learned": list(config.learn),
                    "order": config.order, "mode": config.mode, "objective": config.objective,
                    "seed": config.seed, "pairs": config.pairs,
                    "iterations": {name: state.iteration for name, state in self.states.items()},
                    "held_out_rmse": {name: [state.curve[0][2], state.best_error]
                                      for name, state in self.states.items()},
                    "start": {name: self.starts[name]["schedule"] for name in self.states},
                    "model_calls": self.model_calls, "seconds": round(self.seconds, 1), "trainer": TRAINER}
        return Preset(config.name, tables, self.source.model, training, licence="CC0-1.0", source="trained with S4S")

    def _write_preset(self) -> Preset:
        made = self.preset()
        try:
            preset_file.save(made, self.preset_path)
        except OSError as error:
            self._rescue(made, error)
        return made

    def _rescue(self, made: Preset, error: OSError) -> None:
        """Put a preset that its folder has no room for into the system's temporary folder, or say how to go on."""
        place = Path(tempfile.gettempdir()) / self.preset_path.name
        reason = f"cannot write {self.preset_path}: {error.strerror or error}"
        try:
            preset_file.save(made, place)
        except OSError:
            raise OSError(f"{reason}; nor into {place.parent}. Free some space, then: s4s train --resume {self.folder}"
                          ) from None
        self._say(f"WARNING: {reason}. The preset is in {place}: move it to where there is room")

    def _keep(self) -> str:
        """Save the run and the best tables so far; words about the latter."""
        self.save()
        try:
            self._write_preset()
        except (ValueError, OSError):
            return ""
        return f"\nthe best table so far is in {self.preset_path}"

    def _say(self, text: str) -> None:
        if not self.quiet:
            tqdm.write(text)


def table_name(calls: int) -> str:
    """The key of a full table in its preset."""
    return f"calls{calls}"
