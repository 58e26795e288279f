"""Gene sets and embeddings from files: what is read, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from vcjax.baselines._embedding_ridge import EmbeddingRidge
from vcjax.baselines._features import feature_kernel
from vcjax.baselines._interface import PertData
from vcjax.baselines._knowledge import gene_set_features, read_embeddings, read_gmt
from vcjax.io import Refusal


SETS = "complex\tsource\tA\tB\tC\nlarge\t\tA\tB\tC\tD\tE\tA\n\npair\tx\tD\tE\nalone\tx\tZ\tA\n"


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def test_gene_sets_of_a_file(tmp_path):
    sets = read_gmt(write(tmp_path / "sets.gmt", SETS))
    assert sets["large"] == ("A", "B", "C", "D", "E")
    assert list(sets) == ["complex", "large", "pair", "alone"]
    assert read_gmt(write(tmp_path / "windows.gmt", "\ufeff" + SETS.replace("\n", "\r\n"))) == sets


def test_membership_as_vectors():
    sets = {"complex": ("A", "B", "C"), "large": ("A", "B", "C", "D", "E"), "pair": ("D", "E"), "alone": ("Z", "A")}
    made = gene_set_features(sets, ["A", "B", "D", "E", "missing", "A"])
    assert made.names == ("A", "B", "D", "E")
    # `complex` and `large` have A and B, `large` and `pair` D and E; `alone` has one of the names and says nothing.
    rows = np.array([[1 / np.sqrt(3), 1 / np.sqrt(5), 0]] * 2 + [[0, 1 / np.sqrt(5), 1 / np.sqrt(2)]] * 2)
    np.testing.assert_allclose(made.values, rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-14)
    kernel = np.asarray(feature_kernel(made).values)
    np.testing.assert_allclose(kernel[0, 1], 1, atol=1e-14)
    np.testing.assert_allclose(kernel[0, 2], 0.2 / np.sqrt((1 / 3 + 0.2) * (0.5 + 0.2)), atol=1e-14)
    assert gene_set_features(sets, ["A", "B", "D", "E"], largest=4).values.shape == (4, 2)
    with pytest.raises(ValueError, match="None of 2 names"):
        gene_set_features(sets, ["x", "y"])


def test_gene_sets_predict_a_perturbation_of_the_same_complex():
    features = gene_set_features({"one": ("A", "B"), "two": ("C", "D")}, tuple("ABCD"))
    effects = jnp.asarray([[2.0, 0, 0], [0, 0, -2.0]])
    data = PertData(effects, jnp.zeros(3), perts=("A", "C"))
    made = EmbeddingRidge(features, log_ridge=-20.0).fit(data).predict(["B", "D", "x"])
    np.testing.assert_allclose(made.effect, [effects[0], effects[1], effects.mean(axis=0)], atol=1e-6)
    assert made.covered.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.tsv", "A\t1\t2\nB\t3.5\t-4e0\n"),
        ("header.tsv", "gene\tx\ty\nA\t1\t2\nB\t3.5\t-4\n"),
        ("short_header.tsv", "x\ty\nA\t1\t2\nB\t3.5\t-4\n"),
        ("counted.csv", ",0,1\nA,1,2\n\nB,3.5,-4\n"),
        ("quoted.csv", 'name,a,b\n"A",1,2\n"B",3.5,"-4"\n'),
    ],
)
def test_embeddings_of_a_table(tmp_path, name, text):
    made = read_embeddings(write(tmp_path / name, text))
    np.testing.assert_array_equal(made.values, [[1, 2], [3.5, -4]])
    assert (made.names, made.source) == (("A", "B"), name)


def test_embeddings_by_column_and_of_arrays(tmp_path):
    made = read_embeddings(write(tmp_path / "columns.tsv", "A\tB\n1\t3.5\n2\t-4\n"), by_column=True)
    np.testing.assert_array_equal(made.values, [[1, 2], [3.5, -4]])
    for names in (np.array(["A", "B"]), np.array([b"A", b"B"])):
        np.savez(tmp_path / "arrays.npz", names=names, values=np.array([[1, 2], [3, -4]], np.float32))
        made = read_embeddings(tmp_path / "arrays.npz")
        np.testing.assert_array_equal(made.values, [[1, 2], [3, -4]])
        assert made.names == ("A", "B")


BAD_SETS = {
    "no genes": ("a\tb\n", "line 1", "has no genes"),
    "no description": ("x\ty\tA\na b c\n", "line 2", "has no genes"),
    "no name": ("x\ty\tA\n\ty\tB\n", "line 2", "has no name"),
    "twice": ("x\ty\tA\n\nx\ty\tB\n", "line 3", "listed twice"),
    "empty": ("\n", "line 1", "no gene sets"),
}


@pytest.mark.parametrize("name", BAD_SETS)
def test_gene_sets_that_are_refused(tmp_path, name):
    text, where, what = BAD_SETS[name]
    with pytest.raises(Refusal) as caught:
        read_gmt(write(tmp_path / "sets.gmt", text))
    assert what in caught.value.what
    assert where in caught.value.where
    assert "sets.gmt" in caught.value.where
    assert caught.value.fix


BAD_TABLES = {
    "ragged": ("e.tsv", "A\t1\t2\nB\t3\n", "line 2", "1 numbers, 2 are expected"),
    "no number": ("e.tsv", "A\t1\t2\nB\t3\tx\n", "line 2", "is none"),
    "not finite": ("e.csv", "A,1,2\nB,3,nan\n", "line 2", "not finite"),
    "twice": ("e.csv", "A,1\nA,2\n", "vector 2", "'A' occurs twice"),
    "no name": ("e.csv", "A,1\n,2\n", "vector 2", "is empty"),
    "empty": ("e.csv", "name,x\n", "line 1", "no vectors"),
    "spaces": ("e.tsv", "A 1 2\nB 3 4\n", "line 1", "no vectors"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_tables_that_are_refused(tmp_path, name):
    file, text, where, what = BAD_TABLES[name]
    with pytest.raises(Refusal) as caught:
        read_embeddings(write(tmp_path / file, text))
    assert what in caught.value.what
    assert where in caught.value.where
    assert caught.value.fix


def test_files_that_are_refused(tmp_path):
    (tmp_path / "embedding.tsv").write_text("A\t1\n")
    with pytest.raises(Refusal, match=r"Did you mean 'embedding\.tsv'"):
        read_embeddings(tmp_path / "embeddings.tsv")
    with pytest.raises(Refusal, match="no file"):
        read_gmt(tmp_path / "sets.gmt")
    (tmp_path / "binary.gmt").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(Refusal, match="not text"):
        read_gmt(tmp_path / "binary.gmt")
    (tmp_path / "broken.npz").write_bytes(b"nothing")
    with pytest.raises(Refusal, match="cannot be read"):
        read_embeddings(tmp_path / "broken.npz")
    cases = {
        "names.npz": {"names": np.array(["A"])},
        "kinds.npz": {"names": np.array([1, 2]), "values": np.ones((2, 1))},
        "numbers.npz": {"names": np.array(["A"]), "values": np.ones((2, 1))},
        "infinite.npz": {"names": np.array(["A"]), "values": np.array([[np.inf]])},
    }
    for name, arrays in cases.items():
        np.savez(tmp_path / name, **arrays)
        with pytest.raises(Refusal, match=name):
            read_embeddings(tmp_path / name)
