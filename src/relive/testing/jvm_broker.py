"""A Kafka broker from its jars on a local JVM: no container engine, no root."""

import base64
import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

from relive.testing import watchdog
from relive.testing.broker import (
    JAVA_HEAP,
    JAVA_OPTIONS,
    KAFKA_VERSION,
    START_TIMEOUT_S,
    STOP_TIMEOUT_S,
    BrokerFailed,
    BrokerUnavailable,
    broker_settings,
    wait_until_answers,
)
from relive.testing.ports import free_ports
from relive.testing.secured_broker import Secured

JAVA_VERSION_MIN = 17
LOG_LINES_SHOWN = 40


def find_jars(environ: Mapping[str, str]) -> Path:
    """The folder of Kafka's jars: RELIVE_KAFKA_HOME (an unpacked Kafka will do) or the cache."""
    cache = Path.home() / ".cache" / "relive" / f"kafka-{KAFKA_VERSION}"
    home = Path(environ.get("RELIVE_KAFKA_HOME") or cache)
    for folder in (home, home / "libs"):
        if any(folder.glob("kafka_2.*.jar")):
            return folder
    raise BrokerUnavailable(
        f"no Kafka jars in {home}: run infra/kafka/fetch-jars,"
        " or set RELIVE_KAFKA_HOME to an unpacked Kafka"
    )


def find_java(environ: Mapping[str, str]) -> Path:
    """A Java that is new enough: that of JAVA_HOME, else the first on the PATH."""
    home = environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin" if home else environ.get("PATH", ""))
    if found is None:
        raise BrokerUnavailable(f"no java in {'JAVA_HOME' if home else 'PATH'}")
    try:
        said = _run([found, "-version"])
    except BrokerFailed as failure:
        raise BrokerUnavailable(str(failure)) from failure
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < JAVA_VERSION_MIN:
        raise BrokerUnavailable(f"{found} is not Java {JAVA_VERSION_MIN} or newer: {said.strip()}")
    return Path(found)


def run_tool(environ: Mapping[str, str], tool: str, *arguments: str) -> str:
    """What one of Kafka's own tools says, named by its class, as its script would run it.

    Raises:
        BrokerUnavailable: there is no Java, or there are no jars.
        BrokerFailed: it does not end.
    """
    java, jars = find_java(environ), find_jars(environ)
    options = ["-Xmx128m", *JAVA_OPTIONS.split(), "-Dlog4j2.level=ERROR"]
    return _run([str(java), *options, "-cp", f"{jars}/*", tool, *arguments])


class JvmBroker:
    """A broker of its own on loopback, as a process that ends with this one.

    The folder given holds its settings, its log (`broker.log`) and its data; an existing one is
    taken up again. Fulfils `relive.testing.broker.Broker`.

    Args:
        java, jars: to run it with; see `find_java` and `find_jars`.
        directory: its folder.
        port: to listen on; a free one by default.
        secured: listens there with TLS and passwords instead, and lets nobody do what no ACL
            allows. The address that the tests use stays open.
    """

    via = "jvm"

    def __init__(
        self,
        java: Path,
        jars: Path,
        directory: Path,
        port: int | None = None,
        secured: Secured | None = None,
    ) -> None:
        free, controller_port = free_ports(2)
        self._port = free if port is None else port
        self._secured = secured
        self._controller = f"127.0.0.1:{controller_port}"
        self._command = [str(java), *JAVA_HEAP.split(), *JAVA_OPTIONS.split()]
        # The bridge to log4j has no file to read here, and its default is silence below ERROR.
        self._command += ["-Dlog4j2.level=INFO", "-cp", f"{jars}/*"]
        self._directory = directory
        self._log_start = 0
        self._process: _GuardedProcess | None = None

    def __repr__(self) -> str:
        state = f"pid {self._process.pid}" if self._process else "down"
        return f"<JvmBroker {self.bootstrap} {state}>"

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def log_file(self) -> Path:
        return self._directory / "broker.log"

    def start(self) -> None:
        """Format the data folder if it is new, start, and return when the broker answers."""
        self._write_settings()
        if not self._meta.exists():
            self._format()
        self._log_start = self.log_file.stat().st_size if self.log_file.exists() else 0
        command = [*self._command, "kafka.Kafka", str(self._settings)]
        process = self._process = _GuardedProcess(command, self.log_file)
        try:
            wait_until_answers(
                self.bootstrap, START_TIMEOUT_S, process.is_alive, self._read_cluster_id()
            )
        except BrokerFailed as failure:
            self.kill()
            raise BrokerFailed(f"{failure}; from its log:\n{self._log_end()}") from None

    def wait(self) -> None:
        """Return only by raising: when the broker ends by itself, or at an interrupt."""
        self._running().wait()
        raise BrokerFailed(f"the broker ended by itself; from its log:\n{self._log_end()}")

    def kill(self) -> None:
        if self._process:
            self._process.end(signal.SIGKILL)
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        self._running().send(signal.SIGSTOP)

    def resume(self) -> None:
        self._running().send(signal.SIGCONT)

    def ensure_running(self) -> None:
        if self._process and self._process.is_alive():
            self.resume()
        else:
            self.restart()

    def stop(self) -> None:
        if self._process:
            self._process.send(signal.SIGCONT)
            self._process.end(signal.SIGTERM)
            self._process = None

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    @property
    def _meta(self) -> Path:
        """What formatting leaves behind."""
        return self._data / "meta.properties"

    @property
    def _settings(self) -> Path:
        return self._directory / "server.properties"

    def _running(self) -> "_GuardedProcess":
        if self._process is None or not self._process.is_alive():
            raise BrokerFailed(f"the broker at {self.bootstrap} does not run")
        return self._process

    def _write_settings(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        settings = broker_settings(
            listen=self.bootstrap,
            advertise=self.bootstrap,
            controller=self._controller,
            data=str(self._data),
        )
        if self._secured:
            settings = self._secured.added_to(settings)
        self._settings.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))

    def _format(self) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        # "=", since an id may begin with a dash.
        tool = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster}"]
        tool += self._secured.format_options() if self._secured else []
        said = _run([*self._command, *tool, "--config", str(self._settings)])
        if not self._meta.exists():
            raise BrokerFailed(f"Kafka could not format {self._data}:\n{said}")

    def _read_cluster_id(self) -> str:
        lines = self._meta.read_text().splitlines()
        return next(line.partition("=")[2] for line in lines if line.startswith("cluster.id="))

    def _log_end(self) -> str:
        """From the first error since the last start, or just the end: a shutdown is long-winded."""
        with self.log_file.open(errors="replace") as log:
            log.seek(self._log_start)
            lines = log.read().splitlines()
        errors = [n for n, line in enumerate(lines) if " ERROR " in line or " FATAL " in line]
        first = errors[0] if errors else max(0, len(lines) - LOG_LINES_SHOWN)
        return "\n".join(lines[first : first + LOG_LINES_SHOWN])


class _GuardedProcess:
    """A process under the watchdog: it dies when this one does, whatever the reason."""

    def __init__(self, command: list[str], log_file: Path) -> None:
        guard = [sys.executable, "-I", "-S", watchdog.__file__]
        with log_file.open("ab") as log:
            # The broker inherits the lock with the file and holds it as long as it lives. Kafka's
            # own lock comes too late: by then the second has written to the metadata of the first,
            # which ends for that reason.
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BrokerFailed(f"a broker already runs in {log_file.parent}") from None
            self._guard = subprocess.Popen(
                [*guard, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # or Ctrl-C in a terminal would reach it too
            )
        assert self._guard.stdout is not None
        with self._guard.stdout as told:
            first_line = told.readline()
        if not first_line:
            self._reap()
            raise BrokerFailed(f"could not run {command[0]}, see {log_file}")
        self.pid = int(first_line)

    def is_alive(self) -> bool:
        return self._guard.poll() is None

    def wait(self) -> None:
        self._guard.wait()

    def send(self, number: signal.Signals) -> None:
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):  # it ended in this very moment
                os.kill(self.pid, number)

    def end(self, number: signal.Signals) -> None:
        """Send the signal and wait; if that does not help, SIGKILL."""
        self.send(number)
        try:
            self._guard.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
        self._reap()

    def _reap(self) -> None:
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait(STOP_TIMEOUT_S)


def _run(command: list[str]) -> str:
    """What a command says, on either output, in finite time."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=START_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BrokerFailed(f"{command[0]} does not run: {error}") from error
    return done.stdout
