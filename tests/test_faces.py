"""What a package exports: names that are there, and no more imports than they, or else its modules, need."""

import importlib
import os
import subprocess
import sys

import pytest

FACES = {
    "nnunet_attenscribble": {"torch", "monai", "matplotlib", "rich", "SimpleITK"},
    "nnunet_attenscribble.cli": {"torch", "monai", "matplotlib", "SimpleITK", "numpy"},
    "nnunet_attenscribble.losses": {"matplotlib", "nnunetv2", "rich", "SimpleITK"},
}
FOLDERS = {
    "nnunet_attenscribble.evaluation": {"torch", "monai", "matplotlib", "nnunetv2", "rich"},
    "nnunet_attenscribble.evaluation.benchmark": {"torch", "monai", "matplotlib", "nnunetv2"},
    "nnunet_attenscribble.evaluation.report": {"torch", "monai", "nnunetv2"},
}


@pytest.mark.parametrize("package", FACES)
def test_what_a_package_exports_is_there_and_public(package):
    module = importlib.import_module(package)
    assert module.__all__ == list(dict.fromkeys(module.__all__))
    for name in module.__all__:
        assert hasattr(module, name), name
        assert not name.startswith("_") or name == "__version__"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="one process imports, its children tell")
def test_packages_import_no_more_than_they_need():
    code = (
        "import importlib, os, pkgutil, sys\n"
        "for package in sys.argv[1:]:\n"
        "    if (child := os.fork()) == 0:\n"
        "        module = importlib.import_module(package)\n"
        "        for inner in () if hasattr(module, '__all__') else pkgutil.iter_modules(module.__path__):\n"
        "            inner.ispkg or importlib.import_module(f'{package}.{inner.name}')\n"
        "        print(package, *sorted({name.partition('.')[0] for name in sys.modules}), flush=True)\n"
        "        os._exit(0)\n"
        "    assert os.waitpid(child, 0)[1] == 0, package\n"
    )
    packages = FACES | FOLDERS
    done = subprocess.run([sys.executable, "-c", code, *packages], capture_output=True, text=True, check=True)
    found = {package: set(modules) for package, *modules in map(str.split, done.stdout.splitlines())}
    assert found.keys() == packages.keys()
    for package, heavy in packages.items():
        assert not found[package] & heavy, package
