"""Refuses to build a wheel: everything here works on the checkout, so it is installed with ``pip install -e .``."""

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.sdist import sdist
from setuptools.errors import SetupError

SENTENCE = (
    "this project is used from its checkout, because its notebooks, weights and data catalog lie beside the code: "
    "clone it and run 'make lab', or install the checkout with 'pip install -r requirements.txt'"
)


class NoWheel(bdist_wheel):
    """An editable installation only asks this command for a name; building with it is refused."""

    def run(self) -> None:
        raise SetupError(SENTENCE)


class NoSourceDistribution(sdist):
    """As `NoWheel`."""

    def run(self) -> None:
        raise SetupError(SENTENCE)


setup(cmdclass={"bdist_wheel": NoWheel, "sdist": NoSourceDistribution})
