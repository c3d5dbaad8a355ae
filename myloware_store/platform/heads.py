"""Heads of the audit trail as a file, signed with Ed25519, to keep outside of the database."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import orjson

from myloware_store.core.arguments import as_list
from myloware_store.core.errors import InvalidInput, SettingsError
from myloware_store.core.results import AuditHead

__all__ = ["read_heads", "sign_heads"]


def sign_heads(heads: Iterable[AuditHead], private_key: bytes) -> bytes:
    """Return heads as the contents of a file: a JSON object with the time and the signature.

    Args:
        heads: What `store.audit.heads()` returned.
        private_key: An Ed25519 key in PEM, as `openssl genpkey -algorithm ed25519` makes it.

    Raises:
        InvalidInput: The key is not such a key, or has a password.
        SettingsError: cryptography is not installed.
    """
    rows = [
        {"tenant_id": head.tenant_id, "number": head.number, "hash": head.hash}
        for head in as_list(heads, "heads", AuditHead)
    ]
    signed = {"made_at": datetime.now(UTC).isoformat(), "heads": rows}
    signature = _load("private", private_key).sign(_message(signed))
    return orjson.dumps({**signed, "signature": base64.b64encode(signature).decode()}, option=orjson.OPT_INDENT_2)


def read_heads(data: bytes, public_key: bytes) -> list[AuditHead]:
    """Return the heads of such a file.

    Args:
        data: The contents of the file.
        public_key: The Ed25519 key in PEM, as `openssl pkey -pubout` makes it.

    Raises:
        InvalidInput: The file is not one of `sign_heads`, or was changed, or was signed with another key.
        SettingsError: cryptography is not installed.
    """
    key = _load("public", public_key)
    from cryptography.exceptions import InvalidSignature

    try:
        read = orjson.loads(data)
        signature = base64.b64decode(read.pop("signature"), validate=True)
        key.verify(signature, _message(read))
        return [AuditHead(row["tenant_id"], row["number"], row["hash"]) for row in read["heads"]]
    except (InvalidSignature, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput("these are not heads that were signed with this key, or they were changed") from error


def _message(signed: dict[str, Any]) -> bytes:
    return b"myloware audit heads 1\n" + orjson.dumps(signed, option=orjson.OPT_SORT_KEYS)


def _load(kind: str, pem: bytes) -> Any:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    except ImportError as error:
        raise SettingsError("signing needs cryptography: pip install 'myloware-store[secrets]'") from error
    try:
        if kind == "private":
            key: Any = serialization.load_pem_private_key(pem, password=None)
        else:
            key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey | Ed25519PublicKey):
        raise InvalidInput(f"the {kind} key is not an Ed25519 key in PEM without a password")
    return key
