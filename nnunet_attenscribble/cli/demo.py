"""`attenscribble demo`: the whole chain, from scribbles to a comparison, on a phantom or on ACDC."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnunet_attenscribble.cli.app import app
from nnunet_attenscribble.common.nnunet import FOLDERS
from nnunet_attenscribble.common.writing import write_json
from nnunet_attenscribble.errors import AttenScribbleError

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from nnunet_attenscribble.dataset_conversion.raw_dataset import WrittenDatasets
    from nnunet_attenscribble.evaluation.benchmark.steps import Step
    from nnunet_attenscribble.evaluation.summary import Summary

_ID, _DENSE_ID = 901, 902
_REFERENCE = "nnU-Net on dense labels"
_PICTURES = 6
_PHANTOM_FEATURES = (12, 24, 48, 64)
_SECONDS_PHANTOM, _SECONDS_ACDC = 0.085, 0.5  # per iteration on two cores, training and validation averaged
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
    epochs: Annotated[int, typer.Option(min=1, help="Of each training, 250 iterations each.")] = 5,
    device: Annotated[str, typer.Option(help="cpu, cuda or mps.")] = "cpu",
) -> None:
    """Train from scribbles, and compare with nnU-Net trained from dense labels: all in one go, resumable.

    Without data it makes a cardiac phantom and takes nine to ten minutes on two cores. All that it runs are nnU-Net's
    own commands, which its logs show.

    Example:  attenscribble demo

    Example:  attenscribble demo --folder acdc_demo --acdc ACDC/database/training --scribbles acdc_scribbles.zip
    """
    from rich.console import Console

    options = _Options(
        acdc=str(acdc.resolve()) if acdc else None,
        scribbles=str(scribbles.resolve()) if scribbles else None,
        epochs=epochs,
    )
    _check(options, device, folder)
    console = Console(highlight=False, soft_wrap=True)
    try:
        _Demo(folder, options, device, console).run()
    except KeyboardInterrupt:
        console.print("\nStopped. The same command continues from here.")
        raise typer.Exit(130) from None


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
    if problems:
        raise AttenScribbleError(problems)


def _changes(file: Path, options: _Options) -> list[str]:
    """What keeps a demo from being continued with these options."""
    try:
        before = dict(json.loads(file.read_text()))
    except ValueError:
        return [f"{file} is damaged: give another --folder, or remove this one"]
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
    from importlib.util import find_spec

    spec = find_spec("nnunetv2")
    assert spec is not None  # a dependency of this package
    assert spec.origin is not None
    file = Path(spec.origin).parent / "training/nnUNetTrainer/variants/training_length/nnUNetTrainer_Xepochs.py"
    names = re.findall(r"^class (nnUNetTrainer_(\d+)epochs?)\(", file.read_text(), flags=re.MULTILINE)
    return {1000: "nnUNetTrainer", **{int(number): name for name, number in names}}


class _Demo:
    """The demo of one folder."""

    def __init__(self, folder: Path, options: _Options, device: str, console: Console):
        from nnunet_attenscribble.common.nnunet import trainers_folder
        from nnunet_attenscribble.evaluation.benchmark.steps import Model, nnunet_environment

        self.folder, self.options, self.device, self.console = folder, options, device, console
        self.raw, self.preprocessed, self.results = (folder / name for name in FOLDERS)
        self.name = "ACDC" if options.acdc else "Phantom"
        self.scribble, self.dense = f"Dataset{_ID}_{self.name}", f"Dataset{_DENSE_ID}_{self.name}Dense"
        # All 35 training patients of ACDC are used, as in the literature; the phantom keeps some for validation.
        fold = "all" if options.acdc else "0"
        self.models = {
            "AttenScribble": Model(self.scribble, "2d_cpu", "nnUNetTrainerAttenScribble", fold),
            "partial CE": Model(self.scribble, "2d_cpu", "nnUNetTrainerPartialCE", fold),
            _REFERENCE: Model(self.dense, "2d_cpu", _stock_trainers()[options.epochs], fold),
        }
        self.environment = nnunet_environment(
            raw=self.raw, preprocessed=self.preprocessed, results=self.results, trainers=trainers_folder()
        )
        # Threads that wait for each other by spinning are slow wherever something else runs too.
        self.environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    def run(self) -> None:
        """Do what is not done yet."""
        from nnunet_attenscribble.evaluation.benchmark.execution import run_steps

        self._introduce()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / _OPTIONS_FILE, asdict(self.options))

        self._head("Data")
        self._write_data()
        run_steps([self._plan_step()], self.environment, self.console)
        self._configure()
        run_steps([self._preprocess_step()], self.environment, self.console)
        self._head("Training")
        run_steps(self._train_steps(), self.environment, self.console)
        self._head("Unseen cases")
        run_steps(self._predict_steps(), self.environment, self.console)
        table, summaries = self._compare()
        self._draw(summaries)
        self._conclude(table)

    # --- data ---

    def _write_data(self) -> None:
        from nnunet_attenscribble.common.staging import finish_interrupted

        finish_interrupted(self.raw, f"{_ID:03d}")
        if (self.raw / self.scribble).is_dir() and (self.raw / self.dense).is_dir():
            self.console.print(f"[green]is done[/green]  datasets {self.scribble} and {self.dense}")
            return
        write = self._write_acdc if self.options.acdc else self._write_phantoms
        written = write()
        self.console.print(
            f"[green]done[/green]     datasets {self.scribble} and {self.dense}: "
            f"{written.training} training cases, {written.test} to test with"
        )
        for note in written.notes:
            self._tell(f"         {note}")

    def _write_phantoms(self) -> WrittenDatasets:
        from nnunet_attenscribble.dataset_conversion.phantom import write_phantoms

        return write_phantoms(raw_folder=self.raw, dataset_id=_ID, dense_id=_DENSE_ID, name=self.name)

    def _write_acdc(self) -> WrittenDatasets:
        from nnunet_attenscribble.dataset_conversion.acdc import convert_acdc

        return convert_acdc(
            Path(self.options.acdc or ""),
            Path(self.options.scribbles or ""),
            raw_folder=self.raw,
            dataset_id=_ID,
            dense_id=_DENSE_ID,
            name=self.name,
            test="maag-validation",
            progress=True,
        )

    def _plan_step(self) -> Step:
        from nnunet_attenscribble.evaluation.benchmark.steps import command_step

        command = ["nnUNetv2_plan_and_preprocess", "-d", str(_ID), str(_DENSE_ID), "-c", "2d", "--no_pp"]
        command += ["--verify_dataset_integrity", "-npfp", "2"]
        plans = [self._plans_file(dataset) for dataset in (self.scribble, self.dense)]
        return command_step("nnU-Net's planning", command, self._log("plan"), plans)

    def _configure(self) -> None:
        """Give both datasets one configuration for the CPU."""
        from nnunet_attenscribble.plans import add_cpu_configuration, read_plans, resolve_configuration, write_plans

        resolved = []
        for dataset in (self.scribble, self.dense):
            file = self._plans_file(dataset)
            plans = read_plans(file)
            if "2d_cpu" not in plans["configurations"]:
                settings: dict[str, float] = {"num_epochs": self.options.epochs}
                small: dict[str, Any] = {}
                if not self.options.acdc:
                    # The phantom is drawn as coarse as `configure --cpu` makes a scan, so the window is that of there.
                    settings |= {"similarity_radius": 2, "similarity_sigma_position": 3.0}
                    small = {"spacing_factor": 1.0, "batch_size": 6, "features": _PHANTOM_FEATURES}
                plans = add_cpu_configuration(plans, "2d", "2d_cpu", settings=settings, **small)
                write_plans(file, plans)
            resolved.append(resolve_configuration(plans, "2d_cpu"))
        if resolved[0] != resolved[1]:
            raise AttenScribbleError(
                f"the configurations 2d_cpu of {self.scribble} and {self.dense} differ, which would compare networks "
                f"instead of supervision: remove {self.preprocessed} and call this again"
            )

    def _preprocess_step(self) -> Step:
        from nnunet_attenscribble.evaluation.benchmark.steps import command_step

        command = ["nnUNetv2_preprocess", "-d", str(_ID), str(_DENSE_ID), "-c", "2d_cpu", "-np", "2"]
        folders = [self.preprocessed / dataset / "nnUNetPlans_2d_cpu" for dataset in (self.scribble, self.dense)]
        return command_step("nnU-Net's preprocessing", command, self._log("preprocess"), folders)

    # --- training and prediction ---

    def _train_steps(self) -> list[Step]:
        from nnunet_attenscribble.evaluation.benchmark.steps import train_step

        return [
            train_step(
                name, model, self.results, self._log(f"train {name}"), epochs=self.options.epochs, device=self.device
            )
            for name, model in self.models.items()
        ]

    def _predict_steps(self) -> list[Step]:
        from nnunet_attenscribble.evaluation.benchmark.steps import predict_step

        images = self.raw / self.scribble / "imagesTs"
        return [
            predict_step(
                f"predictions of {name}",
                model,
                self.results,
                images,
                self._predictions(name),
                self._log(f"predict {name}"),
                device=self.device,
            )
            for name, model in self.models.items()
        ]

    # --- comparison ---

    def _compare(self) -> tuple[str, dict[str, Summary]]:
        from nnunet_attenscribble.common.writing import write_text
        from nnunet_attenscribble.evaluation.compare import compare_summaries
        from nnunet_attenscribble.evaluation.comparison_files import WRITERS
        from nnunet_attenscribble.evaluation.evaluate import evaluate_folder
        from nnunet_attenscribble.evaluation.summary import write_summary

        truth = self.raw / self.scribble / "labelsTs"
        summaries = {}
        for name in self.models:
            summaries[name] = evaluate_folder(self._predictions(name), truth, workers=1, all_cases=True)
            write_summary(summaries[name], self._predictions(name))
        subject = "patient[0-9]+" if self.options.acdc else None
        reference = {_REFERENCE: summaries[_REFERENCE]}
        comparison = compare_summaries(reference | summaries, _REFERENCE, subject=subject)
        for ending, convert in WRITERS.items():
            write_text(self.folder / f"comparison{ending}", convert(comparison))
        return WRITERS[".md"](comparison), summaries

    def _draw(self, summaries: dict[str, Summary]) -> None:
        """Pictures of cases from the best to the worst for the method."""
        import numpy as np

        ranked = sorted(
            next(iter(summaries.values())).cases, key=lambda case: -_mean_dice(summaries["AttenScribble"], case)
        )
        chosen = np.unique(np.linspace(0, len(ranked) - 1, _PICTURES).round().astype(int))
        scribbles = self._scribbles([ranked[i] for i in chosen])
        for rank, case in ((i, ranked[i]) for i in chosen):
            self._draw_case(
                self.folder / "pictures" / f"{rank + 1:02d}_{case}.png", case, scribbles.get(case), summaries
            )

    def _draw_case(self, file: Path, case: str, scribble: np.ndarray | None, summaries: dict[str, Summary]) -> None:
        import SimpleITK as sitk

        from nnunet_attenscribble.evaluation.report.pictures import Panel, draw_case, find_largest_slice

        raw = self.raw / self.scribble
        image = sitk.ReadImage(str(raw / "imagesTs" / f"{case}_0000.nii.gz"))

        def labels(folder: Path) -> np.ndarray:
            return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{case}.nii.gz")))

        truth = labels(raw / "labelsTs")
        panels = [Panel("scan")]
        if scribble is not None:
            panels.append(Panel("scribble\n(unseen by the models)", scribble, unlabelled=4))
        for name, summary in summaries.items():
            dice = ", ".join(f"{structure} {scores.dice:.2f}" for structure, scores in summary.cases[case].items())
            panels.append(Panel(f"{name}\nDice {dice}", labels(self._predictions(name))))
        panels.append(Panel("dense label", truth))
        structures = {structure.name: structure.values[0] for structure in next(iter(summaries.values())).structures}
        draw_case(
            file,
            sitk.GetArrayFromImage(image),
            panels,
            spacing=image.GetSpacing()[::-1],
            structures=structures,
            position=find_largest_slice(truth),
            title=f"{case}, not seen in training",
        )

    def _scribbles(self, cases: list[str]) -> dict[str, np.ndarray]:
        """Scribbles of test cases, which the datasets leave out: models are not given them."""
        import SimpleITK as sitk

        from nnunet_attenscribble.common.files import find_files, unpacked
        from nnunet_attenscribble.dataset_conversion.phantom import make_phantom, phantom_index

        if not self.options.acdc:
            return {case: make_phantom(phantom_index(case)).scribble for case in cases}
        with unpacked(Path(self.options.scribbles or "")) as folder:
            files = {file.name.partition("_scribble")[0]: file for file in find_files(folder)}
            return {case: sitk.GetArrayFromImage(sitk.ReadImage(str(files[case]))) for case in cases if case in files}

    # --- what is told ---

    def _tell(self, text: str) -> None:
        self.console.print(text, markup=False)  # paths may hold square brackets

    def _introduce(self) -> None:
        what = f"the ACDC patients in {self.options.acdc}" if self.options.acdc else "a cardiac phantom"
        self._tell(f"AttenScribble on {what}, against nnU-Net with dense labels. Everything goes to {self.folder}/")
        seconds = (
            self.options.epochs * 300 * (_SECONDS_ACDC if self.options.acdc else _SECONDS_PHANTOM) * len(self.models)
        )
        self._tell(
            f"On two cores of a processor it takes about {_duration(seconds + 150)}. Ctrl-C stops it; "
            "the same command continues."
        )
        own = [variable for variable in FOLDERS if os.environ.get(variable)]
        if own:
            verb = "is" if len(own) == 1 else "are"
            self._tell(f"Your {', '.join(own)} {verb} left alone: the demo has folders of its own.")

    def _conclude(self, table: str) -> None:
        self._head("Result")
        # The means and the Dice of every structure; distances and tests are in the file.
        typer.echo("\n#### ".join(table.split("\n#### ")[:2]).rstrip())
        self._tell(
            f"\nOne training each, of {self.options.epochs} epochs: it shows that the chain works, not how good the\n"
            "methods are. Another run gives other numbers."
        )
        self._tell(
            f"\nThe whole comparison: {self.folder / 'comparison.md'}, .csv, .json\n"
            f"Pictures:             {self.folder / 'pictures'}/\n"
            f"Predictions, scores:  {self.folder / 'predictions'}/\n"
            f"Trained models:       {self.results}/\n"
            f"Commands and output:  {self.folder / 'logs'}/\n"
        )
        self._tell(
            "Next, your own scribbles: 'attenscribble convert --help' writes nnU-Net's raw folders; then\n"
            '  export nnUNet_extTrainer="$(attenscribble trainers)"\n'
            "  nnUNetv2_plan_and_preprocess -d NNN -c 2d\n"
            "  nnUNetv2_train NNN 2d 0 -tr nnUNetTrainerAttenScribble"
        )

    def _head(self, text: str) -> None:
        self.console.print(f"\n[bold]{text}[/bold]")

    # --- places ---

    def _plans_file(self, dataset: str) -> Path:
        return self.preprocessed / dataset / "nnUNetPlans.json"

    def _predictions(self, name: str) -> Path:
        return self.folder / "predictions" / _file_name(name)

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{_file_name(name)}.log"


def _mean_dice(summary: Summary, case: str) -> float:
    import numpy as np

    return float(np.nanmean([scores.dice for scores in summary.cases[case].values()]))


def _file_name(name: str) -> str:
    return name.lower().replace(" ", "_").replace("-", "")


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 120 else f"{minutes / 60:.0f} hours"
