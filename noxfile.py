"""The tests on other Pythons, and with the lowest and newest dependencies: nox."""

import configparser

import nox

nox.options.sessions = ["tests", "lowest"]


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """With the newest of everything."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest")


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """With the lowest versions of what the library itself needs."""
    config = configparser.ConfigParser()
    config.read("setup.cfg")
    needed = config["options"]["install_requires"].split()
    session.install("-e", ".[test]")
    session.install(*(one.replace(">=", "==") for one in needed))
    session.run("python", "-m", "pytest")
