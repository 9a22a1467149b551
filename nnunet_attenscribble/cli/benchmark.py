"""`attenscribble benchmark`: every row, fold and repetition of an experiment, here or on a cluster; and
`attenscribble report`: the page about it.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer.core import TyperGroup

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.common.text import counted
from nnunet_attenscribble.errors import AttenScribbleError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from nnunet_attenscribble.evaluation.benchmark.cells import Cell, Plan
    from nnunet_attenscribble.evaluation.benchmark.collect import Collected
    from nnunet_attenscribble.evaluation.benchmark.file import Benchmark
    from nnunet_attenscribble.evaluation.benchmark.run import Outcome
    from nnunet_attenscribble.evaluation.benchmark.test_set import BenchmarkTestSet
    from nnunet_attenscribble.evaluation.benchmark.workspace import Step, Workspace


class _RunByDefault(TyperGroup):
    """`benchmark FILE` is `benchmark run FILE`."""

    def parse_args(self, ctx, args):
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


benchmark = typer.Typer(
    cls=_RunByDefault,
    help="Run every row, fold and repetition of a benchmark file, and gather the results.\n\n"
    "Example:  attenscribble benchmark examples/acdc_cpu.yaml --work acdc_cpu",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.add_typer(benchmark, name="benchmark")

_FILE = Annotated[
    Path, typer.Argument(metavar="FILE", help="The benchmark, in YAML: see examples/ and docs/benchmark.md.")
]
_WORK = Annotated[
    Path | None,
    typer.Option("--work", "-w", metavar="DIR", help="Holds all that is made; by default named after FILE."),
]
_RAW = Annotated[Path | None, typer.Option(metavar="DIR", help="In place of $nnUNet_raw.")]
_PREPROCESSED = Annotated[Path | None, typer.Option(metavar="DIR", help="In place of $nnUNet_preprocessed.")]


@benchmark.command()
def run(
    file: _FILE,
    work: _WORK = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Only cells whose name contains this, a whole name that one; repeatable."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands, and run none.")] = False,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Only prepare the datasets, and check everything.")
    ] = False,
    executor: Annotated[
        Literal["local", "slurm"], typer.Option(help="slurm: submit the missing cells as one job array.")
    ] = "local",
    prefix: Annotated[
        str | None, typer.Option(metavar="COMMAND", help="Put before every command, such as 'taskset -c 0'.")
    ] = None,
    raw: _RAW = None,
    preprocessed: _PREPROCESSED = None,
) -> None:
    """Run what is missing; what is done is never done twice, and the same command continues after an interruption.

    Every cell (a row on a fold, in one of its repetitions) is nnUNetv2_train, nnUNetv2_predict and attenscribble
    evaluate; a network with the attention block is then shown by attenscribble attention. At the end the results are
    collected and compared. A failed cell does not stop the others.

    Example:  attenscribble benchmark examples/acdc_cpu.yaml --work acdc_cpu --only seed_0
    """
    from rich.console import Console

    from nnunet_attenscribble.evaluation.benchmark.cells import list_cells, make_plan, select_cells
    from nnunet_attenscribble.evaluation.benchmark.checks import check_ahead
    from nnunet_attenscribble.evaluation.benchmark.run import list_preparations, run_cells, run_preparations
    from nnunet_attenscribble.evaluation.benchmark.workspace import remember_folders

    options, workspace = _open(file, work, raw, preprocessed)
    # Before anything is made: a name that is none is told.
    rows = {cell.row.name for cell in select_cells(list_cells(options), only)}
    try:
        words = options.prefix if prefix is None else tuple(shlex.split(prefix))
    except ValueError as error:
        raise AttenScribbleError(f"--prefix {prefix}: cannot be split into words ({error}): correct it") from None
    environments = _make_environments(options, workspace)
    first = environments[options.seeds[0]]
    console = Console(highlight=False, soft_wrap=True)
    _tell_other_folders(workspace)
    try:
        preparations = list_preparations(options, workspace, check=not dry_run)
        check_ahead(options, workspace, preparations, words, first, _list_evaluate_problems(options.evaluate), rows)
        if dry_run:
            if all(step.is_done() for step in preparations):
                make_plan(options, workspace, first)
            _print_commands(options, workspace, environments, only, words)
            return
        remember_folders(workspace)
        if executor == "slurm" and not prepare:
            _refuse_unprepared(preparations, file, workspace)
        if not all(step.is_done() for step in preparations):
            run_preparations(preparations, workspace, first, console, words)
            # Once more, as whether data of a configuration that was not there yet are preprocessed is known now alone.
            check_ahead(options, workspace, preparations, words, first, [], rows)
        plan = make_plan(options, workspace, first)
        cells = select_cells(plan.cells, only)
        for note in plan.notes:
            console.print(f"note: {note}", markup=False)
        if prepare:
            console.print(f"Everything is prepared for {counted(len(cells), 'cell')} in {workspace.work}", markup=False)
            return
        if executor == "slurm":
            _submit(plan, cells, file, prefix, console)
            return
        outcome = run_cells(plan, cells, environments, console, words)
        _conclude(plan, outcome, console, whole=not only)
    except (KeyboardInterrupt, SystemExit) as stop:  # Ctrl-C, or during a step SIGTERM
        console.print("\nStopped. The same command continues from here.")
        raise typer.Exit(getattr(stop, "code", 130)) from None


@benchmark.command("collect")
def collect_command(
    file: _FILE,
    work: _WORK = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="By default, `collected` in --work.")
    ] = None,
    kept: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Results of cells that are not in --work, such as another machine's `collected` or published ones; "
            "may be given several times.",
        ),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Also write the scores alone, as two small files that --kept and compare read."
        ),
    ] = None,
    raw: _RAW = None,
    preprocessed: _PREPROCESSED = None,
) -> None:
    """Gather the results that are there in one folder, compare the rows, and list the cells that are missing.

    Example:  attenscribble benchmark collect examples/acdc_cpu.yaml --work acdc_cpu

    Example:  attenscribble benchmark collect examples/acdc_cpu.yaml --work acdc_cpu --kept results/acdc_cpu
    """
    from rich.console import Console

    from nnunet_attenscribble.evaluation.benchmark.cells import make_plan
    from nnunet_attenscribble.evaluation.benchmark.collect import collect

    options, workspace = _open(file, work, raw, preprocessed)
    plan = make_plan(options, workspace, _make_environments(options, workspace)[options.seeds[0]])
    collected = collect(plan, output or workspace.work / "collected", kept or (), keep)
    _print_collected(collected, Console(highlight=False, soft_wrap=True))
    if keep is not None:
        typer.echo(f"Scores kept in {keep}")


def _open(file: Path, work: Path | None, raw: Path | None, preprocessed: Path | None) -> tuple[Benchmark, Workspace]:
    from nnunet_attenscribble.evaluation.benchmark.file import read_benchmark
    from nnunet_attenscribble.evaluation.benchmark.workspace import open_workspace

    options = read_benchmark(file)
    return options, open_workspace(work or Path(file.stem), raw=raw, preprocessed=preprocessed)


def _tell_other_folders(workspace: Workspace) -> None:
    """Where the benchmark goes on in other folders than those of the environment."""
    for variable, folder in (("nnUNet_raw", workspace.raw), ("nnUNet_preprocessed", workspace.preprocessed)):
        if os.environ.get(variable) and Path(os.environ[variable]).absolute() != folder:
            typer.echo(f"note: {variable} is {folder} here, as it was at first, not {os.environ[variable]}", err=True)


def _make_environments(options: Benchmark, workspace: Workspace) -> dict[int, dict[str, str]]:
    """Those of the commands, by repetition."""
    from nnunet_attenscribble.common.nnunet import trainers_folder
    from nnunet_attenscribble.evaluation.benchmark.run import make_environment

    return {seed: make_environment(options, workspace, trainers_folder(), seed) for seed in options.seeds}


def _list_evaluate_problems(options: tuple[str, ...]) -> list[str]:
    """What `attenscribble evaluate` says to options."""
    from nnunet_attenscribble.cli.evaluate import check_definitions

    command = typer.main.get_command(app).commands["evaluate"]  # type: ignore[attr-defined]
    try:
        given = command.make_context("evaluate", ["predictions", "labels", *options])
    except (Exception, SystemExit) as error:  # of typer, without a public name; or the end behind --help
        told = error.format_message() if hasattr(error, "format_message") else str(error)
        return [f"'evaluate': {' '.join(told.split())} See attenscribble evaluate --help"]
    own = ("output", "workers")
    problems = [
        f"'evaluate' holds {option.opts[0]}, which the benchmark itself says: leave it out"
        for option in command.params
        if option.name in own and given.params[option.name] is not None
    ]
    try:
        protocol, hd95, nsd, lesions = (given.params[name] for name in ("protocol", "hd95", "nsd", "lesions"))
        check_definitions(protocol, hd95, nsd, lesions or [])
    except AttenScribbleError as error:
        problems += [f"'evaluate': {problem}" for problem in error.problems]
    return problems


def _print_commands(
    options: Benchmark,
    workspace: Workspace,
    environments: Mapping[int, dict[str, str]],
    only: list[str] | None,
    prefix: tuple[str, ...],
) -> None:
    """All commands as a script of the shell, those that are done as comments."""
    from nnunet_attenscribble.evaluation.benchmark.cells import Plan, select_cells
    from nnunet_attenscribble.evaluation.benchmark.run import list_preparations

    tests, unknown = _find_tests(options, workspace)
    plan = Plan(options, workspace, tests, {})
    cells = select_cells(plan.cells, only)
    exported = _print_exports(environments[options.seeds[0]], {})
    for step in list_preparations(options, workspace, check=False):
        _print_step(step, prefix)
    for problem in unknown:
        typer.echo(f"# {problem}")
    for seed in options.seeds:
        own = [cell for cell in cells if cell.seed == seed]
        if own:
            typer.echo(f"\n# repetition {seed}")
            exported = _print_exports(environments[seed], exported)
        for cell in own:
            train, predict, *others = plan.steps(cell)
            test = tests.pop(cell.fold, None)  # the first cell of a fold opens it for all
            _print_step(train, prefix)
            if test is not None:
                _print_links(test.images, test.image_links)
            _print_step(predict, prefix)
            if test is not None:
                _print_links(test.labels, test.label_links)
            for step in others:
                _print_step(step, prefix)
    typer.echo("\n# at the end, with whatever is complete by then")
    typer.echo(shlex.join(_compare_command(plan)))


def _print_exports(environment: dict[str, str], before: dict[str, str]) -> dict[str, str]:
    names = ("nnUNet_", "OMP_", "MKL_", "OPENBLAS_", "ITK_", "PYTHON_CPU_COUNT")
    own = {name: value for name, value in environment.items() if name.startswith(names)}
    for name, value in own.items():
        if before.get(name) != value:
            typer.echo(f"export {name}={shlex.quote(value)}")
    return own


def _find_tests(options: Benchmark, workspace: Workspace) -> tuple[dict[str, BenchmarkTestSet], list[str]]:
    """The test set of every fold that has one by now, and why the others have none."""
    from nnunet_attenscribble.evaluation.benchmark.test_set import find_test_set

    tests, problems = {}, []
    for fold in options.folds:
        try:
            tests[fold] = find_test_set(options, workspace, fold)
        except AttenScribbleError as error:
            problems += [f"the test set of fold {fold} is not known yet: {problem}" for problem in error.problems]
    return tests, problems


def _print_links(folder: Path, links: Mapping[str, Path]) -> None:
    if links:
        typer.echo(shlex.join(["mkdir", "-p", str(folder)]))
    for name, target in links.items():
        typer.echo(shlex.join(["ln", "-sfn", str(target), str(folder / name)]))


def _print_step(step: Step, prefix: tuple[str, ...]) -> None:
    # Variables in commands of `prepare` are for the shell to replace.
    words = [_quote(word) if "$" in word else shlex.quote(word) for word in (*prefix, *step.command)]
    typer.echo(f"{'# is done: ' if step.is_done() else ''}{' '.join(words)}")


def _quote(word: str) -> str:
    """For the shell, which still replaces variables."""
    escaped = re.sub(r'(["`\\])', r"\\\1", word)
    return f'"{escaped}"'.replace("$$", r"\$")


def _compare_command(plan: Plan) -> list[str]:
    from nnunet_attenscribble.evaluation.benchmark.collect import list_compared

    reference, models = [], []
    for name, cells in list_compared(plan, plan.cells).items():
        own = [f"{name}={plan.folder(cell)}" for cell in cells]
        if name == plan.benchmark.reference:
            reference = [word for folder in own for word in ("--reference", folder)]
        else:
            models += own
    subject = ["--subject", plan.benchmark.subject] if plan.benchmark.subject else []
    return ["attenscribble", "compare", *models, *reference, *subject]


def _refuse_unprepared(preparations: list[Step], file: Path, workspace: Workspace) -> None:
    lacking = [step.name for step in preparations if not step.is_done()]
    if lacking:
        place, work = (shlex.quote(str(path)) for path in (file, workspace.work))
        raise AttenScribbleError(
            f"not everything is prepared ({', '.join(lacking)}), which no job of an array should do: run "
            f"`attenscribble benchmark {place} --work {work} --prepare` first, where there are processors"
        )


def _submit(plan: Plan, cells: list[Cell], file: Path, prefix: str | None, console: Console) -> None:
    from nnunet_attenscribble.evaluation.benchmark.run import submit, write_array
    from nnunet_attenscribble.evaluation.benchmark.state import read_states

    states = read_states(plan)
    refused = {cell.name: states[cell].problems for cell in cells if states[cell].problems}
    missing = [cell for cell in cells if cell.name not in refused and not states[cell].is_complete]
    if missing:
        script = write_array(plan, missing, file, prefix)
        console.print(f"wrote {script.parent / 'runs.txt'} and {script}", markup=False)
        console.print(f"{submit(script)}: {len(missing)} of {len(plan.cells)} cells", markup=False)
        end = ["attenscribble", "benchmark", "collect", str(file), "--work", str(plan.workspace.work)]
        console.print(f"When the jobs have ended: {shlex.join(end)}", markup=False)
    elif not refused:
        console.print("Every cell is complete: nothing was submitted.")
    _tell_failed(refused)


def _tell_failed(failed: Mapping[str, Sequence[str]]) -> None:
    """Every problem by its cell; exit code 1 if there is one."""
    for name, problems in failed.items():
        for problem in problems:
            typer.echo(f"error: {name}: {problem.removeprefix(f'{name}: ')}", err=True)
    if failed:
        raise typer.Exit(1)


def _conclude(plan: Plan, outcome: Outcome, console: Console, *, whole: bool) -> None:
    """Collect where it makes sense, and tell what failed; exit code 1 if anything did."""
    from nnunet_attenscribble.evaluation.benchmark.collect import collect
    from nnunet_attenscribble.evaluation.benchmark.state import read_states

    states = read_states(plan)
    complete = all(state.lacks is None for state in states.values())
    try:
        # Of several processes that run parts, the one that ends last collects.
        if complete or (whole and not outcome.busy):
            _print_collected(collect(plan, plan.workspace.work / "collected", states=states), console)
    finally:
        _tell_outcome(plan, outcome, console)
    _tell_failed(outcome.failed)


def _tell_outcome(plan: Plan, outcome: Outcome, console: Console) -> None:
    told = [f"{counted(len(outcome.done), 'cell', 'is')} complete"]
    busy, failed = len(outcome.busy), len(outcome.failed)
    told += [f"{busy} {'is' if busy == 1 else 'are'} being run by another process"] if busy else []
    told += [f"{failed} failed"] if failed else []
    console.print(f"\n{', '.join(told)}. Commands and exit codes: {plan.workspace.commands}", markup=False)


def print_means(comparison: str) -> None:
    """Of a comparison in Markdown the means and the Dice of every structure; distances and tests are in the file."""
    typer.echo("\n#### ".join(comparison.split("\n#### ")[:2]).rstrip())


def _print_collected(collected: Collected, console: Console) -> None:
    if collected.comparison is not None:
        console.print()
        print_means(collected.comparison)
    if collected.postprocessed is not None:
        console.print("\nAfter `attenscribble postprocess`:")
        typer.echo(collected.postprocessed.split("\n#### ")[0].rstrip())
    for note in collected.notes:
        typer.echo(f"note: {note}")
    for cell, lack in collected.missing.items():
        typer.echo(f"missing: {cell} ({lack})")
    typer.echo(f"Collected in {collected.folder}")


@app.command()
def report(
    collected: Annotated[
        Path, typer.Argument(help="Folder that `attenscribble benchmark collect` wrote: collected in --work.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the report; a report that is there is replaced.")
    ],
    cases_of: Annotated[
        str | None,
        typer.Option(
            "--cases-of",
            metavar="ROW",
            help="Row whose best, median and worst case are shown; by default the last one trained on scribbles.",
        ),
    ] = None,
    scans: Annotated[
        bool,
        typer.Option("--scans/--no-scans", help="Show slices of the scans, which their terms may not let you pass on."),
    ] = True,
) -> None:
    """Write one HTML page about a benchmark, with its figures as PNG, its numbers as CSV, and as Markdown.

    The page needs no network: tables with intervals, every case of every row, each row against full supervision case by
    case, best, median and worst case, training curves, and where the numbers come from.

    Example:  attenscribble report acdc_cpu/collected -o acdc_cpu/report
    """
    from nnunet_attenscribble.evaluation.report.build import write_report

    page = write_report(collected, output, cases_of=cases_of, scans=scans, progress=True)
    typer.echo(f"wrote {page}")
