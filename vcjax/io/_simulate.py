"""Screens made up from a known truth: what the demo, the examples and the tests score predictions against."""

import dataclasses
from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int


CONTROL = "non-targeting"
PERT_COLUMN = "target_gene"
# One random stream each, by position: new purposes go to the end, so that old seeds keep their screens.
_PURPOSES: tuple[str, ...] = (
    *("baseline", "dispersion", "targets", "strength", "shared", "responds", "sizes", "signs", "members"),
    *("loadings", "embedding", "knockdown", "pairs", "interaction", "control", "cells", "shuffle"),
)
_BLOCK_ENTRIES = 2_000_000  # cells times genes drawn at once: 16 MB for each array on the way


@dataclasses.dataclass(frozen=True)
class SimulatedScreen:
    r"""Cells of a made-up screen, and the truth that they were drawn from.

    **Fields:**

    - `adata`: the measured cells in random order: counts as CSR float32, labels in `obs["target_gene"]`, controls
        labelled `non-targeting`. Treat it as read-only.
    - `perts`, `genes`: names of the rows and columns below. `perts` is sorted, as `numpy.unique` of the labels is; a
        label is the name of the gene that is targeted, or two of them as `A+B`.
    - `log_fold_change`: natural log of the effect of each perturbation on each gene's rate, from `baseline`.
    - `baseline`: expected share of each gene in an unperturbed cell without control bias.
    - `profiles`, `control_profile`: expected share of each gene in the cells of a perturbation and in the control
        cells; they sum to 1 over genes.
    - `embedding`: activity of the gene programs in each perturbation. The part of `log_fold_change` that comes from
        programs is linear in it, but for target genes.
    - `dispersion`: the $\phi$ of each gene in the variance of its counts, $\mu + \phi \mu^2$.
    - `depth`, `library_sigma`: mean of the cells' library sizes, and standard deviation of their natural log.
    """

    adata: ad.AnnData
    perts: tuple[str, ...]
    genes: tuple[str, ...]
    log_fold_change: Float[np.ndarray, "perts genes"]
    baseline: Float[np.ndarray, " genes"]
    profiles: Float[np.ndarray, "perts genes"]
    control_profile: Float[np.ndarray, " genes"]
    embedding: Float[np.ndarray, "perts programs"]
    dispersion: Float[np.ndarray, " genes"]
    depth: float
    library_sigma: float

    def draw(self, profile: Float[np.ndarray, " genes"], cells: int, rng: np.random.Generator) -> sp.csr_matrix:
        """Counts of new cells that express `profile`, with the depth and the noise of this screen's cells."""
        return draw_counts(
            profile, cells, rng, depth=self.depth, library_sigma=self.library_sigma, dispersion=self.dispersion
        )


def simulate_screen(
    *,
    perts: int = 40,
    genes: int = 1500,
    cells_per_pert: int = 100,
    control_cells: int = 500,
    doubles: int = 10,
    control_bias: float = 0.0,
    effect_probability: float = 0.04,
    effect_scale: float = 0.5,
    strength_sigma: float = 0.4,
    shared_scale: float = 0.25,
    programs: int = 6,
    program_scale: float = 0.15,
    interaction_scale: float = 0.2,
    knockdown: tuple[float, float] = (1.5, 3.0),
    library_sigma: float = 0.1714,
    expression_sigma: float = 2.0,
    dispersion: float = 0.3,
    depth: float = 2200.0,
    seed: int = 0,
) -> SimulatedScreen:
    r"""Draws a screen of `perts` single and `doubles` double perturbations from a known truth.

    The share of gene $g$ in the cells of perturbation $p$ is $\pi_{pg} \propto \beta_g e^{\ell_{pg}}$, with a baseline
    $\beta$ that is log-normal over genes. A cell with library size $L_c$ then holds a negative binomial number of
    counts, of mean $\mu = L_c \pi_{pg}$ and variance $\mu + \phi_g \mu^2$. The effect $\ell_p$ of a single perturbation
    adds up sparse effects of its own, a few gene programs and a response that all perturbations share; on its target
    gene it is the knock-down instead.

    Effects are natural logs of fold changes. Every purpose has its own random stream, so that turning one knob leaves
    the draws behind the others as they are.

    **Arguments:**

    - `perts`: number of genes that are targeted, each alone, from the better expressed half of the genes.
    - `genes`: number of measured genes, at least `2 * perts`.
    - `cells_per_pert`, `control_cells`: number of cells of each perturbation, and of controls.
    - `doubles`: number of perturbations `A+B`. Their effect is the sum of the two single ones, and an interaction.
    - `control_bias`: $B$ moves the control away from the perturbed cells, by $-B$ times the mean effect of the single
        perturbations. 0: the control is where the effects start; -1: it has the mean effect itself. Mejia et al. (2025)
        shift by $B (\mu_\mathrm{pert} - \mu_\mathrm{ctrl})$; here in logs, which keeps expression positive.
    - `effect_probability`: probability that a gene responds to a perturbation by itself, and that it is in a program.
    - `effect_scale`: mean size of the response of such a gene; signs are random.
    - `strength_sigma`: standard deviation of the log of the strength of a perturbation, which multiplies its effects
        on all genes but its target.
    - `shared_scale`: standard deviation of the response that all perturbations share (systematic variation), on the
        tenth of the genes that take part in it.
    - `programs`, `program_scale`: number of gene programs, and standard deviation of the effect of one program on a
        gene that is in it.
    - `interaction_scale`: standard deviation of the interaction, on the genes that respond to either perturbation.
    - `knockdown`: smallest and largest size of the effect on the target gene, which is negative; drawn uniformly.
    - `library_sigma`: standard deviation of the log of the library size. 0.1714 is the value of Mejia et al.
    - `expression_sigma`: standard deviation of the log of the baseline over genes, which is cut at 2.5 of them.
    - `dispersion`: median of $\phi_g$; 0 gives Poisson counts.
    - `depth`: mean library size, in counts a cell.
    - `seed`: equal seeds and knobs give equal bytes (with one version of numpy).

    **Raises:** `ValueError` for numbers of genes, cells or perturbations that cannot be, and for knobs out of range.
    """
    _check_numbers(perts, genes, min(cells_per_pert, control_cells), doubles, programs)
    _check_ranges(
        effect_probability=(effect_probability, 1),
        knockdown=(*knockdown, 20),
        depth=(1, depth, 1e6),
        effect_scale=(effect_scale, 20),
        shared_scale=(shared_scale, 20),
        program_scale=(program_scale, 20),
        interaction_scale=(interaction_scale, 20),
        strength_sigma=(strength_sigma, 5),
        library_sigma=(library_sigma, 5),
        expression_sigma=(expression_sigma, 5),
        dispersion=(dispersion, 100),
    )
    rngs = dict(zip(_PURPOSES, np.random.default_rng(seed).spawn(len(_PURPOSES)), strict=True))
    names = [f"GENE{i:0{len(str(genes - 1))}d}" for i in range(genes)]
    # The cut keeps the highest gene near one percent of the counts, so that effects on it barely dilute the others.
    baseline = shares(expression_sigma * rngs["baseline"].standard_normal(genes).clip(-2.5, 2.5))
    targets = rngs["targets"].permutation(np.argsort(baseline)[-(genes // 2) :])[:perts]

    effects, embedding, responds = _single_effects(
        rngs, (perts, programs, genes), effect_probability, effect_scale, strength_sigma, shared_scale, program_scale
    )
    effects[np.arange(perts), targets] = -rngs["knockdown"].uniform(*knockdown, size=perts)
    pairs = _distinct_pairs(rngs["pairs"], perts, doubles)
    interaction = interaction_scale * rngs["interaction"].standard_normal((doubles, genes))
    combined = effects[pairs].sum(axis=1) + interaction * responds[pairs].any(axis=1)
    labels = [names[i] for i in targets] + ["+".join(sorted(names[i] for i in targets[pair])) for pair in pairs]
    order = np.argsort(labels)

    log_fold_change = np.concatenate([effects, combined])[order]
    control_profile = shares(np.log(baseline) - control_bias * effects.mean(axis=0))
    profiles = shares(np.log(baseline) + log_fold_change)
    noise = {
        "dispersion": dispersion * np.exp(0.3 * rngs["dispersion"].standard_normal(genes)),
        "depth": float(depth),
        "library_sigma": float(library_sigma),
    }
    # A perturbation keeps its stream wherever its label sorts.
    pert_rngs = rngs["cells"].spawn(perts + doubles)
    blocks = [draw_counts(control_profile, control_cells, rngs["control"], **noise)]
    blocks += [draw_counts(profiles[row], cells_per_pert, pert_rngs[i], **noise) for row, i in enumerate(order)]
    perts_sorted = [labels[i] for i in order]
    return SimulatedScreen(
        adata=label_cells(blocks, [CONTROL, *perts_sorted], names, rng=rngs["shuffle"]),
        perts=tuple(perts_sorted),
        genes=tuple(names),
        log_fold_change=log_fold_change,
        baseline=baseline,
        profiles=profiles,
        control_profile=control_profile,
        embedding=np.concatenate([embedding, embedding[pairs].sum(axis=1)])[order],
        **noise,
    )


def draw_counts(
    profile: Float[np.ndarray, " genes"],
    cells: int,
    rng: np.random.Generator,
    *,
    depth: float,
    library_sigma: float,
    dispersion: Float[np.ndarray, " genes"],
) -> sp.csr_matrix:
    """Counts of `cells` cells that express `profile` (shares that sum to 1), as CSR float32.

    Counts are Poisson given a gamma-distributed rate, whose mean is the profile times the cell's library size.
    """
    library = depth * np.exp(library_sigma * rng.standard_normal(cells) - library_sigma**2 / 2)
    shape = 1 / np.maximum(dispersion, 1e-8)  # at 1e-8 the gamma factor is 1 to four digits: Poisson
    rows = max(1, _BLOCK_ENTRIES // len(profile))
    blocks = []
    for start in range(0, cells, rows):
        rate = np.outer(library[start : start + rows], profile)
        rate *= rng.standard_gamma(shape, rate.shape, dtype=np.float32) / shape
        blocks.append(sp.csr_matrix(rng.poisson(rate).astype(np.float32)))
    return sp.csr_matrix(sp.vstack(blocks))


def label_cells(
    blocks: Sequence[sp.csr_matrix],
    labels: Sequence[str],
    genes: Sequence[str],
    *,
    rng: np.random.Generator | None = None,
) -> ad.AnnData:
    """One AnnData of blocks of cells that share a label, in random order if `rng` is given."""
    codes = np.repeat(np.arange(len(blocks)), [len(block.indptr) - 1 for block in blocks])
    order = np.arange(len(codes)) if rng is None else rng.permutation(len(codes))
    obs = pd.DataFrame(
        {PERT_COLUMN: pd.Categorical(np.asarray(labels, object)[codes[order]])},
        index=pd.Index([f"cell{i}" for i in range(len(codes))]),
    )
    counts = sp.csr_matrix(sp.vstack(blocks))[order]
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=pd.Index(list(genes))))


def shares(log_expression: Float[np.ndarray, "*rows genes"]) -> Float[np.ndarray, "*rows genes"]:
    """Expression given by its log, as shares that sum to 1 over genes; finite however large the logs are."""
    expression = np.exp(log_expression - log_expression.max(axis=-1, keepdims=True))
    return expression / expression.sum(axis=-1, keepdims=True)


def _single_effects(
    rngs: dict[str, np.random.Generator],
    sizes: tuple[int, int, int],
    effect_probability: float,
    effect_scale: float,
    strength_sigma: float,
    shared_scale: float,
    program_scale: float,
) -> tuple[Float[np.ndarray, "perts genes"], Float[np.ndarray, "perts programs"], Bool[np.ndarray, "perts genes"]]:
    """Effects of the single perturbations before the knock-down, their program activities, and which genes respond."""
    perts, programs, genes = sizes
    strength = np.exp(strength_sigma * rngs["strength"].standard_normal((perts, 1)))
    # All draws are made whatever the probability is, so that raising it adds responding genes and keeps the others.
    size = rngs["sizes"].gamma(4, 1 / 4, (perts, genes)) * rngs["signs"].choice([-1.0, 1.0], (perts, genes))
    own = effect_scale * size * (rngs["responds"].random((perts, genes)) < effect_probability)
    members = rngs["members"].random((programs, genes)) < effect_probability
    loadings = program_scale * rngs["loadings"].standard_normal((programs, genes)) * members
    activity = rngs["embedding"].standard_normal((perts, programs))
    common = activity @ loadings
    shared = shared_scale * rngs["shared"].standard_normal(genes) * (rngs["shared"].random(genes) < 0.1)
    return strength * (own + common + shared), strength * activity, (own != 0) | (common != 0)


def _distinct_pairs(rng: np.random.Generator, perts: int, doubles: int) -> Int[np.ndarray, "doubles 2"]:
    """Different pairs of different perturbations, none of them twice."""
    pairs = np.stack(np.triu_indices(perts, k=1), axis=1)
    return pairs[rng.permutation(len(pairs))[:doubles]]


def _check_numbers(perts: int, genes: int, cells: int, doubles: int, programs: int) -> None:
    if perts < 1 or genes < 2 * perts:
        raise ValueError(f"At least one perturbation and two genes a perturbation are needed, got {perts} and {genes}.")
    if cells < 1:
        raise ValueError("`cells_per_pert` and `control_cells` must be at least 1.")
    if not 0 <= doubles <= perts * (perts - 1) // 2:
        raise ValueError(f"{perts} perturbations make {perts * (perts - 1) // 2} pairs, got `doubles={doubles}`.")
    if programs < 0:
        raise ValueError(f"`programs` must not be negative, got {programs}.")


def _check_ranges(**knobs: tuple[float | int, ...]) -> None:
    """Refuses a knob whose numbers do not rise from 0; the last number is the largest that makes sense."""
    for name, (*values, largest) in knobs.items():
        if not all(low <= high for low, high in zip([0, *values], [*values, largest], strict=True)):
            shown = ", ".join(str(value) for value in values)
            raise ValueError(f"`{name}` must lie between 0 and {largest}, in rising order, got {shown}.")
