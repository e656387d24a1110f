"""Run the tests on several Pythons, with the newest and the lowest dependencies: `nox`."""

import configparser

import nox

nox.options.sessions = ["tests", "lowest"]


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Test with the newest dependencies."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest")


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """Test with the lowest versions of the library's dependencies."""
    config = configparser.ConfigParser()
    config.read("setup.cfg")
    requirements = config["options"]["install_requires"].split()
    session.install("-e", ".[test]")
    session.install(*(requirement.replace(">=", "==") for requirement in requirements))
    session.run("python", "-m", "pytest")
