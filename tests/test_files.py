"""Files that are there whole or not at all."""

import equinox as eqx
import jax.numpy as jnp
import pytest

from vcjax._files import replacing
from vcjax.training import _state


def test_a_file_has_its_name_when_it_is_complete(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert (partial.parent, partial.suffix) == (tmp_path, ".csv")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("how", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("old", ["old", None])
def test_an_interrupted_write_leaves_what_was_there(tmp_path, old, how):
    path = tmp_path / "table.csv"
    if old is not None:
        path.write_text(old)

    def write():
        with replacing(path) as partial:
            partial.write_text("half of it")
            raise how

    with pytest.raises(how):
        write()
    assert [one.read_text() for one in tmp_path.iterdir()] == ([] if old is None else [old])


def test_an_interrupted_checkpoint_leaves_the_last_one(tmp_path, monkeypatch):
    path, state = tmp_path / "run.eqx", _state.start(jnp.ones(3), jnp.zeros(2))
    _state.save(path, state, {"settings": {}, "history": {}})
    before = path.read_bytes()

    def half(file, tree):
        file.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(eqx, "tree_serialise_leaves", half)
    with pytest.raises(KeyboardInterrupt):
        _state.save(path, state, {"settings": {}, "history": {}})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
