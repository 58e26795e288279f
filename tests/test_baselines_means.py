"""Means, nulls and what a CRISPR perturbation does to its own target, against loops over plain numpy arrays."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import directional, finite_difference
from jaxtyping import TypeCheckError

from vcjax import Profiles
from vcjax.baselines import (
    CellMean,
    ContextMean,
    CrisprMean,
    CrossContextMean,
    GenePermuted,
    GenericResponse,
    mean_response,
    MeanResponse,
    MeanWithControl,
    members,
    MetadataNeighbour,
    NoChange,
    OrderMean,
    PermutedLabels,
    PertData,
    SparseMean,
    WrongTarget,
)
from vcjax.metrics import CATALOGUE


pytestmark = pytest.mark.slow
GENES = tuple(f"G{i}" for i in range(20))
PERTS = ("G0", "G1", "G2", "G1+G2", "guide")
TARGETS = np.array([0, 1, 2, -1, 7])
CELLS = np.array([10, 20, 5, 40, 25])
UNSEEN = ("G9", "nothing known")


def screen(
    seed=0,
    perts=PERTS,
    genes=GENES,
    targets: np.ndarray | None = TARGETS,
    cells: np.ndarray | None = CELLS,
    context="",
):
    """Profiles and control of a small screen as numpy, and the data of them."""
    rng = np.random.default_rng(seed)
    control = rng.uniform(0.2, 3, len(genes))
    profiles = np.maximum(control + rng.normal(0, 0.4, (len(perts), len(genes))), 0.05)
    data = PertData(
        jnp.asarray(profiles - control),
        jnp.asarray(control),
        cells=None if cells is None else jnp.asarray(cells, float),
        targets=None if targets is None else jnp.asarray(targets),
        perts=perts,
        genes=genes,
        context=context,
    )
    return profiles, control, data


@pytest.fixture(scope="module")
def small():
    return screen()


def effect(baseline, data, perts=UNSEEN, **options):
    return np.asarray(baseline.fit(data, **options).predict(perts).effect)


def test_no_change_is_the_control(small):
    _, control, data = small
    found = NoChange().fit(data).predict(UNSEEN)
    np.testing.assert_array_equal(found.profile, np.tile(control, (2, 1)))
    assert found.fairness == "inductive"


def test_the_mean_counts_perturbations_alike(small):
    profiles, control, data = small
    np.testing.assert_allclose(effect(MeanResponse(), data)[0], profiles.mean(axis=0) - control, atol=1e-12)
    np.testing.assert_allclose(effect(MeanResponse(scale=0.5), data), 0.5 * effect(MeanResponse(), data), atol=1e-12)


def test_the_mean_of_systema_and_perturbench_counts_cells_alike(small):
    profiles, control, data = small
    expected = np.repeat(profiles, CELLS, axis=0).mean(axis=0) - control
    np.testing.assert_allclose(effect(CellMean(), data), np.tile(expected, (2, 1)), atol=1e-12)
    with pytest.raises(ValueError, match="cells"):
        CellMean().fit(dataclasses.replace(data, cells=None))


def test_the_mean_of_cell_eval_counts_the_control_as_a_perturbation(small):
    profiles, control, data = small
    expected = np.vstack([profiles, control]).mean(axis=0) - control
    np.testing.assert_allclose(effect(MeanWithControl(), data)[0], expected, atol=1e-12)


@pytest.mark.parametrize("space", ["log", "counts"])
def test_the_generic_response_of_cell_eval2_leaves_targets_out(small, space):
    profiles, control, data = small
    values = profiles if space == "log" else np.expm1(profiles)
    expected = np.empty(len(GENES))
    for g in range(len(GENES)):
        expected[g] = np.mean([values[p, g] for p in range(len(PERTS)) if TARGETS[p] != g])
    expected = (expected if space == "log" else np.log1p(expected)) - control
    np.testing.assert_allclose(effect(GenericResponse(space=space), data)[1], expected, atol=1e-12)
    with pytest.raises(ValueError, match="targets"):
        GenericResponse().fit(dataclasses.replace(data, targets=None))


def test_means_of_an_order(small):
    profiles, control, data = small
    found = OrderMean().fit(data).predict(("G8", "G8+G9", "G7+G8+G9"))
    singles = [0, 1, 2, 4]
    expected = np.repeat(profiles[singles], CELLS[singles], axis=0).mean(axis=0) - control
    np.testing.assert_allclose(found.effect[0], expected, atol=1e-12)
    np.testing.assert_allclose(found.effect[1], profiles[3] - control, atol=1e-12)
    np.testing.assert_allclose(found.effect[2], mean_response(data), atol=1e-12)
    np.testing.assert_array_equal(found.covered, [True, True, False])


def test_the_mean_cell_of_a_context_is_over_its_screens(small):
    profiles, control, data = small
    data = dataclasses.replace(data, context="K562")
    again, _, second = screen(1, perts=("G0", "G5"), targets=None, cells=np.array([3, 4]), context="K562")
    _, _, other = screen(2, context="RPE1")
    rows = np.concatenate([np.repeat(profiles, CELLS, axis=0), np.repeat(again, [3, 4], axis=0)])
    found = effect(ContextMean(), data, external=[second, other])
    np.testing.assert_allclose(found[0], rows.mean(axis=0) - control, atol=1e-12)
    np.testing.assert_allclose(effect(ContextMean(), data), effect(CellMean(), data), atol=1e-12)


@pytest.mark.parametrize("weighting", ["context", "cell"])
def test_the_perturbation_means_of_state_and_txpert(small, weighting):
    _, _, data = small
    x1, c1, one = screen(1, perts=("G9", "G0"), targets=None, cells=np.array([30, 7]))
    x2, c2, two = screen(2, perts=("G4", "G9"), targets=None, cells=np.array([5, 90]))
    found = CrossContextMean(weighting=weighting).fit(data, external=[one, two]).predict(("G9", "G4", "missing"))
    weights = np.array([1, 1] if weighting == "context" else [30, 90])
    expected = np.average([x1[0] - c1, x2[1] - c2], axis=0, weights=weights)
    np.testing.assert_allclose(found.effect[0], expected, atol=1e-12)
    np.testing.assert_allclose(found.effect[1], x2[0] - c2, atol=1e-12)
    np.testing.assert_allclose(found.effect[2], mean_response(data), atol=1e-12)
    np.testing.assert_array_equal(found.covered, [True, True, False])
    assert found.fairness == "external"
    with pytest.raises(ValueError, match="external"):
        CrossContextMean().fit(data)


def test_genes_of_other_screens_are_matched_by_name(small):
    _, _, data = small
    genes = ("other", *reversed(GENES[3:]))
    x, c, elsewhere = screen(3, perts=("G9",), genes=genes, targets=None, cells=None)
    found = np.asarray(CrossContextMean().fit(data, external=[elsewhere]).predict(("G9",)).effect[0])
    for g, gene in enumerate(GENES):
        expected = x[0, genes.index(gene)] - c[genes.index(gene)] if gene in genes else mean_response(data)[g]
        assert abs(found[g] - expected) < 1e-12
    with pytest.raises(ValueError, match="by name"):
        CrossContextMean().fit(data, external=[dataclasses.replace(elsewhere, genes=())])


@pytest.mark.parametrize("space", ["log", "counts"])
def test_interference_leaves_what_the_mean_knock_down_leaves(small, space):
    profiles, control, data = small
    forth, back = (np.expm1, np.log1p) if space == "counts" else (np.asarray, np.asarray)
    kept = [forth(profiles[p, t]) / forth(control[t]) for p, t in enumerate(TARGETS) if t >= 0]
    found = CrisprMean(space=space).fit(data).predict(("G9", "G3+G4", "guide", "unknown"))
    expected = np.tile(profiles.mean(axis=0) - control, (4, 1))
    for row, genes in enumerate(([9], [3, 4], [7], [])):
        for g in genes:
            expected[row, g] = back(np.mean(kept) * forth(control[g])) - control[g]
    np.testing.assert_allclose(found.effect, expected, atol=1e-12)
    np.testing.assert_array_equal(found.covered, [True, True, True, False])


def test_knock_outs_and_activations(small):
    _, control, data = small
    out = CrisprMean(mode="knock_out").fit(data).predict(("G9",))
    assert abs(float(out.profile[0, 9])) < 1e-12
    up = CrisprMean(mode="activation", space="counts").fit(data).predict(("label",))
    assert not bool(up.covered[0])
    mapped = CrisprMean(mode="activation", space="counts", target_map=(("label", "G9"),)).fit(data).predict(("label",))
    np.testing.assert_allclose(mapped.profile[0, 9], np.log1p(2 * np.expm1(control[9])), rtol=1e-12)
    with pytest.raises((ValueError, TypeCheckError)):
        CrisprMean(mode="knockout").fit(data)  # pyright: ignore[reportArgumentType]
    unseen = dataclasses.replace(data, targets=jnp.full(len(PERTS), -1))
    found = CrisprMean().fit(unseen).predict(("G9",))
    assert not bool(found.covered[0])
    np.testing.assert_allclose(found.effect[0], mean_response(data), atol=1e-12)


FACTS = np.array([[10.0, 900], [20, 1000], [5, 800], [40, 1200], [25, 1100], [21, 1001], [39, 1190]])
BASELINES = {
    "control": NoChange(),
    "mean": MeanResponse(),
    "cell_mean": CellMean(scale=0.8),
    "mean_with_control": MeanWithControl(),
    "generic": GenericResponse(),
    "generic_counts": GenericResponse(space="counts"),
    "order_mean": OrderMean(),
    "context_mean": ContextMean(),
    "cross_context": CrossContextMean(weighting="cell"),
    "crispr": CrisprMean(),
    "crispr_counts": CrisprMean(space="counts"),
    "crispr_activation": CrisprMean(mode="activation"),
    "wrong_target": WrongTarget(),
    "metadata": MetadataNeighbour(facts=FACTS, perts=(*PERTS, *UNSEEN)),
    "permuted": PermutedLabels(CellMean()),
}


@pytest.mark.parametrize("name", [name for name in BASELINES if name != "permuted"])
def test_leave_one_out_is_a_refit_without_the_perturbation(small, name):
    _, _, data = small
    _, _, other = screen(5, perts=("G0", "G2", "G9"), targets=None, cells=np.array([3, 8, 2]))
    key = jax.random.key(0)
    found = BASELINES[name].fit(data, external=[other], key=key).leave_one_out()
    assert found is not None
    for i, pert in enumerate(PERTS):
        rest = data.take([p for p in PERTS if p != pert])
        again = BASELINES[name].fit(rest, external=[other], key=key).predict((pert,))
        if "crispr" not in name or pert != "guide":  # the refit does not know the gene that this label targets
            assert bool(found.covered[i]) == bool(again.covered[0])
        known = [g for g in range(len(GENES)) if pert != "guide" or g != 7 or "crispr" not in name]
        np.testing.assert_allclose(found.effect[i, np.array(known)], again.effect[0, np.array(known)], atol=1e-10)
    assert found.fairness == BASELINES[name].fairness


@pytest.mark.parametrize("name", list(BASELINES))
def test_what_is_not_covered_gets_the_mean_response_with_its_sign(small, name):
    _, control, data = small
    _, _, other = screen(5, perts=("G0", "G9"), targets=None, cells=np.array([1, 2]))
    found = BASELINES[name].fit(data, external=[other], key=jax.random.key(1)).predict(("G9", "never measured"))
    assert found.perts == ("G9", "never measured")
    np.testing.assert_allclose(found.profile, control + np.asarray(found.effect), atol=1e-12)
    for row in np.flatnonzero(~np.asarray(found.covered)):
        np.testing.assert_allclose(found.effect[row], mean_response(data), atol=1e-12)
    assert name not in ("cross_context", "crispr") or not bool(found.covered[1])


@pytest.mark.parametrize("baseline", [NoChange(), MeanResponse(), CellMean(), GenericResponse()])
@pytest.mark.parametrize("metric", ["pds_l1", "pds_l2", "pds_cosine"])
def test_one_answer_for_all_has_a_discrimination_of_one_half(small, baseline, metric):
    _, _, data = small
    x, control, test = screen(9, perts=tuple(f"T{i}" for i in range(7)), targets=None, cells=None)
    pred = baseline.fit(data).predict(test.perts)
    real = Profiles(jnp.asarray(x), jnp.asarray(control), targets=jnp.arange(7))
    values = CATALOGUE[metric](jnp.asarray(control)[None, :] + pred.effect, real)
    assert abs(float(jnp.mean(values)) - 0.5) < 1e-12


def test_what_was_fitted_to_what_it_predicts_is_transductive(small):
    _, _, data = small
    fitted = MeanResponse().fit(data)
    assert fitted.predict(("G0", "G9")).fairness == "transductive"
    assert fitted.predict(("G9",)).fairness == "inductive"
    assert fitted.leave_one_out().fairness == "inductive"


@pytest.mark.parametrize(
    ("make", "at"),
    [
        (lambda x: MeanResponse(scale=x), 0.9),
        (lambda x: CellMean(scale=x), 0.9),
        (lambda x: CrisprMean(efficiency=x), 0.6),
        (lambda x: CrisprMean(mode="activation", fold=x, space="counts"), 1.7),
    ],
)
def test_gradients_reach_the_hyper_parameters(small, make, at):
    _, _, data = small
    truth = jnp.asarray(np.random.default_rng(3).normal(size=(2, len(GENES))))

    def loss(x):
        return jnp.sum((make(x).fit(data).predict(("G9", "G4")).effect - truth) ** 2)

    slope = directional(loss, at, 1.0)
    assert abs(slope) > 1e-3
    np.testing.assert_allclose(slope, finite_difference(loss, at, 1.0), rtol=1e-6)


@pytest.mark.parametrize("name", ["cell_mean", "mean_with_control", "generic_counts", "cross_context", "crispr"])
def test_gradients_reach_the_training_effects(small, name):
    _, _, data = small
    _, _, other = screen(5, perts=("G0", "G9"), targets=None, cells=np.array([1, 2]))
    weight = jnp.asarray(np.random.default_rng(4).normal(size=(3, len(GENES))))
    direction = np.random.default_rng(5).normal(size=data.effects.shape)

    def loss(x):
        fitted = BASELINES[name].fit(dataclasses.replace(data, effects=x), external=[other])
        return jnp.sum(weight * jnp.tanh(fitted.predict(("G9", "G4", "unknown")).effect))

    expected = finite_difference(loss, data.effects, direction)
    np.testing.assert_allclose(directional(loss, data.effects, direction), expected, rtol=1e-6)


def test_a_fit_runs_inside_jit(small):
    _, _, data = small
    fit = lambda baseline, data: baseline.fit(data).predict(UNSEEN)
    for baseline in (MeanResponse(), CrisprMean(), GenericResponse(), OrderMean()):
        np.testing.assert_allclose(eqx.filter_jit(fit)(baseline, data).effect, fit(baseline, data).effect, atol=1e-12)


class TestSparseMean:
    @pytest.fixture
    def cells(self):
        rng = np.random.default_rng(8)
        return rng.uniform(0, 3, (60, len(GENES))), rng.integers(-1, 5, 60)

    def test_of_all_cells_it_is_their_mean(self, small, cells):
        values, groups = cells
        baseline = SparseMean(cells=values, groups=groups, size=1000)
        found = baseline.fit(small[2], key=jax.random.key(0)).predict(("G9", "G1"))
        np.testing.assert_allclose(found.profile[0], values[groups >= 0].mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(found.profile[1], values[(groups >= 0) & (groups != 1)].mean(axis=0), atol=1e-12)

    def test_draws_depend_on_the_name_alone(self, small, cells):
        baseline = SparseMean(cells=cells[0], groups=cells[1], size=4)
        fitted = baseline.fit(small[2], key=jax.random.key(0))
        one, two = fitted.predict(("a", "b")).effect, fitted.predict(("b", "c", "a")).effect
        np.testing.assert_array_equal(one, two[np.array([2, 0])])
        assert not np.array_equal(one[0], one[1])

    def test_a_draw_is_a_mean_of_so_many_cells(self, small):
        rows = np.eye(len(GENES))
        fitted = SparseMean(cells=rows, groups=np.zeros(20, int), size=6).fit(small[2], key=jax.random.key(2))
        profile = np.asarray(fitted.predict(("new",)).profile[0])
        np.testing.assert_allclose(np.sort(profile), [0] * 14 + [1 / 6] * 6, atol=1e-12)

    def test_leave_one_out_draws_from_others(self, small):
        rows = np.eye(len(GENES))
        groups = np.repeat(np.arange(5), 4)
        found = SparseMean(cells=rows, groups=groups).fit(small[2], key=jax.random.key(2)).leave_one_out()
        assert found is not None
        profile = np.asarray(found.profile)
        for p in range(5):
            assert np.abs(profile[p, groups == p]).max() < 1e-12
            assert np.count_nonzero(profile[p] > 1e-6) == 2

    def test_counts_are_summed(self, small, cells):
        data = dataclasses.replace(small[2], space="bulk_lognorm")
        counts = np.random.default_rng(1).poisson(3.0, (30, len(GENES))).astype(float)
        fitted = SparseMean(cells=counts, groups=np.zeros(30, int), size=30).fit(data, key=jax.random.key(0))
        total = counts.sum(axis=0)
        np.testing.assert_allclose(fitted.predict(("new",)).profile[0], np.log1p(5e4 * total / total.sum()), rtol=1e-12)
        with pytest.raises(ValueError, match="key"):
            SparseMean(cells=counts, groups=np.zeros(30, int)).fit(data)
        with pytest.raises(ValueError, match="group"):
            SparseMean(cells=counts, groups=np.zeros(7, int)).fit(data, key=jax.random.key(0))


class TestNulls:
    def test_the_wrong_target_is_never_the_right_one(self, small):
        _, _, data = small
        x, c, other = screen(6, perts=("G0", "G1", "G9"), targets=None, cells=None)
        seen = set()
        for seed in range(20):
            found = WrongTarget().fit(data, external=[other], key=jax.random.key(seed)).predict(("G9", "G0"))
            rows = [int(np.argmin(np.abs(x - c - np.asarray(row)).max(axis=1))) for row in found.effect]
            np.testing.assert_allclose(found.effect, (x - c)[rows], atol=1e-12)
            seen.add(tuple(rows))
        assert {row for row, _ in seen} == {0, 1}
        assert {row for _, row in seen} == {1, 2}
        assert WrongTarget().fit(data, key=jax.random.key(0)).predict(("G9",)).fairness == "inductive"
        with pytest.raises(ValueError, match="key"):
            WrongTarget().fit(data)

    def test_the_nearest_metadata(self, small):
        profiles, control, data = small
        facts = dict(zip((*PERTS, *UNSEEN), FACTS, strict=True))
        found = MetadataNeighbour(facts=FACTS, perts=tuple(facts)).fit(data).predict((*UNSEEN, "no facts"))
        np.testing.assert_allclose(found.effect[0], profiles[1] - control, atol=1e-12)
        np.testing.assert_allclose(found.effect[1], profiles[3] - control, atol=1e-12)
        np.testing.assert_array_equal(found.covered, [True, True, False])
        assert found.fairness == "transductive"
        tied = MetadataNeighbour(facts=np.array([[1.0], [3], [0], [9], [9], [2]]), perts=(*PERTS, "G9"))
        both = tied.fit(data).predict(("G9",)).effect[0]
        np.testing.assert_allclose(both, profiles[:2].mean(axis=0) - control, atol=1e-12)
        with pytest.raises((ValueError, TypeCheckError)):
            MetadataNeighbour(facts=FACTS, perts=("a",))

    def test_permuted_labels_fit_the_same_effects_to_other_names(self, small):
        _, _, data = small
        found = PermutedLabels(MetadataNeighbour(facts=FACTS, perts=(*PERTS, *UNSEEN))).fit(data, key=jax.random.key(0))
        row = np.asarray(found.predict(UNSEEN[:1]).effect[0])
        assert np.abs(np.asarray(data.effects) - row).max(axis=1).min() < 1e-12
        assert found.predict(UNSEEN).baseline == "permuted_labels(metadata_neighbour)"
        plain = PermutedLabels(MeanResponse()).fit(data, key=jax.random.key(0)).predict(UNSEEN).effect
        np.testing.assert_allclose(plain, effect(MeanResponse(), data), atol=1e-12)

    def test_permuted_genes_keep_the_sizes(self, small):
        _, _, data = small
        found = GenePermuted(MeanResponse()).fit(data, key=jax.random.key(0))
        rows = np.asarray(found.predict(UNSEEN).effect)
        for row in rows:
            np.testing.assert_allclose(np.sort(row), np.sort(mean_response(data)), atol=1e-12)
        assert not np.allclose(rows[0], rows[1])
        loo = found.leave_one_out()
        assert loo is not None
        assert loo.baseline == "gene_permuted(mean)"


def test_labels_are_split_as_the_package_resolves_them():
    known = {"A", "B", "A_1", "NKX2_1"}
    assert members("A+B", known) == ("A", "B")
    assert members("A + ctrl", known) == ("A",)
    assert members("A_B", known) == ("A", "B")
    assert members("A_C", known) == ("A_C",)
    assert members("NKX2_1", known) == ("NKX2_1",)
    assert members("C", known) == ("C",)
