"""The shelf: the same bytes for the same question, nothing for another, and nothing that was changed since."""

from __future__ import annotations

import pytest

from steer_heal_love.ground import embedded, shelf
from tiny_model import build_model


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STEER_HEAL_LOVE_CACHE", "on")
    monkeypatch.setattr(embedded, "cache_dir", lambda: tmp_path / "cache")
    return tmp_path


def test_what_is_kept_comes_back_byte_by_byte(cache):
    made, there = cache / "made.json", cache / "run" / "there.json"
    made.write_bytes("a ü \r\n\0".encode())
    assert not shelf.fetch("k", there) and not there.exists()
    shelf.keep("k", made)
    assert shelf.fetch("k", there) and there.read_bytes() == made.read_bytes()
    assert not shelf.fetch("another", cache / "none")


def test_a_kept_file_that_was_changed_is_not_read(cache):
    made = cache / "made.json"
    made.write_text("true")
    shelf.keep("k", made)
    (kept,) = shelf.folder().iterdir()
    kept.write_text("false")
    assert not shelf.fetch("k", cache / "there") and not (cache / "there").exists()


def test_switched_off_it_reads_and_keeps_nothing(cache, monkeypatch):
    made = cache / "made.json"
    made.write_text("x")
    shelf.keep("k", made)
    monkeypatch.setenv("STEER_HEAL_LOVE_CACHE", "off")
    shelf.keep("more", made)
    assert not shelf.fetch("k", cache / "there")
    assert len(list(shelf.folder().iterdir())) == 1


def test_the_key_changes_with_weights_template_settings_and_code(tiny, monkeypatch):
    key = lambda model=tiny.model, what="anchor", **decides: shelf.key(model, tiny.tok, what, **decides)
    other = build_model(len(tiny.tok), tiny.tok.eos_token_id, seed=1)
    found = [key(n=1), key(n=2), key(what="neutral", n=1), key(other, n=1)]
    with monkeypatch.context() as patch:
        patch.setattr(shelf, "code_hash", lambda: "changed")
        found.append(key(n=1))
    with monkeypatch.context() as patch:
        patch.setattr(tiny.tok, "chat_template", tiny.tok.chat_template + " ")
        found.append(key(n=1))
    assert len(set(found)) == len(found)
    assert key(n=1) == found[0]


def test_what_was_not_read_for_longest_goes_first(cache, monkeypatch):
    monkeypatch.setattr(shelf, "MOST", 2)
    for n in range(3):
        (cache / "made").write_text(str(n))
        shelf.keep(f"k{n}", cache / "made")
        if n == 1:
            assert shelf.fetch("k0", cache / "read")
    assert {f.name[:2] for f in shelf.folder().iterdir()} == {"k0", "k2"}


def test_a_folder_that_cannot_be_made_costs_nothing(cache, monkeypatch):
    (cache / "cache").write_text("a file in its place")
    (cache / "made").write_text("x")
    shelf.keep("k", cache / "made")
    assert not shelf.fetch("k", cache / "there")


def test_a_cache_that_is_anothers_is_read_all_the_same(cache, monkeypatch):
    (cache / "made").write_text("x")
    shelf.keep("k", cache / "made")

    def refused(*_args, **_kwargs):
        raise PermissionError("not yours")

    monkeypatch.setattr(shelf.os, "utime", refused)
    assert shelf.fetch("k", cache / "there") and (cache / "there").read_text() == "x"


def test_the_key_changes_with_what_a_model_is_beside_its_weights(tiny, monkeypatch):
    key = lambda: shelf.key(tiny.model, tiny.tok, "anchor", n=1)
    before = key()
    with monkeypatch.context() as patch:
        patch.setattr(tiny.model.config, "rope_theta", 7.0, raising=False)
        assert key() != before
    with monkeypatch.context() as patch:
        patch.setattr(tiny.model.generation_config, "eos_token_id", 5)
        assert key() != before
    assert key() == before
