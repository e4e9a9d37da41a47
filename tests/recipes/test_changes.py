"""Changes of weights: how near they come back, what stays zero, and that damage is refused."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from stages.lib.files.errors import UserError
from stages.lib.files.hashing import sha256
from stages.lib.recipes.changed import CHANGES, apply_changes, write_changes
from stages.lib.recipes.kind import Materialized
from stages.lib.weights.checkpoint import Checkpoint

SHARED = {"matrix": torch.ones(2, 3), "bias": torch.ones(3)}
DTYPES = [torch.float32, torch.bfloat16]


def made(weights: dict[str, torch.Tensor], masks: dict[str, torch.Tensor] | None = None) -> Materialized:
    """A model of which only weights and masks are there."""
    return Materialized(cast(Checkpoint, None), {}, dict(weights), masks or {})


def matrices(seed: int, dtype: torch.dtype) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights with zeros among them, and what they changed to."""
    generator = torch.Generator().manual_seed(seed)
    before, after = {}, {}
    for name, shape in (("a", (5, 9)), ("b", (4, 3)), ("norm", (7,))):
        old = torch.randn(shape, generator=generator).to(dtype)
        old[torch.rand(shape, generator=generator) < 0.4] = 0
        moved = old.float() + torch.randn(shape, generator=generator) * torch.rand((), generator=generator) * 0.1
        before[name] = old
        after[name] = moved if old.ndim == 1 else torch.where(old == 0, 0, moved)
    after["a"][0] = before["a"][0].float()  # a row that stays as it is
    return before, after


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.sampled_from(DTYPES))
def test_changes_come_back_to_half_a_step(seed: int, dtype: torch.dtype) -> None:
    before, after = matrices(seed, dtype)
    with TemporaryDirectory() as name:
        digest = write_changes(made(before), after, Path(name))
        model = made(before)
        apply_changes(model, Path(name), digest)
    found = model.weights
    for key, old in before.items():
        assert found[key].dtype == old.dtype or old.ndim == 1
        if old.ndim == 1:
            assert torch.equal(found[key], after[key])
            continue
        assert not found[key][old == 0].any()
        step = (after[key] - old.float()).abs().amax(dim=1, keepdim=True) / 127
        rounding = found[key].float().abs() * torch.finfo(dtype).eps
        assert ((found[key].float() - after[key]).abs() <= step * 0.5001 + rounding).all()


def test_what_did_not_change_is_not_stored(tmp_path: Path) -> None:
    before, after = matrices(0, torch.float32)
    after["b"] = before["b"].clone()
    write_changes(made(before), after, tmp_path)
    assert set(load_file(tmp_path / CHANGES)) == {"a", "a.scale", "norm"}
    kept = int(torch.count_nonzero(before["a"]))
    assert load_file(tmp_path / CHANGES)["a"].shape == (kept,)  # one byte for each weight that is not zero


def test_a_shared_tensor_is_stored_once_and_stays_shared(tmp_path: Path) -> None:
    """As merged blocks have it: one tensor under several names, which training changes as one."""
    before = {f"{kind} {block}": tensor for kind, tensor in SHARED.items() for block in (0, 1, 2)}
    after = {name: tensor.clone() * 1.5 for name, tensor in before.items()}
    digest = write_changes(made(before), after, tmp_path)
    assert set(load_file(tmp_path / CHANGES)) == {"matrix 0", "matrix 0.scale", "bias 0"}
    model = made(before)
    apply_changes(model, tmp_path, digest)
    for kind, tensor in SHARED.items():
        torch.testing.assert_close(model.weights[f"{kind} 0"], tensor * 1.5)
        assert all(model.weights[f"{kind} {block}"] is model.weights[f"{kind} 0"] for block in (1, 2))
    assert torch.equal(SHARED["matrix"], torch.ones(2, 3))


def test_a_shared_tensor_with_two_values_is_refused(tmp_path: Path) -> None:
    before = dict.fromkeys("ab", SHARED["matrix"])
    with pytest.raises(ValueError, match="b and a are one tensor, and changed differently"):
        write_changes(made(before), {"a": before["a"] * 1.5, "b": before["b"] * 2}, tmp_path)


def test_a_zero_outside_the_mask_may_change(tmp_path: Path) -> None:
    """SparseGPT updates weights that are zero in the base, unless it prunes them."""
    before, mask = {"a": torch.tensor([[0.0, 0.0, 1.0]])}, {"a": torch.tensor([[True, False, False]])}
    digest = write_changes(made(before, mask), {"a": torch.tensor([[0.0, 0.5, 2.0]])}, tmp_path)
    model = made(before, mask)
    apply_changes(model, tmp_path, digest)
    torch.testing.assert_close(model.weights["a"], torch.tensor([[0.0, 0.5, 2.0]]), rtol=0, atol=1 / 254)


@pytest.mark.parametrize("fault", ["DefaultCPUAllocator: can't allocate memory: you tried to", "CUDA out of memory."])
def test_a_lack_of_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    def fail(path: Path) -> dict[str, torch.Tensor]:
        raise RuntimeError(fault)

    before, after = matrices(1, torch.float32)
    digest = write_changes(made(before), after, tmp_path)
    monkeypatch.setattr("safetensors.torch.load_file", fail)
    with pytest.raises(RuntimeError, match=fault):
        apply_changes(made(before), tmp_path, digest)


def test_damage_is_refused(tmp_path: Path) -> None:
    before, after = matrices(1, torch.float32)
    digest = write_changes(made(before), after, tmp_path)
    content = (tmp_path / CHANGES).read_bytes()
    generator = np.random.default_rng(0)
    for place, bit in generator.integers(0, (len(content), 8), (40, 2)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        (tmp_path / CHANGES).write_bytes(flipped)
        with pytest.raises(UserError, match=r"changes\.safetensors: damaged; `python -m stages\.verify`"):
            apply_changes(made(before), tmp_path, digest)


@pytest.mark.parametrize("change", ["name", "length", "scale"])
def test_changes_of_other_weights_are_refused(tmp_path: Path, change: str) -> None:
    before, after = matrices(1, torch.float32)
    write_changes(made(before), after, tmp_path)
    stored = load_file(tmp_path / CHANGES)
    if change == "name":
        stored["c"] = stored.pop("a")
    elif change == "length":
        stored["a"] = stored["a"][:-1].clone()
    else:
        del stored["a.scale"]
    save_file(stored, tmp_path / CHANGES)
    with pytest.raises(UserError, match="damaged"):
        apply_changes(made(before), tmp_path, sha256(tmp_path / CHANGES))
