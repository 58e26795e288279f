"""What the study trains and scores on: perturbations measured in three separate thirds of their cells.

`train` has the profiles that models learn; `weights` the gene weights, and the candidates that a training prediction is
ranked among; `score` the truth of the held-out perturbations. A prediction is thus never scored on cells that it, or
its weights, have seen; the third for training, of held-out perturbations, is their technical duplicate.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from transfer import FILES, half_normal

import vcjax
from vcjax.baselines import Features, one_hot
from vcjax.de import Moments
from vcjax.io import simulate_screen
from vcjax.weights import CALIBRATED


THIRDS = ("train", "weights", "score")
LEAST_CELLS = 12  # of a perturbation: four in each third


@dataclasses.dataclass(frozen=True)
class Part:
    """A third of the cells: profiles of all perturbations with the noise of each gene, and their moments."""

    profiles: vcjax.Profiles
    moments: Moments | None

    def weights(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Gene weights of these perturbations, by Welch's t against the others of them."""
        assert self.moments is not None
        rows = np.arange(len(self.profiles.mean)) if rows is None else rows
        moments = Moments(self.moments.mean[rows], self.moments.variance[rows], self.moments.cells[rows])
        assert self.profiles.targets is not None
        return np.asarray(CALIBRATED(moments, targets=self.profiles.targets[rows]).values)


@dataclasses.dataclass(frozen=True)
class Task:
    """Perturbations, how they are divided, and what a model may know of each.

    **Fields:** `folds`: rows to hold out, in turn; `always`: rows that are always trained on; `features`: of the
    perturbed genes; `models`: which networks; `truth`: profiles without noise, where they are known; `known_weights`:
    for data without cells.
    """

    name: str
    about: str
    perts: tuple[str, ...]
    genes: tuple[str, ...]
    parts: Mapping[str, Part]
    folds: tuple[np.ndarray, ...]
    features: Features
    models: tuple[str, ...]
    truth: np.ndarray | None = None
    known_weights: np.ndarray | None = None
    duplicates: bool = True

    def train_rows(self, fold: np.ndarray) -> np.ndarray:
        """All but what is held out."""
        return np.setdiff1d(np.arange(len(self.perts)), fold)

    def weights(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Gene weights from the cells that are neither trained nor scored on."""
        if self.known_weights is None:
            return self.parts["weights"].weights(rows)
        return self.known_weights if rows is None else self.known_weights[rows]


def thirds_of(
    cells: np.ndarray, labels: np.ndarray, control: str, perts: Sequence[str], targets: Sequence[int], seed: int
) -> dict[str, Part]:
    """The three parts of log-normalised cells, each label's cells dealt out at random."""
    rng = np.random.default_rng(seed)
    groups: dict[str, list[np.ndarray]] = {name: [] for name in THIRDS}
    for label in (*perts, control):
        rows = rng.permutation(np.flatnonzero(labels == label))
        for name, part in zip(THIRDS, np.array_split(rows, 3), strict=True):
            groups[name].append(part)
    return {name: _part(cells, rows, targets) for name, rows in groups.items()}


def _part(cells: np.ndarray, groups: Sequence[np.ndarray], targets: Sequence[int]) -> Part:
    means, variances = (
        np.stack([f(cells[rows].astype(np.float64)) for rows in groups])
        for f in (lambda x: x.mean(axis=0), lambda x: x.var(axis=0, ddof=1))
    )
    counts = np.array([len(rows) for rows in groups], np.float64)
    noise = variances / counts[:, None]
    array = lambda x: jnp.asarray(x, jnp.float32)
    profiles = vcjax.Profiles(
        array(means[:-1]), array(means[-1]), cells=array(counts[:-1]), noise=array(noise[:-1]),
        control_noise=array(noise[-1]), targets=jnp.asarray(np.asarray(targets)),
    )  # fmt: skip
    return Part(profiles, Moments(array(means[:-1]), array(variances[:-1]), array(counts[:-1])))


def simulated(cells: int, seed: int, *, perts: int = 90, genes: int = 1000, folds: int = 3) -> Task:
    """Single perturbations whose effects are partly linear in known features, with this many cells in each third."""
    screen = simulate_screen(
        perts=perts, genes=genes, cells_per_pert=3 * cells, control_cells=15 * cells, doubles=0,
        programs=8, program_scale=0.3, effect_probability=0.05, effect_scale=0.5, seed=1000 + seed,
    )  # fmt: skip
    logs, labels = _log_cells(screen.adata.X), screen.adata.obs["target_gene"].astype(str).to_numpy()
    targets = [screen.genes.index(pert) for pert in screen.perts]
    order = np.random.default_rng(seed).permutation(perts)
    embedding = screen.embedding / screen.embedding.std(axis=0)
    return Task(
        f"simulated, {cells} cells",
        f"{perts} single perturbations of {genes} genes, {cells} cells in each third, {folds}-fold; features: the "
        "activity of 8 gene programs, which a part of every effect is linear in",
        screen.perts,
        screen.genes,
        thirds_of(logs, labels, "non-targeting", screen.perts, targets, seed),
        tuple(np.sort(part) for part in np.array_split(order, folds)),
        Features(jnp.asarray(embedding, jnp.float32), screen.perts, source="programs"),
        ("fmlp",),
        truth=_noiseless(screen, seed),
    )


def simulated_doubles(cells: int, seed: int, *, perts: int = 40, genes: int = 1000) -> Task:
    """Double perturbations from their single ones and half of the other doubles."""
    doubles = 40
    screen = simulate_screen(
        perts=perts, genes=genes, cells_per_pert=3 * cells, control_cells=15 * cells, doubles=doubles,
        programs=8, program_scale=0.3, effect_probability=0.05, effect_scale=0.5, interaction_scale=0.3,
        seed=2000 + seed,
    )  # fmt: skip
    logs, labels = _log_cells(screen.adata.X), screen.adata.obs["target_gene"].astype(str).to_numpy()
    targets = [screen.genes.index(pert) if pert in screen.genes else -1 for pert in screen.perts]
    parts = thirds_of(logs, labels, "non-targeting", screen.perts, targets, seed)
    return _pairs(
        "simulated doubles",
        f"{doubles} doubles of {perts} single perturbations of {genes} genes, {cells} cells in each third",
        screen.perts, screen.genes, parts, seed, folds=2, truth=_noiseless(screen, seed),
    )  # fmt: skip


def k562(folder: pathlib.Path, seed: int) -> Task:
    """The doubles of K562 from its single perturbations and half of the other doubles."""
    import anndata

    held = anndata.read_h5ad(folder / FILES["devel"])
    held = held[(held.obs["cell_type"] == "k562").to_numpy()]
    labels, values = held.obs["perturbation"].astype(str).to_numpy(), held.X
    cells = _dense(values)
    perts = tuple(sorted(set(labels) - {"control"}))
    genes = tuple(map(str, held.var_names))
    parts = thirds_of(cells, labels, "control", perts, _targets(perts, genes), seed)
    about = (
        f"{sum('+' in p for p in perts)} doubles of {sum('+' not in p for p in perts)} singles (CRISPRa, Norman 2019)"
    )
    return _pairs("K562 doubles", f"{about}, {len(genes)} genes", perts, genes, parts, seed, folds=5)


def _pairs(
    name: str, about: str, perts: Sequence[str], genes: Sequence[str], parts: Any, seed: int, *, folds: int,
    truth: Any = None,
) -> Task:  # fmt: skip
    """Folds of the doubles of known singles; a gene's features are components of its effect in the training third."""
    perts = tuple(perts)
    singles = np.array([i for i, pert in enumerate(perts) if "+" not in pert])
    alone = {perts[i] for i in singles}
    doubles = np.array([i for i, pert in enumerate(perts) if "+" in pert and set(pert.split("+")) <= alone])
    train = parts["train"].profiles
    effects = np.asarray(train.mean)[singles] - np.asarray(train.mean)[singles].mean(axis=0)
    left, size, _ = np.linalg.svd(effects, full_matrices=False)
    dims = min(16, len(singles) - 1)
    scores = left[:, :dims] * size[:dims] / (size[0] / np.sqrt(len(singles)))
    shuffled = np.random.default_rng(seed).permutation(doubles)
    return Task(
        name,
        f"{about}; of the {len(doubles)} doubles whose parts are measured alone one in {folds} is held out in turn",
        perts, tuple(genes), parts, tuple(np.sort(part) for part in np.array_split(shuffled, folds)),
        Features(jnp.asarray(scores, jnp.float32), tuple(perts[i] for i in singles), source="own single effects"),
        ("latent_additive", "fmlp"),
        truth=truth,
    )  # fmt: skip


def papalexi(folder: pathlib.Path, seed: int, folds: int = 3) -> Task:
    """Guides of THP-1 cells, each from the other guides of its gene (and of the others)."""
    import anndata

    held = anndata.read_h5ad(folder / FILES["papalexi"])
    held = held[(held.obs["guide_purity"] > 0.8).to_numpy()]
    gene_of_cell = held.obs["perturbation"].astype(str).to_numpy()
    guide = held.obs["guide"].astype(str).to_numpy()
    gene = dict(zip(guide, gene_of_cell, strict=True))
    names, counts = np.unique(guide[gene_of_cell != "non-targeting"], return_counts=True)
    perts = tuple(str(name) for name, count in zip(names, counts, strict=True) if count >= LEAST_CELLS)
    labels = np.where(gene_of_cell == "non-targeting", "control", guide)
    genes = tuple(map(str, held.var_names))
    targets = _targets([gene[pert] for pert in perts], genes)
    parts = thirds_of(_log_cells(held.X), labels, "control", perts, targets, seed)
    # The guides of a gene are dealt out over the folds, so that each has relatives to learn from.
    rng = np.random.default_rng(seed)
    order = [
        rng.permutation([i for i, pert in enumerate(perts) if gene[pert] == name])
        for name in sorted(set(gene.values()))
    ]
    fold = np.empty(len(perts), int)
    fold[np.concatenate(order).astype(int)] = np.arange(len(perts)) % folds
    table = one_hot(sorted({gene[pert] for pert in perts}))
    rows = [table.names.index(gene[pert]) for pert in perts]
    return Task(
        "papalexi guides",
        f"{len(perts)} guides of {len(table.names)} genes in THP-1 cells (CRISPR knock-out, Papalexi 2021), "
        f"{len(genes)} genes, {folds}-fold; features: which gene a guide targets",
        perts, genes, parts, tuple(np.flatnonzero(fold == i) for i in range(folds)),
        Features(table.values[np.array(rows)].astype(jnp.float32), perts, source="target gene"),
        ("fmlp",),  # to the latent additive model a new guide is a name that it has not seen
    )  # fmt: skip


def replogle(folder: pathlib.Path, seed: int, folds: int = 3, genes: int = 1000) -> Task:
    """RPE1 from K562: pseudo-effects, of which only the order of 1,000 genes each is known."""
    held = np.load(folder / FILES["replogle"])
    perts, names = tuple(map(str, held["perts"])), np.array(list(map(str, held["genes"])))
    effects = {line: half_normal(held[line], len(names)) for line in ("k562", "rpe1")}
    # Genes that are listed most often in the line that the features come from: no look at the one to predict.
    kept = np.sort(np.argsort(-(effects["k562"] > 0).sum(axis=0), kind="stable")[:genes])
    source = effects["k562"] - effects["k562"].mean(axis=0)
    left, size, _ = np.linalg.svd(source, full_matrices=False)
    features = left[:, :64] * size[:64] / (size[0] / np.sqrt(len(perts)))
    real = effects["rpe1"][:, kept]
    chosen = tuple(map(str, names[kept]))
    profiles = vcjax.effects_as_profiles(jnp.asarray(real, jnp.float32), targets=jnp.asarray(_targets(perts, chosen)))
    weights = effects["k562"][:, kept] ** 2 + 1e-2
    order = np.random.default_rng(seed).permutation(len(perts))
    return Task(
        "Replogle, K562 to RPE1",
        f"{len(perts)} knock-downs, pseudo-effects (half-normal scores of ranks) of the {genes} genes listed most "
        f"often in K562, {folds}-fold; features: 64 components of the K562 effects; weights: squared K562 scores",
        perts, chosen, dict.fromkeys(THIRDS, Part(profiles, None)),
        tuple(np.sort(part) for part in np.array_split(order, folds)),
        Features(jnp.asarray(features, jnp.float32), perts, source="K562 effects"),
        ("fmlp",),
        known_weights=weights / weights.sum(axis=1, keepdims=True),
        duplicates=False,
    )  # fmt: skip


def _targets(perts: Sequence[str], genes: Sequence[str]) -> list[int]:
    place = {gene: i for i, gene in enumerate(genes)}
    return [place.get(pert, -1) for pert in perts]


def _dense(cells: Any) -> np.ndarray:
    return np.asarray(cells.toarray() if sp.issparse(cells) else cells, np.float32)


def _log_cells(counts: Any) -> np.ndarray:
    dense = _dense(counts)
    return np.log1p(dense * (1e4 / np.maximum(dense.sum(axis=1, keepdims=True), 1)))


def _noiseless(screen: Any, seed: int, cells: int = 600) -> np.ndarray:
    """Mean log-normalised profiles of so many cells that their noise no longer matters."""
    rng = np.random.default_rng(90_000 + seed)
    return np.stack([_log_cells(screen.draw(profile, cells, rng)).mean(axis=0) for profile in screen.profiles])


TASKS: dict[str, Callable[[pathlib.Path | None, int], Task]] = {
    "sim-10": lambda folder, seed: simulated(10, seed),
    "sim-30": lambda folder, seed: simulated(30, seed),
    "sim-100": lambda folder, seed: simulated(100, seed),
    "sim-doubles": lambda folder, seed: simulated_doubles(40, seed),
    "k562": lambda folder, seed: k562(_need(folder), seed),
    "papalexi": lambda folder, seed: papalexi(_need(folder), seed),
    "replogle": lambda folder, seed: replogle(_need(folder), seed),
}


def _need(folder: pathlib.Path | None) -> pathlib.Path:
    if folder is None:
        raise ValueError("This task needs `--data FOLDER`.")
    return folder
