import pytest

from tests.evaluation.benchmark.fake_nnunet import Toy


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Toy:
    return Toy(tmp_path, monkeypatch)
