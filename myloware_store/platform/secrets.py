"""The secrets in a config: which values are secrets, and how they are encrypted, masked and read.

An encrypted value is the object `{"$secret": "v1:KEY_ID:HANDLE:BASE64"}`: the nonce, the ciphertext and the tag of
AES-256-GCM, bound by its associated data to the key, the handle, the table, the tenant, the row and the path in the
config. A config that is read has a mask in its place, `***HANDLE`. The handle is random and belongs to the secret until
another one is given, so a mask that is written back says which secret stays.
"""

from __future__ import annotations

import os
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs
import orjson

from myloware_store.core.errors import InvalidInput, MissingKey, SecretsError, UnreadableSecret
from myloware_store.core.quiet import Hidden

if TYPE_CHECKING:
    from myloware_store.settings.secrets import Secrets

__all__ = [
    "Leaf",
    "Path",
    "Place",
    "Sealed",
    "leaves",
    "marked_by",
    "masked",
    "opened",
    "refuse_open",
    "resealed",
    "revealed",
    "seal",
]

Path = tuple[str | int, ...]
"""The keys and indexes that lead to a value in a config."""

MASK = "***"
_TAG = "$secret"
_REFERENCE = "secret://"
_TABLE = "connectors"
_NONCE_BYTES = 12
_HANDLE_BYTES = 6
_HANDLE = re.compile(r"\*\*\*([0-9a-f]{12})")
_TOKEN = re.compile(r"(v1):([A-Za-z0-9._-]{1,64}):([0-9a-f]{12}):([A-Za-z0-9_-]+)")


class Sealed(dict[str, Any]):
    """A config whose secrets are encrypted for its row. The models store no other that contains a secret."""


@attrs.frozen
class Place:
    """The row that a secret belongs to."""

    tenant_id: str
    row_id: str


@attrs.frozen
class Leaf:
    """A value in a config that is neither an object nor a list, or an encrypted one.

    Attributes:
        path: Where it is.
        value: The value.
        secret: Whether it is declared a secret, by a name or by the schema of the connector's type.
    """

    path: Path
    value: Any = attrs.field(repr=False)
    secret: bool

    @property
    def name(self) -> str:
        """The place for messages, such as `config.accounts[0].password`."""
        return "config" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)

    @property
    def sealed(self) -> bool:
        """Whether it is an encrypted value."""
        return isinstance(self.value, dict)

    @property
    def key_id(self) -> str | None:
        """The id of the key that encrypts it; None if it is not encrypted or damaged."""
        found = _token(self.value)
        return found[2] if found else None

    @property
    def open(self) -> bool:
        """Whether it is a secret that is not encrypted: no reference, no boolean, and not empty."""
        scalar = isinstance(self.value, str | int | float) and not isinstance(self.value, bool)
        return self.secret and scalar and self.value != "" and not _is_reference(self.value)


def leaves(
    config: Any, secrets: Secrets, marked: Collection[Path] = (), path: Path = (), *, secret: bool = False
) -> Iterator[Leaf]:
    """Yield the values of a config. What is inside of a secret is a secret, too."""
    secret = secret or path in marked
    if _is_sealed(config) or not isinstance(config, dict | list):
        yield Leaf(path, config, secret)
        return
    for key, part in config.items() if isinstance(config, dict) else enumerate(config):
        yield from leaves(part, secrets, marked, (*path, key), secret=secret or secrets.marks(key))


def masked(config: Any, secrets: Secrets) -> Any:
    """Return a config, or a part of one, with masks in place of its secrets."""

    def mask(leaf: Leaf) -> Any:
        found = _token(leaf.value)
        return MASK + (found[3] if found else "") if leaf.sealed or leaf.open else leaf.value

    return _changed(config, leaves(config, secrets), mask)


def revealed(config: dict[str, Any], place: Place, secrets: Secrets) -> dict[str, Any]:
    """Return a config with its secrets in the clear, and its references resolved.

    Raises:
        MissingKey: A key is missing.
        UnreadableSecret: An encrypted value does not open.
        SecretsError: A reference cannot be resolved.
    """

    def reveal(leaf: Leaf) -> Any:
        if leaf.sealed:
            return opened(leaf, place, secrets)
        return _resolved(leaf, place, secrets) if _is_reference(leaf.value) else leaf.value

    clear: dict[str, Any] = _changed(config, leaves(config, secrets), reveal)
    return clear


def refuse_open(config: Any, secrets: Secrets, marked: Collection[Path] = ()) -> None:
    """Raise InvalidInput if a config that is for no certain row contains a secret in the clear, or a mask."""
    for leaf in leaves(config, secrets, marked):
        if isinstance(leaf.value, str) and _HANDLE.fullmatch(leaf.value):
            reason = "a mask stands for the secret of one row"
        elif leaf.open and (leaf.value == MASK or not secrets.off):
            reason = "a secret is encrypted for one row"
        else:
            continue
        raise InvalidInput(f"{leaf.name}: {reason}: use connectors.register(), or assign the config and save() the row")


def seal(
    config: dict[str, Any],
    place: Place,
    secrets: Secrets,
    *,
    marked: Collection[Path] = (),
    stored: dict[str, Any] | None = None,
) -> Sealed:
    """Return a config to store: its secrets are encrypted, and its masks replaced by the secrets that they stand for.

    A secret that is given again with the same value stays as it is stored.

    Args:
        config: The config.
        place: The row that it is for.
        secrets: The keys and names.
        marked: The paths that the schema of the connector's type declares as secrets.
        stored: The config that the row has now.

    Raises:
        MissingKey: There is no key.
        UnreadableSecret: An encrypted value of another place was given, or a mask stands for one that does not open.
        InvalidInput: A mask does not stand for a secret of the row, or an encrypted value has another form.
    """
    now = {leaf.path: leaf for leaf in leaves(stored or {}, secrets, marked)}

    def write(leaf: Leaf) -> Any:
        before, kept = now.get(leaf.path), _behind(leaf, now)
        if kept is not None and kept.sealed:
            moved = kept.path != leaf.path
            return _sealed(leaf.path, Hidden(opened(kept, place, secrets)), place, secrets) if moved else kept.value
        leaf = kept or leaf
        if leaf.sealed:
            if before is None or before.value != leaf.value:
                opened(leaf, place, secrets)
            return leaf.value
        if not leaf.open or secrets.off:
            return leaf.value
        if before is not None and before.sealed:
            with suppress(SecretsError):
                if orjson.dumps(opened(before, place, secrets)) == orjson.dumps(leaf.value):
                    return before.value
        return _sealed(leaf.path, Hidden(leaf.value), place, secrets)

    return Sealed(_changed(config, leaves(config, secrets, marked), write))


def opened(leaf: Leaf, place: Place, secrets: Secrets) -> Any:
    """Return the value of an encrypted one.

    Raises:
        MissingKey: Its key is missing.
        UnreadableSecret: It does not open at this place.
    """
    found = _token(leaf.value)
    if found is None:
        raise UnreadableSecret(f"{leaf.name}: this is not an encrypted value of a known form")
    version, key_id, handle, encoded = found.groups()
    data = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    bound = _bound_to(version, key_id, handle, place, leaf.path)
    cipher, clear = _cipher(secrets, key_id), None
    with suppress(Exception):  # InvalidTag, or ValueError for data that is too short
        clear = Hidden(cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], bound))
    if clear is None:
        raise UnreadableSecret(
            f"{leaf.name} does not open: it was altered, or moved from another row, tenant or field, or the key"
            f" {key_id} is another one than it was encrypted with"
        )
    return orjson.loads(clear.value)


def resealed(leaf: Leaf, place: Place, secrets: Secrets) -> dict[str, str]:
    """Return a secret encrypted with the current key; an encrypted one keeps its handle."""
    found = _token(leaf.value)
    clear = Hidden(opened(leaf, place, secrets) if leaf.sealed else leaf.value)
    return _sealed(leaf.path, clear, place, secrets, handle=found[3] if found else None)


def marked_by(definitions: Sequence[dict[str, Any]], config: dict[str, Any]) -> frozenset[Path]:
    """Return the paths of the values of a config that JSON Schemas declare as secrets.

    They do with `writeOnly: true` or `format: password`. Every branch of `anyOf`, `oneOf`, `if` and the like counts.
    """
    if not definitions:
        return frozenset()
    from jsonschema import ValidationError
    from jsonschema.validators import extend
    from jsonschema_specifications import REGISTRY

    from myloware_store.platform.json_schemas import compiled

    def declared(wanted: object) -> Callable[..., Iterator[ValidationError]]:
        def found(_validator: Any, value: Any, _instance: Any, _schema: Any) -> Iterator[ValidationError]:
            if value is wanted or value == wanted:
                yield ValidationError("a secret")

        return found

    def branches(validator: Any, _value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        for branch in ("then", "else"):
            yield from validator.descend(instance, schema.get(branch, True))

    found: set[Path] = set()
    for definition in definitions:
        kind = type(compiled(definition, "schema"))
        every = kind.VALIDATORS["allOf"]
        rules = {"writeOnly": declared(True), "format": declared("password"), "anyOf": every, "oneOf": every}
        finder: Any = extend(kind, {**rules, "if": branches, "not": lambda *_: ()})  # type: ignore[no-untyped-call]
        # Without `$schema`: a validator that follows a `$ref` to the root would take the draft's own class.
        schema = {key: value for key, value in definition.items() if key != "$schema"}
        problems = finder(schema, registry=REGISTRY).iter_errors(config)
        found |= {tuple(each.absolute_path) for each in problems if each.validator in {"writeOnly", "format"}}
    return frozenset(found)


def _changed(config: Any, found: Iterator[Leaf], change: Callable[[Leaf], Any]) -> Any:
    """Return a config with its leaves, which come in its order, changed."""
    if _is_sealed(config) or not isinstance(config, dict | list):
        return change(next(found))
    if isinstance(config, dict):
        return {key: _changed(part, found, change) for key, part in config.items()}
    return [_changed(part, found, change) for part in config]


def _behind(leaf: Leaf, now: Mapping[Path, Leaf]) -> Leaf | None:
    """Return the secret of the row that a mask stands for, or None if the value is no mask."""
    handle = _HANDLE.fullmatch(leaf.value) if isinstance(leaf.value, str) else None
    if handle:
        found = (each for each in now.values() if (token := _token(each.value)) and token[3] == handle[1])
        if kept := next(found, None):
            return kept
        raise InvalidInput(
            f"{leaf.name}: the mask {leaf.value} stands for no secret that the row has now: read the row again, or give"
            " the secret itself"
        )
    if not leaf.secret or leaf.value != MASK:
        return None
    # An unencrypted secret has no handle. In a list, the mask may be of another element by now.
    before = now.get(leaf.path)
    if before is not None and before.open and before.value != MASK and not any(type(at) is int for at in leaf.path):
        return before
    raise InvalidInput(f"{leaf.name}: no secret is stored for the mask {MASK}: give the secret itself")


def _sealed(path: Path, clear: Hidden, place: Place, secrets: Secrets, handle: str | None = None) -> dict[str, str]:
    key_id = secrets.current_id
    if key_id is None:
        raise MissingKey(
            f"{Leaf(path, None, secret=True).name} is a secret, and there is no key to encrypt it: set"
            " MYLOWARE_SECRET_KEYS to what `myloware-store secrets generate-key` prints (`off` stores secrets"
            " unencrypted), or give a reference (secret://...)"
        )
    handle = handle or os.urandom(_HANDLE_BYTES).hex()
    nonce = os.urandom(_NONCE_BYTES)
    bound = _bound_to("v1", key_id, handle, place, path)
    data = nonce + _cipher(secrets, key_id).encrypt(nonce, orjson.dumps(clear.value), bound)
    return {_TAG: f"v1:{key_id}:{handle}:{urlsafe_b64encode(data).rstrip(b'=').decode()}"}


def _bound_to(version: str, key_id: str, handle: str, place: Place, path: Path) -> bytes:
    return orjson.dumps([version, key_id, handle, _TABLE, place.tenant_id, place.row_id, *path])


def _cipher(secrets: Secrets, key_id: str) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise SecretsError(
            "secrets are encrypted with the package cryptography: install myloware-store[secrets]"
        ) from None
    return AESGCM(secrets.key(key_id))


def _resolved(leaf: Leaf, place: Place, secrets: Secrets) -> Any:
    if secrets.resolve is None:
        raise SecretsError(f"{leaf.name} is a reference: Store.open(secrets=Secrets(resolve=...)) resolves it")
    try:
        return secrets.resolve(leaf.value, place.tenant_id)
    except Exception as error:  # noqa: BLE001  its message may quote anything
        failed = type(error).__name__
    raise SecretsError(f"{leaf.name}: the reference cannot be resolved: {failed}")


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(_REFERENCE)


def _is_sealed(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {_TAG}


def _token(value: Any) -> re.Match[str] | None:
    text = value.get(_TAG) if isinstance(value, dict) else None
    return _TOKEN.fullmatch(text) if isinstance(text, str) else None
