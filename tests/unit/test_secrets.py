"""Any config comes back as it was, shows nothing on the way, and keeps its secrets through masks and rotations."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from myloware_store import Secrets
from myloware_store.platform.secrets import Place, leaves, masked, resealed, revealed, seal
from tests.conftest import ROUNDS

ONE, TWO = (f"{name}:{digit * 43}=" for name, digit in (("one", "A"), ("two", "E")))
PLACE = Place("acme", "01a227ef-df03-71e6-9158-aee85bb8d9d7")
keys = st.sampled_from(["host", "password", "apiKey", "", "a.b"]) | st.text(max_size=4)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars | st.text().filter(lambda text: not text.startswith(("***", "secret://"))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
configs = st.dictionaries(keys, values, max_size=4)


@given(configs)
@settings(max_examples=50 * ROUNDS, deadline=None)
def test_a_config_comes_back_as_it_was(config: dict[str, Any]) -> None:
    """Sealed, masked, written back, rotated, and revealed."""
    secrets = Secrets(keys=ONE)
    sealed = seal(config, PLACE, secrets)
    assert config == revealed(sealed, PLACE, secrets)
    shown = [leaf for leaf in leaves(sealed, secrets) if not leaf.sealed]
    assert [] == [leaf for leaf in shown if leaf.open]

    assert sealed == seal(masked(sealed, secrets), PLACE, secrets, stored=sealed)
    assert sealed == seal(config, PLACE, secrets, stored=sealed)

    both = Secrets(keys=f"{TWO},{ONE}")
    for leaf in leaves(sealed, both):
        if leaf.sealed:
            inner: Any = sealed
            for part in leaf.path[:-1]:
                inner = inner[part]
            inner[leaf.path[-1]] = resealed(leaf, PLACE, both)
    assert config == revealed(sealed, PLACE, Secrets(keys=TWO))
    assert masked(sealed, secrets) == masked(sealed, both)
