"""Distances between perturbations and the discrimination score, against scipy, scikit-learn, cell-eval and cell-eval2.

    python benchmarks/distances.py --peers PYTHON [--sizes 100 300 1000 2000] [--genes 18080] [--out FOLDER]

`PYTHON` is an interpreter with the peers installed; see README.md. Every case runs its contenders in turn, A, B, C, A,
B, C. vcjax is timed after compilation, which is listed by itself, on arrays that JAX holds already; the peers on NumPy
arrays in a process that has imported them already.
"""

import argparse
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _measure import interleave, load, machine, RESULTS, Sample, time_call, versions, versions_of, write_results
from _peer import Peer
from _report import distances_report
from scipy.spatial.distance import cdist
from sklearn.metrics import pairwise_distances

import vcjax
from vcjax.metrics import CATALOGUE, CELL_EVAL, Cosine, L1, L2, perturbation_discrimination, V2


DISTANCES = {"l1": L1(), "l2": L2(), "cosine": Cosine()}
DTYPES = ("float64", "float32")
# Above this number of perturbations only some rows are run: of cell-eval, of cell-eval2's l1, and of scipy's l1.
LOOP_LIMIT, CELL_EVAL2_LIMIT, SCIPY_LIMIT = 100, 300, 1000
LOOP_ROWS, L1_ROWS = 16, 50
# Above this one, not run: scipy's l2 and cosine, scikit-learn's l1 (which is scipy's) and float32 (which it upcasts),
# and the soft score in float64; above the next, no soft score at all.
DIRECT_LIMIT, SOFT_LIMIT = 300, 1000
BUDGET = 30  # seconds for a case; two rounds are made whatever they take
# P x P matrices that a program may hold beside its inputs and results: the distances as they are summed and as they are
# returned; for a score also the gaps and the sorted gaps of its temperature; for a gradient two derivatives of those.
ALLOWED = {"distance": 2, "score": 4, "gradient": 6}
SOFT = vcjax.Relaxation(0.1)


def start_peer(python: str, name: str, folder: pathlib.Path) -> Peer:
    """A peer that has made its first call, in which packages do what they do once."""
    peer = Peer(python, "_distances_worker.py", name, folder)
    peer.run(distance="l1", rows=1)
    return peer


def peer_timer(peer: Peer, distance: str, rows: int, sampled: int | None) -> Callable[[], Sample]:
    """A contender: the score of the first `rows` predictions, measured, or estimated from the time of `sampled`."""
    if sampled is None:
        return lambda: peer.run(distance=distance, rows=rows)

    def estimate() -> Sample:
        one, some = peer.run(distance=distance, rows=1), peer.run(distance=distance, rows=sampled)
        # Linear in the rows, and no less than what was measured.
        scale = lambda a, b: max(b, a + (b - a) * (rows - 1) / (sampled - 1))
        return Sample(scale(one.wall, some.wall), scale(one.cpu, some.cpu))

    return estimate


def effects(perts: int, genes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and measured effects: a response that all share, one of each perturbation, and noise."""
    rng = np.random.default_rng(seed)
    real = 0.1 * rng.standard_normal(genes) + 0.1 * rng.standard_normal((perts, genes))
    pred = 0.02 * real
    pred += 0.1 * rng.standard_normal((perts, genes))
    return pred, real


def compiled(function: Callable, *args: Any) -> Any:
    """The program for arguments of these shapes."""
    return jax.jit(function).lower(*args).compile()


def call(program: Callable, *args: Any) -> Callable[[], Sample]:
    """A contender that waits for the result."""
    return lambda: time_call(lambda: jax.block_until_ready(program(*args)))


def scaled(sample: Sample, factor: float) -> Sample:
    """The time of more of the same."""
    return Sample(sample.wall * factor, sample.cpu * factor)


def profiles(effect: np.ndarray, dtype: str) -> vcjax.Profiles:
    """Effects over a control of zero; perturbation i targets gene i."""
    perts, genes = effect.shape
    return vcjax.Profiles(jnp.asarray(effect, dtype), jnp.zeros(genes, dtype), targets=jnp.arange(perts))


def distance_case(name: str, pred: np.ndarray, real: np.ndarray, rounds: int) -> dict[str, Any]:
    """The (perts, perts) matrix alone."""
    arrays = {dtype: (jnp.asarray(pred, dtype), jnp.asarray(real, dtype)) for dtype in DTYPES}
    programs = {dtype: compiled(DISTANCES[name], *sides) for dtype, sides in arrays.items()}
    contenders = {f"vcjax {dtype}": call(programs[dtype], *arrays[dtype]) for dtype in DTYPES}
    metric: Any = {"l1": "cityblock", "l2": "euclidean", "cosine": "cosine"}[name]
    perts = len(pred)
    if perts <= (SCIPY_LIMIT if name == "l1" else DIRECT_LIMIT):
        contenders["scipy cdist"] = lambda: time_call(lambda: cdist(pred, real, metric))
    elif name == "l1":
        part = lambda: time_call(lambda: cdist(pred[:L1_ROWS], real, metric))
        contenders[f"scipy cdist (from {L1_ROWS} rows)"] = lambda: scaled(part(), perts / L1_ROWS)
    if perts <= DIRECT_LIMIT or name != "l1":
        contenders["scikit-learn"] = lambda: time_call(lambda: pairwise_distances(pred, real, metric=name))
    if perts <= DIRECT_LIMIT and name != "l1":
        single = pred.astype(np.float32), real.astype(np.float32)
        contenders["scikit-learn float32"] = lambda: time_call(lambda: pairwise_distances(*single, metric=name))
    ours = np.asarray(programs["float64"](*arrays["float64"]))
    theirs = cdist(pred[:10], real, metric)
    return {
        **_case("distance", name, pred, interleave(contenders, rounds, budget=BUDGET), "vcjax float64"),
        "agreement": {"scipy cdist (10 rows)": float(np.max(np.abs(ours[:10] - theirs)))},
    }


def score_case(name: str, pred: np.ndarray, real: np.ndarray, rounds: int, peers: Mapping[str, Peer]) -> dict[str, Any]:
    """The discrimination score, exact."""
    perts = len(pred)
    sides = {dtype: (profiles(pred, dtype), profiles(real, dtype)) for dtype in DTYPES}
    row = V2[f"pds_{name}"]
    programs = {dtype: compiled(row, *sides[dtype]) for dtype in DTYPES}
    contenders = {f"vcjax {dtype}": call(programs[dtype], *sides[dtype]) for dtype in DTYPES}
    sampled = {"cell-eval2": L1_ROWS if name == "l1" and perts > CELL_EVAL2_LIMIT else None}
    sampled["cell-eval"] = None if perts <= LOOP_LIMIT else LOOP_ROWS
    for key, rows in sampled.items():
        contenders[key if rows is None else f"{key} (from {rows} rows)"] = peer_timer(peers[key], name, perts, rows)
    case = _case("score", name, pred, interleave(contenders, rounds, budget=BUDGET), "vcjax float64")
    apart = lambda ours, theirs: float(np.max(np.abs(np.asarray(ours) - theirs)))
    v2 = np.asarray(programs["float64"](*sides["float64"]))
    agreement = {"cell-eval2": apart(v2[: len(peers["cell-eval2"].found)], peers["cell-eval2"].found)}
    if sampled["cell-eval"] is None:
        v1 = jax.jit(CELL_EVAL[f"discrimination_score_{name}"])(*sides["float64"])
        agreement["cell-eval"] = apart(v1, peers["cell-eval"].found)
    return {**case, "agreement": agreement}


def soft_case(name: str, pred: np.ndarray, real: np.ndarray, rounds: int, dtype: str) -> dict[str, Any]:
    """The soft score and its gradient, and the loss that reports the exact score with the gradient of the soft one."""
    metric = CATALOGUE[f"pds_{name}"]
    measured, mean = profiles(real, dtype), jnp.asarray(pred, dtype)
    soft = vcjax.as_loss(metric, relax=SOFT, straight_through=False)
    straight = vcjax.as_loss(metric, relax=SOFT)
    functions = {"forward": soft, "value and gradient": jax.value_and_grad(soft)}
    functions["straight-through value and gradient"] = jax.value_and_grad(straight)
    contenders = {key: call(compiled(function, mean, measured), mean, measured) for key, function in functions.items()}
    return _case(f"soft {dtype}", name, pred, interleave(contenders, rounds, budget=BUDGET), "forward")


def _case(kind: str, name: str, pred: np.ndarray, measured: Mapping[str, Any], unit: str) -> dict[str, Any]:
    results = {key: runs.summary() for key, runs in measured.items()}
    for result in results.values():
        result["wall_ratio"] = result["wall_s"] / results[unit]["wall_s"]
        result["cpu_ratio"] = result["cpu_s"] / max(results[unit]["cpu_s"], 1e-9)
    case = {"kind": kind, "distance": name, "perts": pred.shape[0], "genes": pred.shape[1], "unit": unit}
    case |= {"rounds": len(next(iter(measured.values())).samples), "load": load(), "results": results}
    print(f"P={case['perts']} {name} {kind}:", *(f"{key} {run['wall_s']:.3g} s;" for key, run in results.items()))
    return case


def memory_case(name: str, perts: int, genes: int, dtype: str) -> list[dict[str, Any]]:
    """What each program holds besides inputs and results, from its compiled form."""
    shape: Any = jax.ShapeDtypeStruct
    matrix = shape((perts, genes), dtype)
    screen = vcjax.Profiles(matrix, shape((genes,), dtype), targets=shape((perts,), "int32"))
    options = {"distance": DISTANCES[name]}
    soft = lambda pred, real: jnp.mean(perturbation_discrimination(pred, real, relax=SOFT, **options))
    loss = vcjax.as_loss(CATALOGUE[f"pds_{name}"], relax=SOFT)
    programs = {
        "distances": ("distance", DISTANCES[name], (matrix, matrix)),
        "score of effects": ("score", lambda a, b: perturbation_discrimination(a, b, **options), (matrix, matrix)),
        "soft score of effects, gradient": ("gradient", jax.value_and_grad(soft), (matrix, matrix)),
        "score of profiles": ("score", V2[f"pds_{name}"], (screen, screen)),
        "loss of profiles, gradient": ("gradient", jax.value_and_grad(loss), (matrix, screen)),
    }
    square, rows = perts * perts * np.dtype(dtype).itemsize, []
    for program, (kind, function, args) in programs.items():
        temporary = compiled(function, *args).memory_analysis().temp_size_in_bytes
        rows.append(
            {"distance": name, "perts": perts, "genes": genes, "dtype": dtype, "program": program}
            | {"temp_bytes": temporary, "square_bytes": square, "squares_allowed": ALLOWED[kind]}
            | {"matrix_bytes": perts * genes * np.dtype(dtype).itemsize}
            | {"beyond_bytes": max(0, temporary - ALLOWED[kind] * square)}
        )
    return rows


def run_size(perts: int, genes: int, rounds: int, python: str) -> list[dict[str, Any]]:
    """All timed cases of one number of perturbations."""
    pred, real = effects(perts, genes)
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/pred.npy", pred)
        np.save(f"{folder}/real.npy", real)
        peers = {name: start_peer(python, name, pathlib.Path(folder)) for name in ("cell-eval", "cell-eval2")}
        cases = []
        for name in DISTANCES:
            cases.append(distance_case(name, pred, real, rounds))
            cases.append(score_case(name, pred, real, rounds, peers))
            soft = DTYPES if perts <= DIRECT_LIMIT else ("float32",) if perts <= SOFT_LIMIT else ()
            cases += [soft_case(name, pred, real, rounds, dtype) for dtype in soft]
        for peer in peers.values():
            peer.close()
    return cases


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark and writes `distances.json` and `distances.md`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", required=True, metavar="PYTHON", help="interpreter that has the peers installed")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 300, 1000, 2000], help="numbers of perturbations")
    parser.add_argument("--genes", type=int, default=18080)
    parser.add_argument("--memory-size", type=int, default=1000, help="perturbations of the memory table; none is run")
    parser.add_argument("--rounds", type=int, default=5, help="at most; fewer where a case is slow")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    args = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_platforms", "cpu")
    start = load()
    cases = [case for perts in args.sizes for case in run_size(perts, args.genes, args.rounds, args.peers)]
    memory = [row for name in DISTANCES for d in DTYPES for row in memory_case(name, args.memory_size, args.genes, d)]
    results = {
        "machine": machine(),
        "load": {"start": start, "end": load()},
        "versions": versions(["vcjax", "jax", "jaxlib", "numpy", "scipy", "scikit-learn"]),
        "peers_versions": versions_of(args.peers, ["cell-eval", "cell-eval2", "numpy", "scipy", "scikit-learn"]),
        "settings": {"sizes": args.sizes, "genes": args.genes, "rounds": args.rounds, "budget_s": BUDGET},
        "cases": cases,
        "memory": memory,
    }
    text, targets = distances_report(results)
    write_results("distances", {**results, "targets": targets}, text, args.out)


if __name__ == "__main__":
    main()
