"""Master keys and their text form."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault import MasterKeyMissing
from vault.keyring import MasterKey, MasterKeys, words_of_file, words_of_variable
from vault.sealing import DataKey

OCTETS = st.binary(min_size=32, max_size=32)


@given(st.lists(OCTETS, min_size=1, max_size=4, unique=True))
@settings(max_examples=100)
def test_a_key_file_reads_back(octets: list[bytes]) -> None:
    """Current first, the retired in their order."""
    current, *retired = [MasterKey(one) for one in octets]
    again = MasterKeys.parse(words_of_file(MasterKeys(current, tuple(retired)).file_text()), "here")
    assert [key.id for key in (again.current, *again.retired)] == [
        key.id for key in (current, *retired)
    ]


def test_comments_blank_lines_and_padding_are_fine() -> None:
    """A person may have edited the file."""
    key = MasterKey.random()
    padded = base64.urlsafe_b64encode(base64.urlsafe_b64decode(key.text() + "=")).decode()
    text = f"# ours\n\n  {padded}  # since spring\r\n"
    assert MasterKeys.parse(words_of_file(text), "here").current.id == key.id


def test_a_variable_separates_by_commas_or_white_space() -> None:
    """Several keys, current first."""
    assert words_of_variable(" a,b  c\n, d ") == ["a", "b", "c", "d"]


@pytest.mark.parametrize("word", ["short", "A" * 42, "A" * 44, "+" * 43, "Ä" * 43, "A" * 43 + "=="])
def test_a_malformed_key_is_refused_without_showing_it(word: str) -> None:
    """The source is named, never the text."""
    with pytest.raises(
        MasterKeyMissing, match=r"^the file is malformed: a master key is 43"
    ) as error:
        MasterKeys.parse([MasterKey.random().text(), word], "the file")
    assert word not in str(error.value)
    assert error.value.__suppress_context__


def test_a_source_without_a_key_says_so() -> None:
    """An emptied file is a loss, not a fresh start."""
    with pytest.raises(MasterKeyMissing, match="the file holds no master key"):
        MasterKeys.parse([], "the file")


def test_keys_are_found_by_id() -> None:
    """Among current and retired."""
    current, retired = MasterKey.random(), MasterKey.random()
    keys = MasterKeys(current, (retired,))
    assert keys.by_id(current.id) is current
    assert keys.by_id(retired.id) is retired
    assert keys.by_id(MasterKey.random().id) is None


def test_a_master_key_wraps_and_does_not_show_itself() -> None:
    """Its id is all that is printed."""
    master, key = MasterKey.random(), DataKey.random("keys")
    assert master.unwrap(key.id, "keys", master.wrap(key)).id == key.id
    assert repr(master) == f"MasterKey({master.id})"
    assert master.text() not in repr(MasterKeys(master))
