"""Secrets of connectors: the keys that encrypt them, the names that mark them, and who resolves references."""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Self

import attrs

from myloware_store.core.errors import MissingKey, SettingsError
from myloware_store.core.quiet import Hidden

__all__ = ["KEY_BYTES", "NAMES", "Secrets"]

KEY_BYTES = 32

NAMES = frozenset(
    {
        *("password", "passwd", "pass", "pwd", "passphrase", "secret", "token", "credential", "credentials"),
        *("authorization", "api_key", "apikey", "access_key", "account_key", "encryption_key", "private_key"),
        *("secret_key", "shared_key", "signing_key", "connection_string", "database_url", "dsn"),
    }
)
"""The names of secrets, in snake case. A name that ends with one of them counts, too, such as `smtp_password`."""

_OFF = "off"
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NEW_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")


def _as_names(names: Iterable[str] | None) -> frozenset[str] | None:
    if names is None:
        return None
    given = frozenset([names] if isinstance(names, str) else names)
    if not all(isinstance(name, str) and _words(name) for name in given):
        raise SettingsError("secrets: names must be texts with letters")
    return frozenset(map(_words, given))


@attrs.frozen
class Secrets:
    """How secrets in the `config` of connectors are encrypted, recognised and resolved; see docs/secrets.md.

    What is not given to `Store.open(secrets=...)` is taken from the settings.

    Args:
        keys: The keys as text, `id:base64` with commas between them, of 32 bytes each; or a function that returns the
            32 bytes of the key with an id, called whenever a key is used; or `off`, which stores secrets unencrypted.
            By default there are no keys, and a secret is refused.
        current: The id of the key that encrypts; by default the first of the text.
        resolve: A function that returns the secret of a reference. It is called with the reference (`secret://...`)
            and the tenant of the connector.
        names: The names of secrets, in place of the default ones (`password`, `token`, `api_key`, ...).

    Raises:
        SettingsError: A key is not `id:base64` of 32 bytes, or the current one is not among them.
    """

    keys: str | Callable[[str], bytes] | None = attrs.field(default=None, repr=False)
    current: str | None = None
    resolve: Callable[[str, str], object] | None = None
    names: frozenset[str] | None = attrs.field(default=None, converter=_as_names)

    def __attrs_post_init__(self) -> None:
        """Refuse what is not a key, without showing it."""
        if self.resolve is not None and not callable(self.resolve):
            raise SettingsError("secrets: resolve is not a function")
        if callable(self.keys):
            if self.current is None or not _KEY_ID.fullmatch(self.current):
                raise SettingsError("secrets: with a function for the keys, current must be the id of one")
        elif self.keys is not None and not self.off:
            ids = [*_table(self.keys)]
            if not ids:
                raise SettingsError(
                    f"secrets: the keys (MYLOWARE_SECRET_KEYS) are not id:base64 of {KEY_BYTES} bytes each, with commas"
                    " between them and no id twice; `myloware-store secrets generate-key` prints one"
                )
            if self.current not in (None, *ids):
                raise SettingsError("secrets: current is not the id of one of the keys")

    @classmethod
    def load(cls, values: Mapping[str, str]) -> Self:
        """Read MYLOWARE_SECRET_KEYS, and MYLOWARE_SECRET_NAMES (names in place of the default ones; `+` adds names)."""
        text = values.get("MYLOWARE_SECRET_NAMES", "").strip()
        names = {name for each in text.removeprefix("+").split(",") if (name := each.strip())}
        if text.startswith("+"):
            names |= NAMES
        return cls(keys=values.get("MYLOWARE_SECRET_KEYS", "").strip() or None, names=names if text else None)

    def over(self, others: Secrets) -> Secrets:
        """Return these, completed with what only others have."""
        keyed = others if self.keys is None else self
        names = others.names if self.names is None else self.names
        return Secrets(keyed.keys, keyed.current, self.resolve or others.resolve, names)

    @property
    def off(self) -> bool:
        """Whether secrets are stored unencrypted, by request."""
        return isinstance(self.keys, str) and self.keys.lower() == _OFF

    @property
    def current_id(self) -> str | None:
        """The id of the key that encrypts; None without keys."""
        text = isinstance(self.keys, str) and not self.off
        return self.current or (next(iter(_table(self.keys))) if text else None)

    def marks(self, name: object) -> bool:
        """Return whether a field of this name is a secret: its last words are one of the names."""
        return isinstance(name, str) and _ends_with(name, NAMES if self.names is None else self.names)

    def key(self, key_id: str) -> bytes:
        """Return a key.

        Raises:
            MissingKey: There is no such key, or the function for the keys failed.
        """
        # No variable holds a key here: tools that print the variables of a traceback would print it.
        if not callable(self.keys):
            table = "" if self.keys is None or self.off else self.keys
            if table and key_id in _table(table):
                return _table(table)[key_id]
            raise MissingKey(f"the key {key_id} of a secret is not among the keys (MYLOWARE_SECRET_KEYS)")
        try:
            found = Hidden(self.keys(key_id))
        except Exception as error:  # noqa: BLE001  its message may quote anything
            failed = type(error).__name__
        else:
            if isinstance(found.value, bytes) and len(found.value) == KEY_BYTES:
                return found.value
            failed = f"something other than {KEY_BYTES} bytes"
        raise MissingKey(f"the function for the keys gave {failed} for the key {key_id}")


def _words(name: str) -> str:
    return _NEW_WORD.sub("_", name).strip("_").lower()


@lru_cache
def _ends_with(name: str, names: frozenset[str]) -> bool:
    words = f"_{_words(name)}"
    return any(words.endswith(f"_{each}") for each in names)


def _table(text: object) -> dict[str, bytes]:
    """Return the keys of a text by their ids, the current one first, or none if one of them is wrong."""
    found: dict[str, bytes] = {}
    for part in text.split(",") if isinstance(text, str) else [""]:
        key_id, _, encoded = part.strip().partition(":")
        try:
            key = urlsafe_b64decode(encoded.translate(str.maketrans("+/", "-_")).encode())
        except (binascii.Error, UnicodeEncodeError):
            return {}
        if not _KEY_ID.fullmatch(key_id) or len(key) != KEY_BYTES or key_id in found:
            return {}
        found[key_id] = key
    return found
