"""The real parts that tests stand on. Each is started when a test first asks for it, and stopped at the end."""

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final, TypeAlias

import pytest
from pymongo import MongoClient
from xdist.scheduler import LoadFileScheduling

from scripts.devstack.anvil import Anvil
from scripts.devstack.mongod import Mode, Mongod
from scripts.devstack.stack import Stack

_databases: list[str] = []


class _ByFile(LoadFileScheduling):
    """Tests of one file run one after the other, side by side with others; there is one container engine.

    A browser breaks off what it loads when the machine gets another network, as each deployment makes and removes: so
    the console's tests come after those of the containers.
    """

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(("tests/containers/", "tests/e2e/console/")):
            return "containers, then browsers"
        return str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _ByFile:
    """What is done with `-n`."""
    return _ByFile(config, log)


Figure: TypeAlias = Callable[[str], None]
_FIGURE: Final = "figure"


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Tell a figure that was measured; all of them are shown at the end of the run."""
    return lambda text: record_property(_FIGURE, text)


class _AtOnce:
    """Tells which test failed, and of what, when it does, not at the end of a long run alone."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called for each phase of each test."""
        if report.failed:
            self._terminal.ensure_newline()
            reason = report.longreprtext.rstrip().splitlines()[-1:]
            self._terminal.write_line(f"failed ({report.when}): {report.nodeid}: {' '.join(reason)[:300]}")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Put the above to work."""
    if terminal := config.pluginmanager.getplugin("terminalreporter"):
        config.pluginmanager.register(_AtOnce(terminal))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the figures."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    told = [text for report in reports for name, text in report.user_properties if name == _FIGURE]
    if told:
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(dict.fromkeys(told)))


def _mongod(folders: pytest.TempPathFactory, mode: Mode) -> Iterator[Mongod]:
    folder = folders.mktemp(f"mongod-{mode}")
    server = Mongod.from_environment(folder / "mongo", mode, test_commands=True)
    try:
        server.start()
        yield server
        if server.folder is None:  # not ours: leave it as it was
            with MongoClient(server.url) as client:
                for name in _databases:
                    client.drop_database(name)
    finally:
        server.stop()
        shutil.rmtree(folder / "mongo", ignore_errors=True)  # the log stays: it is searched for secrets


@pytest.fixture(scope="session")
def mongod_standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    """A standalone mongod; `.url`."""
    yield from _mongod(tmp_path_factory, "standalone")


@pytest.fixture(scope="session")
def mongod_replset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    """A replica set of one node; `.url`."""
    yield from _mongod(tmp_path_factory, "replset")


@pytest.fixture(scope="session", params=["standalone", "replset"])
def mongodb_url(request: pytest.FixtureRequest) -> str:
    """URL of a MongoDB server: the test runs once on each kind."""
    return request.getfixturevalue(f"mongod_{request.param}").url


@pytest.fixture
def database_name() -> str:
    """Name of a database that no other test uses."""
    name = f"lucid_test_{uuid.uuid4().hex[:16]}"
    _databases.append(name)
    return name


@pytest.fixture(scope="session")
def anvil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Anvil]:
    """An EVM node with a block each second; `.url`, `.chain_id`, `.accounts` [(address, key)], `.call(method, ...)`."""
    node = Anvil(tmp_path_factory.mktemp("anvil") / "chain")
    try:
        node.start()
        yield node
    finally:
        node.stop()


_MEASURING: Final = "COVERAGE_PROCESS_CONFIG"
_measuring = os.environ.get(_MEASURING, "")


@pytest.fixture(scope="session", autouse=True)
def _unmeasured() -> Iterator[None]:
    """Processes that tests start do not tell what they cover, and start and work the faster; `measured` ones do."""
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv(_MEASURING, raising=False)
        yield


@contextmanager
def measured() -> Iterator[None]:
    """Processes that are started meanwhile tell what they cover, if this run asks for it at all."""
    with pytest.MonkeyPatch.context() as environment:
        if _measuring:
            environment.setenv(_MEASURING, _measuring)
        yield


def own_stack(
    folders: pytest.TempPathFactory,
    mode: Mode = "standalone",
    settings: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[Stack]:
    """What a fixture yields from: a whole stack for tests that do to it what others could not stand."""
    one = Stack(folders.mktemp(f"stack-{mode}"), mode, settings or {}, test_commands=True)
    one.start()
    try:
        yield one
    finally:
        one.stop()
        shutil.rmtree(one.folder / "mongo", ignore_errors=True)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole stack, on a standalone mongod. A test that breaks a part resumes it."""
    with ExitStack() as ending:
        with measured():
            one = ending.enter_context(contextmanager(own_stack)(tmp_path_factory))
        yield one


@pytest.fixture(scope="session")
def stack_replset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole stack, on a replica set."""
    yield from own_stack(tmp_path_factory, "replset")


@pytest.fixture(scope="session", autouse=True)
def _no_wait_for_what_hangs() -> Iterator[None]:
    """A test that fails within `with Popen` ends the program; Python alone would wait for it without end."""
    leave = subprocess.Popen.__exit__

    def ended(process: subprocess.Popen[Any], kind: type[BaseException] | None, *rest: Any) -> None:
        if kind is not None:
            process.kill()
        leave(process, kind, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__exit__", ended)
        yield


@pytest.fixture(autouse=True)
def _ordinary_recursion_limit() -> None:
    """A library of the chain client raises it to 100,000 when it is imported: then deep JSON crashes the interpreter."""
    sys.setrecursionlimit(1000)


@pytest.fixture(scope="session", autouse=True)
def _no_proxy() -> None:
    """Everything here is on the loopback."""
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
