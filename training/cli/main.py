"""The command line: s4s demo, train, race, show."""

import shlex
from functools import partial
from pathlib import Path

import click
from click.core import ParameterSource

from ..config import CHECKPOINT_SETTINGS, SETTINGS, Config
from ..run_identity import CONFIG, read_config
from .group import main
from .options import config_options, list_of


@main.command()
@click.option("--model", default="digits-eps", show_default=True, help="bundled model: digits-eps or digits-flow")
@click.option("--calls", default="6", show_default=True, callback=list_of(int), help="numbers of calls, e.g. 4,5,6,8")
@click.option("--cfg", default=3.0, show_default=True, help="guidance scale")
@click.option("--seeds", default=128, show_default=True, help="unseen seeds of the race")
@click.option("--iterations", default=0, show_default=True, help=SETTINGS["iterations"].help)
@click.option("--device", default="auto", show_default=True, help=SETTINGS["device"].help)
@click.option("--out", default="s4s-demo", show_default=True, type=click.Path(path_type=Path), help="folder to write")
def demo(model, calls, cfg, seeds, iterations, device, out):
    """Train a preset for a bundled model, race it on unseen seeds, and draw the results.

    Writes to the folder: the preset; report.html, one page with everything; and for each table sheet-*.png (same seeds:
    teacher, best baseline, S4S), solver-*.png, race-*.png. Run the command again to resume where it stopped.
    """
    from ..benchmark.report_run import report
    from ..run import Run
    config = Config.of(name=f"{model}-cfg{cfg:g}", model=model, calls=calls, cfg=cfg, iterations=iterations,
                       device=device)
    run = Run(config, out, resume=(out / CONFIG).exists())
    run.train()
    click.echo(f"trained in {run.seconds:.0f} s with {run.source.all_calls:,} network calls")
    report(run, seeds)


@main.command()
@config_options
@click.option("--out", default=None, type=click.Path(path_type=Path), help="folder of the run [default: runs/NAME]")
@click.option("--resume", default=None, type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="resume the run in this folder exactly where it stopped, with its own settings")
def train(out, resume, **settings):
    """Train a preset: one table for each number of calls.

    Ctrl-C saves and stops; --resume continues bit for bit. The folder holds the preset, the state, a log and
    report.html. Several GPUs: torchrun --nproc-per-node 4 -m s4s train ..., or accelerate launch --multi_gpu.
    """
    from .. import parallel
    from ..benchmark.report_run import draw_run
    from ..estimate import estimate
    from ..run import Run
    world = parallel.join_world()
    if parallel.launched_alone():
        click.echo("WARNING: accelerate launch --cpu starts one process, whatever --num_processes says: use torchrun "
                   "--nproc-per-node, or accelerate launch --multi_gpu (with --device cpu behind it)", err=True)
    if resume is not None:
        source = click.get_current_context().get_parameter_source
        if given := [f"--{name.replace('_', '-')}" for name in settings if source(name) is ParameterSource.COMMANDLINE]:
            raise ValueError(f"--resume uses the run's own settings: leave out {', '.join(given)}, or give --out")
        if not (resume / CONFIG).exists():
            raise ValueError(f"{resume} holds no run (no config.json): name the folder of an earlier `s4s train`")
        run = Run(read_config(resume)[0], resume, resume=True, world=world)
    else:
        config = Config.of(**settings)
        run = Run(config, out or Path("runs") / config.name, world=world)
    if world is None and resume is None:
        cost = estimate(run.source, run.config)
        click.echo("\n".join([cost.summary, *(f"  or {line}" for line in cost.others.splitlines())]))
    preset = run.train()
    parallel.leave_world()
    if world and not world.first:
        return
    click.echo(f"wrote {run.preset_path} ({preset.short_hash}): {run.source.all_calls:,} network calls, "
               f"{run.seconds:.0f} s")
    try:
        click.echo(f"report: {draw_run(run, preset)}")
    except OSError as error:
        click.echo(f"WARNING: the report could not be drawn: {error.strerror or error}", err=True)
    click.echo(f"next: s4s race {shlex.quote(str(run.preset_path))}{_opening(run.config)}")


def _opening(config: Config) -> str:
    """The options that open the configuration's checkpoint again, without those that a preset records."""
    remembered = ("width", "height", "guidance", "shift")
    given = {name: value for name, value in config.flat().items()
             if name in CHECKPOINT_SETTINGS and name not in remembered}
    return "".join(f" --{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in given.items()
                   if value != SETTINGS[name].default)


@main.command()
@click.argument("preset_file", type=click.Path(path_type=Path))
@click.option("--calls", default=None, callback=list_of(int),
              help="only the tables with these numbers of calls [default: all]")
@click.option("--cfg", default=None, type=float, help="guidance scale [default: the one it was trained at]")
@click.option("--seeds", default=None, type=int, help="unseen seeds [default: 256; for a checkpoint 24]")
@click.option("--seed", default=0, show_default=True, help="first of these seeds, in the race's own range")
@click.option("--budget", default=0, show_default=True, help="for a checkpoint: most network calls; 0: no limit")
@partial(config_options, only=CHECKPOINT_SETTINGS)
@click.option("--device", default="auto", show_default=True, help=SETTINGS["device"].help)
@click.option("--out", default=None, type=click.Path(path_type=Path),
              help="folder for report.html and pictures")
@click.option("--write/--no-write", default=False, help="write the scores into the preset")
def race(preset_file, calls, cfg, seeds, seed, budget, device, out, write, **opening):
    """Race a preset against every classical solver on every schedule at equal calls, on seeds it never saw.

    The distance is the RMSE to the teacher's result from the same noise. Losing cells are shown. On a bundled model it
    also measures the Fréchet distance in the features of a small classifier, and finds the number of calls at which
    the best baseline catches up. A preset for a checkpoint needs --checkpoint and --prompts, and meets
    the baselines that its budget can search; what is not given of size, cfg, guidance and shift is as it was trained.
    """
    from ...s4s_nodes.core import preset_file as preset_file_module
    preset = preset_file_module.load(preset_file)
    from ..benchmark import html_report, report_run
    source = report_run.source_for(preset, opening, cfg, device)
    terms = report_run.terms_of(preset, calls, seed, seeds, budget if opening["checkpoint"] else None)
    held = report_run.race_and_show(source, preset, terms, out)
    if out is not None:
        click.echo(f"report: {html_report.write(out, held.preset, held.raced)}")
    if write:
        preset_file_module.save(held.preset, preset_file)
        click.echo(f"scores written into {preset_file}")
