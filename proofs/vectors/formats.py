"""The three formats of the vectors: .npz, .safetensors and JSON, each written byte for byte by this module.

All hold the same arrays under the same names, little-endian and in C order: float64 (complex numbers as pairs of a real
and an imaginary part, along a further last axis). Names are sorted. JSON has one array a line, each number as the
shortest decimal that reads back as the same float64, and −∞ as the string "-inf".
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np


def npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return a .npz file, not compressed: members in order, dated 1980-01-01, the earliest date of the format."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, x in _sorted(arrays).items():
            member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            member.create_system, member.external_attr = 3, 0o644 << 16  # as on Unix, wherever it is written
            archive.writestr(member, _npy(x))
    return file.getvalue()


def _npy(x: np.ndarray) -> bytes:
    """Return a .npy file of version 1.0, whose header NumPy's versions pad to different lengths."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {x.shape!r}, }}"
    padding = -(10 + len(header) + 1) % 64
    header = header + " " * padding + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode("ascii") + x.tobytes()


def safetensors(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Return a .safetensors file: the length of the header, the header in JSON, the data."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    data, start = [], 0
    for name, x in _sorted(arrays).items():
        data.append(x.tobytes())
        header[name] = {"dtype": "F64", "shape": x.shape, "data_offsets": (start, start + x.nbytes)}
        start += x.nbytes
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(data)


def json_lines(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return a JSON object with an array a line."""
    lines = [f"{json.dumps(name)}: {json.dumps(_plain(x.tolist()))}" for name, x in _sorted(arrays).items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode("ascii")


def _sorted(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays by sorted names, as little-endian float64 in C order."""
    return {name: _real(arrays[name]) for name in sorted(arrays)}


def _real(x: np.ndarray) -> np.ndarray:
    parts = np.stack([x.real, x.imag], axis=-1) if x.dtype.kind == "c" else x
    return np.array(parts, dtype="<f8", order="C")


def _plain(x: Any) -> Any:
    """Return nested lists in which −∞, which JSON does not have, is the string "-inf"."""
    if isinstance(x, list):
        return [_plain(e) for e in x]
    return "-inf" if x == -np.inf else x
