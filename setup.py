"""Builds in a clone start anew: setuptools would ship modules that were removed since the last one."""

import shutil

from setuptools import setup

shutil.rmtree("build/lib", ignore_errors=True)
setup()
