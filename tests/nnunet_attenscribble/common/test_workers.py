"""The process pool."""

from __future__ import annotations

import os

import pytest

from nnunet_attenscribble.common import workers
from nnunet_attenscribble.common.workers import default_workers, run_all, worker_map
from nnunet_attenscribble.errors import AttenScribbleError


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order(processes):
    with worker_map(processes, 20) as run:
        assert list(run(abs, [-3, 2, -1])) == [3, 2, 1]
        assert list(run(str, range(20))) == [str(number) for number in range(20)]  # the same pool again


def test_a_worker_that_died_is_a_sentence():
    with pytest.raises(AttenScribbleError, match="try again with fewer than 2 workers"), worker_map(2, 3) as run:
        list(run(os._exit, [1, 1]))


def test_an_error_in_a_worker_arrives():
    with pytest.raises(ValueError, match="invalid literal"), worker_map(2, 3) as run:
        list(run(int, ["1", "x", "2"]))


def refuse_odd(number: int) -> int:
    if number % 2:
        raise AttenScribbleError([f"{number} is odd", f"{number} is not even"])
    return number


@pytest.mark.parametrize("processes", [1, 2])
def test_what_is_refused_of_one_item_comes_with_that_of_the_others(processes):
    assert run_all(refuse_odd, [2, 4], processes, "") == [2, 4]
    with pytest.raises(AttenScribbleError) as caught:
        run_all(refuse_odd, [1, 2, 3], processes, "")
    assert caught.value.problems == ["1 is odd", "1 is not even", "3 is odd", "3 is not even"]


def test_default_workers():
    assert 1 <= default_workers() <= 8


def test_a_pool_has_no_more_workers_than_windows_allows(monkeypatch):
    asked = []
    pool = workers.ProcessPoolExecutor
    monkeypatch.setattr(workers, "ProcessPoolExecutor", lambda count, **rest: asked.append(count) or pool(1, **rest))
    with worker_map(100, 100):
        assert asked == [61]


def test_one_task_needs_no_process():
    with worker_map(8, 1) as run:
        assert run is map
