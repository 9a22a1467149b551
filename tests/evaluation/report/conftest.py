import pytest

from nnunet_attenscribble.evaluation.report.build import write_report
from tests.evaluation.collected_folder import write_collected


@pytest.fixture(scope="session")
def collected(tmp_path_factory):
    """A collected benchmark; no test changes it."""
    return write_collected(tmp_path_factory.mktemp("benchmark") / "collected", seeds=(0, 1))


@pytest.fixture
def folder(tmp_path):
    """One of its own for a test that changes it."""
    return write_collected(tmp_path / "collected")


@pytest.fixture(scope="session")
def report(collected, tmp_path_factory):
    """Its report."""
    output = tmp_path_factory.mktemp("report") / "out"
    write_report(collected, output)
    return output
