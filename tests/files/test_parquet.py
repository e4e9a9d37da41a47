"""Tables on disk: round trips, and that no changed bit changes what is read."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from stages.lib.files.errors import UserError
from stages.lib.files.parquet import ROWS_AT_ONCE, read_table, write_table

ROWS = st.lists(
    st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.integers(-(2**63), 2**63 - 1), st.floats(width=32))
)


@settings(deadline=None)
@given(ROWS)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, float]]) -> None:
    path = tmp_path_factory.mktemp("table") / "a.parquet"
    text, whole, real = ([row[column] for row in rows] for column in range(3))
    write_table(pd.DataFrame({"text": text, "whole": whole, "real": np.array(real, dtype=np.float32)}), path)
    read = read_table(path)
    assert read["text"].tolist() == text
    assert read["whole"].tolist() == whole
    np.testing.assert_array_equal(read["real"].to_numpy(), np.array(real, dtype=np.float32))


def test_a_long_table(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": np.arange(2 * ROWS_AT_ONCE + 5), "b": 0.5})
    write_table(frame, tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "a.parquet"), frame)


def test_every_bit_flip_is_refused_or_harmless(tmp_path: Path) -> None:
    frame = pd.DataFrame({"document": list("abcdef"), "tokens": range(6), "nll": np.linspace(0, 3, 6)})
    path = tmp_path / "a.parquet"
    write_table(frame, path)
    content, refused = path.read_bytes(), 0
    generator = np.random.default_rng(0)
    places = generator.permutation(len(content) * 8)[:3000]
    for place in places.tolist():
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            pd.testing.assert_frame_equal(read_table(path), frame)
        except UserError as error:
            assert "a.parquet: damaged (" in str(error)
            refused += 1
    assert refused > 500  # much of a small file is statistics and offsets that nothing is read from


@pytest.mark.parametrize("content", [b"", b"PAR1", b"x" * 1000])
def test_what_is_no_table(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        read_table(tmp_path / "a.parquet")


def test_a_table_without_a_hash(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="its content does not match its hash"):
        read_table(tmp_path / "a.parquet")


def test_a_lack_of_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise pa.ArrowMemoryError("malloc of size 99 failed")

    write_table(pd.DataFrame({"a": [1]}), tmp_path / "table")
    monkeypatch.setattr(parquet, "read_table", fail)
    with pytest.raises(MemoryError):
        read_table(tmp_path / "table")
