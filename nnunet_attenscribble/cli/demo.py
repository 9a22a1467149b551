"""`attenscribble demo`: the whole chain, from scribbles to a comparison, on a phantom or on ACDC."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.cli.benchmark import print_means
from nnunet_attenscribble.common.files import write_json
from nnunet_attenscribble.common.nnunet import FOLDERS
from nnunet_attenscribble.common.shapes import mapping, read_shaped
from nnunet_attenscribble.common.text import counted
from nnunet_attenscribble.errors import AttenScribbleError, refuse

if TYPE_CHECKING:
    from rich.console import Console

    from nnunet_attenscribble.dataset_conversion.raw_dataset import WrittenDatasets

_SECONDS_PHANTOM, _SECONDS_ACDC = 0.05, 0.5  # per iteration on two cores, training and validation averaged
_OPTIONS_FILE = "demo.json"


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Holds everything that the demo makes.")] = Path(
        "attenscribble_demo"
    ),
    acdc: Annotated[
        Path | None, typer.Option("--acdc", metavar="DIR", help="Real patients: the unpacked ACDC download.")
    ] = None,
    scribbles: Annotated[
        Path | None, typer.Option("--scribbles", metavar="ZIP_OR_DIR", help="With --acdc: its expert scribbles.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of each training, 250 iterations each.")] = 10,
    device: Annotated[str, typer.Option(help="cpu, cuda or mps.")] = "cpu",
) -> None:
    """Train from scribbles, and compare with nnU-Net trained from dense labels: all in one go, resumable.

    Without data it makes a cardiac phantom and takes about ten minutes on two cores. All that it runs are
    nnU-Net's own commands, which its logs show.

    Example:  attenscribble demo

    Example:  attenscribble demo --folder acdc_demo --acdc ACDC/database/training --scribbles acdc_scribbles.zip
    """
    from rich.console import Console

    from nnunet_attenscribble.evaluation.benchmark.execution import signals_as_exceptions

    options = _Options(
        acdc=str(acdc.resolve()) if acdc else None,
        scribbles=str(scribbles.resolve()) if scribbles else None,
        epochs=epochs,
    )
    _check(options, device, folder)
    console = Console(highlight=False, soft_wrap=True)
    try:
        # No process is forked here, which would take a request to end for an exception, too.
        with signals_as_exceptions():
            _Demo(folder, options, device, console).run()
    except (KeyboardInterrupt, SystemExit) as stop:
        console.print("\nStopped. The same command continues from here.")
        raise typer.Exit(getattr(stop, "code", 130)) from None


@dataclass(frozen=True)
class _Options:
    """What a demo folder is made with: another choice needs another folder."""

    acdc: str | None
    scribbles: str | None
    epochs: int


def _check(options: _Options, device: str, folder: Path) -> None:
    """Everything that can be wrong before anything is written."""
    problems = []
    if options.acdc and not options.scribbles:
        problems.append("--acdc needs --scribbles: the released acdc_scribbles.zip, or its folder")
    if options.scribbles and not options.acdc:
        problems.append("--scribbles needs --acdc: the folder with the patients they belong to")
    for option, value in (("--acdc", options.acdc), ("--scribbles", options.scribbles)):
        if value and not Path(value).exists():
            problems.append(f"{option} {value}: there is no such file or folder")
    if device not in ("cpu", "cuda", "mps"):
        problems.append(f"--device {device}: nnU-Net knows cpu, cuda and mps")
    lengths = _stock_trainers()
    if options.epochs not in lengths:
        known = ", ".join(str(number) for number in sorted(lengths))
        problems.append(
            f"--epochs {options.epochs}: nnU-Net has no trainer of that length to compare with; it has {known}"
        )
    file = folder / _OPTIONS_FILE
    if folder.exists() and not folder.is_dir():
        problems.append(f"--folder {folder} is a file: give another")
    elif file.is_file():
        problems += _changes(file, options)
    elif folder.is_dir() and any(folder.iterdir()):
        problems.append(f"--folder {folder} is not empty, and no demo made it: give another")
    refuse(problems)


def _changes(file: Path, options: _Options) -> list[str]:
    """What keeps a demo from being continued with these options."""
    try:
        before = read_shaped(file, mapping(), "give another --folder, or remove this one")
    except AttenScribbleError as error:
        return error.problems
    now = asdict(options)
    changed = ", ".join(
        f"{key} {before.get(key)}, now {value}" for key, value in now.items() if before.get(key) != value
    )
    if not changed:
        return []
    return [f"{file.parent} was made with other options ({changed}): give another --folder, or remove that one"]


def _stock_trainers() -> dict[int, str]:
    """nnU-Net's own trainers of fixed length: number of epochs to name. Found without importing torch."""
    import re

    import nnunetv2

    file = Path(nnunetv2.__path__[0], "training/nnUNetTrainer/variants/training_length/nnUNetTrainer_Xepochs.py")
    names = re.findall(r"^class (nnUNetTrainer_(\d+)epochs?)\(", file.read_text("utf-8"), flags=re.MULTILINE)
    return {1000: "nnUNetTrainer", **{int(number): name for name, number in names}}


class _Demo:
    """The demo of one folder: what is done in which order, and what is told of it."""

    def __init__(self, folder: Path, options: _Options, device: str, console: Console):
        from nnunet_attenscribble.cli.demo_parts import Parts

        self.options, self.console = options, console
        acdc, scribbles = (Path(path) if path else None for path in (options.acdc, options.scribbles))
        self.parts = Parts(folder, acdc, scribbles, options.epochs, _stock_trainers()[options.epochs], device)
        self.environment = self.parts.make_environment()
        self.at_once = min(len(self.parts.models), os.cpu_count() or 1) if device == "cpu" and acdc is None else 1
        if self.at_once > 1:  # threads of a network as small as the phantom's wait for each other more than they work
            self.environment["PYTHON_CPU_COUNT"] = "1"

    def run(self) -> None:
        """Do what is not done yet."""
        from nnunet_attenscribble.evaluation.benchmark.execution import run_at_once

        self._introduce()
        self.parts.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.parts.folder / _OPTIONS_FILE, asdict(self.options))
        run = partial(run_at_once, environment=self.environment, console=self.console)

        self._head("Data")
        self._tell_data(self.parts.write_datasets())
        run(self.parts.plan_steps(), count=2)
        self.parts.configure()
        run(self.parts.preprocess_steps(), count=2)
        self._head("Training")
        run(self.parts.train_steps(), count=self.at_once)
        self._head("Unseen cases")
        run(self.parts.predict_steps(), count=self.at_once)
        self._conclude(self.parts.compare())

    def _tell(self, text: str) -> None:
        self.console.print(text, markup=False)  # paths may hold square brackets

    def _tell_data(self, written: WrittenDatasets | None) -> None:
        names = f"datasets {' and '.join(self.parts.datasets)}"
        if written is None:
            self.console.print(f"[green]is done[/green]  {names}")
            return
        self.console.print(
            f"[green]done[/green]     {names}: {counted(written.training, 'training case')}, "
            f"{written.test} to test with"
        )
        for note in written.notes:
            self._tell(f"         {note}")

    def _introduce(self) -> None:
        what = f"the ACDC patients in {self.options.acdc}" if self.options.acdc else "a cardiac phantom"
        self._tell(
            f"AttenScribble on {what}, against nnU-Net with dense labels. Everything goes to {self.parts.folder}/"
        )
        per_iteration = _SECONDS_ACDC if self.options.acdc else _SECONDS_PHANTOM
        seconds = self.options.epochs * 300 * per_iteration * len(self.parts.models)
        self._tell(
            f"On two cores of a processor it takes about {_duration(seconds + 150)}. Ctrl-C stops it; "
            "the same command continues."
        )
        own = [variable for variable in FOLDERS if os.environ.get(variable)]
        if own:
            verb = "is" if len(own) == 1 else "are"
            self._tell(f"Your {', '.join(own)} {verb} left alone: the demo has folders of its own.")

    def _conclude(self, table: str) -> None:
        folder = self.parts.folder
        self._head("Result")
        print_means(table)
        self._tell(
            f"\nOne training each, of {self.options.epochs} epochs: it shows that the chain works, not how good the\n"
            "methods are. Another run gives other numbers."
        )
        self._tell(
            f"\nThe whole comparison: {folder / 'comparison.md'}, .csv, .json\n"
            f"Pictures:             {folder / 'pictures'}/\n"
            f"Predictions, scores:  {folder / 'predictions'}/\n"
            f"Trained models:       {self.parts.results}/\n"
            f"Commands and output:  {folder / 'logs'}/\n"
        )
        self._tell(
            "Next, your own scribbles: 'attenscribble start DIR' brings them in; then\n"
            '  export nnUNet_extTrainer="$(attenscribble trainers)"\n'
            "  nnUNetv2_plan_and_preprocess -d NNN -c 2d\n"
            "  nnUNetv2_train NNN 2d 0 -tr nnUNetTrainerAttenScribble\n"
            "(without a GPU a smaller configuration, 'attenscribble configure --help', and -device cpu)"
        )

    def _head(self, text: str) -> None:
        self.console.print(f"\n[bold]{text}[/bold]")


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 120 else f"{minutes / 60:.0f} hours"
