"""Experiments of several rows, folds and repetitions: read from a file, planned, run and collected."""

from nnunet_attenscribble.evaluation.benchmark.cells import Cell, Plan, list_cells, make_plan, select_cells
from nnunet_attenscribble.evaluation.benchmark.checks import check_ahead
from nnunet_attenscribble.evaluation.benchmark.collect import Collected, collect, list_compared
from nnunet_attenscribble.evaluation.benchmark.execution import run_at_once, run_steps
from nnunet_attenscribble.evaluation.benchmark.file import Benchmark, read_benchmark
from nnunet_attenscribble.evaluation.benchmark.run import (
    Outcome,
    list_preparations,
    make_environment,
    run_cells,
    run_preparations,
    submit,
    write_array,
)
from nnunet_attenscribble.evaluation.benchmark.state import CellState, read_states
from nnunet_attenscribble.evaluation.benchmark.test_set import BenchmarkTestSet, find_test_set
from nnunet_attenscribble.evaluation.benchmark.workspace import (
    Model,
    Step,
    Workspace,
    command_step,
    nnunet_environment,
    open_workspace,
    predict_step,
    remember_folders,
    train_step,
)

__all__ = [
    "Benchmark",
    "BenchmarkTestSet",
    "Cell",
    "CellState",
    "Collected",
    "Model",
    "Outcome",
    "Plan",
    "Step",
    "Workspace",
    "check_ahead",
    "collect",
    "command_step",
    "find_test_set",
    "list_cells",
    "list_compared",
    "list_preparations",
    "make_environment",
    "make_plan",
    "nnunet_environment",
    "open_workspace",
    "predict_step",
    "read_benchmark",
    "read_states",
    "remember_folders",
    "run_at_once",
    "run_cells",
    "run_preparations",
    "run_steps",
    "select_cells",
    "submit",
    "train_step",
    "write_array",
]
