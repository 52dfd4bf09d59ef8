"""What is remembered, and when it is forgotten."""

from __future__ import annotations

from proxy.memo import Memo, bounded_put


def test_another_basis_forgets_everything() -> None:
    """A value depends on its key and on the basis."""
    basis = [1]
    memo: Memo[str, str] = Memo(4, lambda: basis[0])
    memo.put("a", "A", memo.basis())
    assert memo.get("a") == "A"
    basis[0] = 2
    assert memo.get("a") is None
    memo.put("b", "B", memo.basis())
    assert (memo.get("a"), memo.get("b")) == (None, "B")


def test_what_was_worked_out_from_an_older_basis_is_not_kept() -> None:
    """A change while somebody works must not be overwritten by what they found before it."""
    basis = [1]
    memo: Memo[str, str] = Memo(4, lambda: basis[0])
    before = memo.basis()
    basis[0] = 2
    memo.put("a", "A", before)
    assert memo.get("a") is None


def test_the_oldest_leaves_first() -> None:
    """Bounded."""
    kept: dict[int, int] = {}
    for number in range(5):
        bounded_put(kept, number, number, 3)
    assert list(kept) == [2, 3, 4]
