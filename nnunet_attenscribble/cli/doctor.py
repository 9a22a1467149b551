"""`attenscribble doctor`: whether versions, folders, trainers, device, disk and datasets are in order, and advice."""

from __future__ import annotations

import io
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.cli.datasets import Workers
from nnunet_attenscribble.common.nnunet import (
    FOLDERS,
    VARIABLE,
    begin_asking,
    exported_folders,
    find_folder,
    list_trainers,
    trainers_folder,
)
from nnunet_attenscribble.common.progress import show_waiting
from nnunet_attenscribble.common.text import counted
from nnunet_attenscribble.errors import AttenScribbleError

OK, NOTE, PROBLEM = "ok", "note", "problem"
_PACKAGE = "nnunet-attenscribble"
_TOLD = ("nnunetv2", "torch")  # versions that are told even if they are in order
_GIB = 1 << 30
_DISK_PROBLEM, _DISK_NOTE = 2, 20  # GiB free
_SHARED_MEMORY = Path("/dev/shm")  # what worker processes hand arrays over in, on Linux
_SHARED_MEMORY_NOTE = 1  # GiB
_PATIENCE = 20  # seconds, for nvidia-smi
_NO_GPU = ("", "-1", "NoDevFiles")  # CUDA_VISIBLE_DEVICES of nobody; the last is SLURM's
_NOBODY = "a class that nobody wrote"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's.

    Attributes:
        subject: what was looked at.
        found: what was seen.
        status: `ok`, `note` (good to know) or `problem`.
        advice: what to do; None where there is nothing.
    """

    subject: str
    found: str
    status: str = OK
    advice: str | None = None


@app.command()
def doctor(
    datasets: Annotated[
        list[str] | None, typer.Argument(metavar="[DATASET]...", help="IDs or names of datasets to look into as well.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    workers: Workers = None,
) -> None:
    """Check versions, nnU-Net's folders, its lookup of the trainers, device, disk and datasets; say what to do.

    Exit code 1 if there is a problem. A note is nothing wrong, but good to know.

    Example:  attenscribble doctor

    Example:  attenscribble doctor 501 --json
    """
    asked = ask_nnunet()  # which goes on while the datasets are looked at
    from nnunet_attenscribble.cli.doctor_datasets import check_dataset, list_datasets

    told = [finding for dataset in datasets or [] for finding in check_dataset(dataset, workers)]
    found = asked()
    findings = [*check_versions(), *check_folders(), *check_trainers(found), *check_device(found), *check_disk()]
    findings += told if datasets else list_datasets()
    ok = all(finding.status != PROBLEM for finding in findings)
    if as_json:
        typer.echo(json.dumps({"ok": ok, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        _print(findings)
    if not ok:
        raise typer.Exit(1)


def _print(findings: list[Finding]) -> None:
    """A line per finding, and what to do below it; wrapped between words on a terminal, and nowhere else."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    styles = {OK: "green", NOTE: "yellow", PROBLEM: "bold red"}
    table = Table.grid(padding=(0, 1))
    lines = []
    for finding in findings:
        lines.append((finding.status, f"{finding.subject}: {finding.found}"))
        if finding.advice is not None:
            lines.append(("", f"-> {finding.advice}"))
    if console.is_terminal:
        for status, text in lines:
            table.add_row(Text(status, styles.get(status, "")), Text(text))  # no markup: paths may hold brackets
        console.print(table)
    else:
        typer.echo("\n".join(f"{status:<8}{text}" for status, text in lines))
    counts = {word: sum(finding.status == word for finding in findings) for word in (PROBLEM, NOTE)}
    told = [counted(number, word) for word, number in counts.items() if number]
    typer.echo(f"\n{', '.join(told) or 'Everything is in order'}.")


def ask_nnunet() -> Callable[[], dict[str, Any]]:
    """Begin to ask what `answer` answers, for the trainers of this package; the call that is returned waits for it."""
    asked = begin_asking(__name__, list_trainers())

    def wait() -> dict[str, Any]:
        try:
            with show_waiting("Asking nnU-Net for the trainers"):
                return asked()
        except AttenScribbleError as error:
            return {"error": str(error)}

    return wait


def check_versions() -> list[Finding]:
    """Python, and every package that this one requires."""
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    required = [Requirement(text) for text in requires(_PACKAGE) or []]
    here = [entry for entry in required if entry.marker is None or entry.marker.evaluate({"extra": ""})]
    problems = []
    for requirement in here:
        found = _version(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            told = "is not installed" if found is None else f"has version {found}, {requirement.specifier} is needed"
            advice = f'pip install "{requirement.name}{requirement.specifier}"'
            problems.append(Finding("versions", f"{requirement.name} {told}", PROBLEM, advice))
    versions = [f"Python {platform.python_version()}", *(f"{name} {_version(name)}" for name in (_PACKAGE, *_TOLD))]
    return problems or [Finding("versions", ", ".join(versions))]


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def check_folders() -> list[Finding]:
    """nnU-Net's three folders: named, there, writable, and not the same."""
    findings = []
    for variable in FOLDERS:
        value = os.environ.get(variable)
        if not value:
            findings.append(Finding(variable, "is not set", PROBLEM, f"export {variable}=FOLDER, as an absolute path"))
            continue
        folder = Path(value)
        if not folder.exists():
            findings.append(Finding(variable, f"{value} does not exist", PROBLEM, f'mkdir -p "${variable}"'))
        elif not folder.is_dir():
            findings.append(Finding(variable, f"{value} is a file", PROBLEM, f"export {variable}=FOLDER"))
        elif not os.access(folder, os.W_OK | os.X_OK):
            advice = f"change its permissions, or export {variable}=ANOTHER"
            findings.append(Finding(variable, f"{value} cannot be written to", PROBLEM, advice))
        elif not folder.is_absolute():
            advice = f'export {variable}="{folder.absolute()}"'
            findings.append(Finding(variable, f"{value} is relative: it depends on where you are", NOTE, advice))
        else:
            findings.append(Finding(variable, value))
    given = [folder.resolve() for folder in map(find_folder, FOLDERS) if folder is not None]
    if len(set(given)) < len(given):
        advice = "give each a folder of its own: nnU-Net tells datasets, plans and models apart by them"
        findings.append(Finding("folders", "two of nnU-Net's folders are the same", PROBLEM, advice))
    return findings


def check_trainers(answer: Mapping[str, Any]) -> list[Finding]:
    """Whether nnU-Net's own lookup finds the trainers, and finds those of this installation."""
    if "error" in answer:
        advice = f'install the package again: pip install --force-reinstall "{_PACKAGE}"'
        return [Finding("trainers", f"nnU-Net cannot be asked ({answer['error']})", PROBLEM, advice)]
    exported = exported_folders()
    if not exported:
        return [Finding("trainers", f"{VARIABLE} is not set, nnU-Net finds none of them", PROBLEM, _export([]))]
    absent = [folder for folder in exported if not folder.is_dir()]
    broken = answer.get("broken")
    lost = {name: entry["error"] for name, entry in answer["trainers"].items() if "error" in entry}
    elsewhere = {
        entry["folder"] or "its own folders"
        for entry in answer["trainers"].values()
        if "error" not in entry and not _is_own(Path(entry["folder"] or ""))
    }
    findings = []
    if broken and broken["folder"]:
        file = f"{broken['module']} in {broken['folder']}" if broken["module"] else broken["folder"]
        told = f"{file} cannot be imported ({broken['error']}): nnU-Net's search ends there"
        told += "" if lost else ", behind the trainers of this package"
        kept = [folder for folder in exported if folder not in (Path(broken["folder"]), *absent)]
        advice = f"mend it, or leave it out: {_export(kept)}"
        findings.append(Finding("trainers", told, PROBLEM if lost else NOTE, advice))
    if absent and (not lost or not findings):
        told = f"{VARIABLE} names no folder ({', '.join(map(str, absent))})"
        kept = [folder for folder in exported if folder not in absent]
        findings.append(Finding("trainers", told, PROBLEM if lost else NOTE, _export(kept)))
    if lost and not findings:
        first = next(iter(lost.values())).split(" (")[0]
        findings.append(Finding("trainers", f"{first} ({len(lost)} of them)", PROBLEM, _export(exported)))
    if elsewhere:
        told = f"nnU-Net takes them from {', '.join(map(str, elsewhere))}, not from this installation"
        kept = [folder for folder in exported if str(folder) not in {str(Path(name)) for name in elsewhere}]
        findings.append(Finding("trainers", told, PROBLEM, _export(kept)))
    if lost or elsewhere:
        return findings
    names = len(answer["trainers"])
    return [Finding("trainers", f"nnU-Net finds all {names} of them in {trainers_folder()}"), *findings]


def _is_own(folder: Path) -> bool:
    """Whether it is this installation's, however it is spelt."""
    return folder.resolve() == trainers_folder().resolve()


def _export(folders: Sequence[Path]) -> str:
    """The command that names this installation's trainers and, behind them, the other folders."""
    others = [str(folder) for folder in folders if not _is_own(folder)]
    return f'export {VARIABLE}="{os.pathsep.join(["$(attenscribble trainers)", *others])}"'


def check_device(answer: Mapping[str, Any]) -> list[Finding]:
    """What nnU-Net can train on; a processor alone is slow, not wrong."""
    if "error" in answer:
        return []  # told already
    if answer["gpus"]:
        told = [f"{name}, {memory / _GIB:.0f} GB" for name, memory in answer["gpus"]]
        return [Finding("device", f"GPU: {'; '.join(told)}")]
    if answer["mps"]:
        advice = (
            "add -device mps to nnUNetv2_train and nnUNetv2_predict; nnUNetTrainerAttenScribble in 3D needs "
            "PYTORCH_ENABLE_MPS_FALLBACK=1, as torch pools no volumes there"
        )
        return [Finding("device", "Apple GPU (mps)", NOTE, advice)]
    advice = "attenscribble configure DATASET --cpu, and -device cpu for nnUNetv2_train and nnUNetv2_predict"
    findings = [Finding("device", f"no GPU, {os.cpu_count()} processors", NOTE, advice)]
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) in _NO_GPU:
        found = f"CUDA_VISIBLE_DEVICES is {chosen!r}, so torch sees no GPU"
        findings.append(Finding("device", found, NOTE, "to train on a GPU, name it there, or unset the variable"))
    elif _driver_lists_gpu():
        built = f"is built for CUDA {answer['cuda']}" if answer["cuda"] else "is built without CUDA"
        advice = "install the torch that fits the driver that nvidia-smi shows: see pytorch.org"
        findings.append(
            Finding("device", f"there is an NVIDIA driver, but torch, which {built}, sees no GPU", PROBLEM, advice)
        )
    return findings


def _driver_lists_gpu() -> bool:
    """Whether nvidia-smi, which login nodes without a GPU have too, knows of one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU " in listed.stdout


def check_disk() -> list[Finding]:
    """Free space of nnU-Net's folders, those on one disk together, and of shared memory."""
    places: dict[int, list[tuple[str, Path]]] = {}
    for variable in FOLDERS:
        folder = find_folder(variable)
        if folder is not None and folder.is_dir():
            places.setdefault(folder.stat().st_dev, []).append((variable, folder))
    findings = []
    for entries in places.values():
        free = shutil.disk_usage(entries[0][1]).free / _GIB
        names = ", ".join(variable for variable, _ in entries)
        status = PROBLEM if free < _DISK_PROBLEM else NOTE if free < _DISK_NOTE else None
        if status is None:
            findings.append(Finding("disk", f"{free:.0f} GB free for {names}"))
        else:
            advice = "make room, or move a folder: preprocessed data and checkpoints take gigabytes"
            findings.append(Finding("disk", f"only {free:.1f} GB free for {names}", status, advice))
    if _SHARED_MEMORY.is_dir():
        size = shutil.disk_usage(_SHARED_MEMORY).total / _GIB
        if size < _SHARED_MEMORY_NOTE:
            advice = "start the container with --ipc=host or --shm-size=8g, or nnU-Net's workers may die"
            findings.append(Finding("disk", f"only {size * 1024:.0f} MB of shared memory", NOTE, advice))
    return findings


def answer(names: Sequence[str]) -> dict[str, Any]:
    """What torch and nnU-Net say, for `begin_asking`.

    Returns:
        `error` where torch or nnU-Net cannot be imported; else `gpus`, name and bytes of each, `cuda`, the version that
        torch is built for or None, `mps`, `trainers`: by name the folder that nnU-Net found it in, or `error`; and
        `broken`: None, or of the first file that stops a search through all folders its `folder`, `module` and `error`.
    """
    try:
        import torch
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    properties = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    found: dict[str, Any] = {}
    broken = None
    for name in (*names, _NOBODY):
        printed = io.StringIO()
        try:
            with redirect_stdout(printed):
                recursive_find_trainer_class_by_name(name)
            folder = re.search(rf"Using trainer '{name}' from: (.*)", printed.getvalue())
            found[name] = {"folder": folder and folder[1]}
        except (Exception, SystemExit) as error:  # SystemExit: of a script that is no module
            told = " ".join(f"{type(error).__name__}: {error}".split())
            found[name] = {"error": told}
            if name == _NOBODY and "Could not find requested nnunet trainer" not in told:
                folders, modules = (
                    re.findall(pattern, printed.getvalue())
                    for pattern in (r"Searching in: (.*)", r"Inspecting module: (.*)")
                )
                broken = {"folder": folders and folders[-1], "module": modules and modules[-1], "error": told}
    del found[_NOBODY]
    return {
        "gpus": [[device.name, device.total_memory] for device in properties],
        "cuda": torch.version.cuda,
        "mps": torch.backends.mps.is_available(),
        "trainers": found,
        "broken": broken,
    }
