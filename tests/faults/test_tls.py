"""Encrypted connections that fall silent: the deadline shuts the socket down under OpenSSL, with the same errors."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import attrs
import pytest

from myloware_store import AmbiguousCommit, ConnectionFailed, Settings
from myloware_store.db.database import StoreDatabase
from tests.integration.conftest import PATIENCE
from tests.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.conftest import Server


def test_a_silent_encrypted_connection_ends(prepared: Callable[..., Server], tmp_path: Path) -> None:
    """A read and a write, and each time the pool heals."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    request = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=localhost"]
    subprocess.run([*request, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    server = prepared().start()
    with closing(Relay(str(server.data), 5432, tls=tls)) as relay:
        settings = relay.before(Settings.load(server.url()))
        encrypted = {**settings.params, "sslmode": "require"}
        database = StoreDatabase(attrs.evolve(settings, params=encrypted, call_timeout=PATIENCE))
        for reads, error in ((True, ConnectionFailed), (False, AmbiguousCommit)):
            assert [(True,)] == database.execute_sql("SELECT true").fetchall()
            relay.stall()
            with database.call_timeout(0.3), pytest.raises(error, match="call_timeout"):
                database.execute_sql("SELECT 1", reads=reads)
            relay.flow()
            assert "0 open" in repr(database.pool)
        database.close_all()
