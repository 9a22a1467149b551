"""Converting ACDC beside reading and writing its files: `python -m tools.timing.conversion ACDC SCRIBBLES`.

One side is `attenscribble convert acdc` with everything that it does: checks, SHA-256, codings, two datasets. The other
reads every image, scribble and dense label with SimpleITK and writes it again, compressed. Both use the same processes,
and take turns, so that a busy machine is as busy for one as for the other. Processor time counts all processes.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import SimpleITK as sitk

from nnunet_attenscribble.common.files import find_files, unpacked
from nnunet_attenscribble.dataset_conversion.acdc import convert_acdc
from nnunet_attenscribble.dataset_conversion.workers import worker_map


def convert(folder: Path, scribbles: Path, target: Path, workers: int) -> int:
    """Our side; returns the number of cases."""
    written = convert_acdc(
        folder, scribbles, raw_folder=target, preprocessed_folder=None, dataset_id=501, split="maag", workers=workers
    )
    return written.training + written.test


def read_and_write(folder: Path, scribbles: Path, target: Path, workers: int) -> int:
    """The other; returns the number of cases."""
    images = [file for file in find_files(folder) if file.name.endswith(".nii.gz") and "_4d" not in file.name]
    cases = {file.name.removesuffix(".nii.gz") for file in images if "_gt" not in file.name}
    drawn = [file for file in find_files(scribbles) if file.name.removesuffix("_scribble.nii.gz") in cases]
    with worker_map(workers) as run:
        for _ in run(partial(_copy, target=target), [*images, *drawn]):
            pass
    return len(cases)


def _copy(file: Path, *, target: Path) -> None:
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # about ACDC's sforms, on both sides
    sitk.WriteImage(sitk.ReadImage(str(file)), str(target / file.name), useCompression=True)


def measure(side: Callable[[Path], int]) -> tuple[float, float, int]:
    """Seconds on the clock, seconds of all processors, and cases."""
    with tempfile.TemporaryDirectory() as target:
        start, before = time.perf_counter(), _processor_time()
        cases = side(Path(target))
        return time.perf_counter() - start, _processor_time() - before, cases


def _processor_time() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    """Print both sides of every round, and the ratio of their sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("acdc", type=Path, help="the unpacked download")
    parser.add_argument("scribbles", type=Path, help="the released archive, or its folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    import nnunetv2.dataset_conversion.generate_dataset_json  # noqa: F401 - loading libraries is no conversion

    totals = {"convert": [0.0, 0.0], "read and write": [0.0, 0.0]}
    with unpacked(arguments.scribbles) as scribbles:
        for number in range(arguments.rounds):
            for name, function in (("convert", convert), ("read and write", read_and_write)):
                clock, processors, cases = measure(
                    lambda target, function=function: function(arguments.acdc, scribbles, target, arguments.workers)
                )
                totals[name][0] += clock
                totals[name][1] += processors
                print(
                    f"round {number + 1}, {name}: {cases} cases, {clock:.1f} s, {processors:.1f} s of processors",
                    flush=True,
                )
    ours, theirs = totals.values()
    print(f"convert / read and write: {ours[0] / theirs[0]:.2f} by the clock, {ours[1] / theirs[1]:.2f} of processors")


if __name__ == "__main__":
    main()
