"""The metrics of differential expression by their definitions, one gene after the other, without array code."""

import math

import numpy as np
import scipy.stats


TOPS = (None, 50, 100, 200, 500)


class Side:
    """One row of a table as dictionaries over the genes it holds."""

    def __init__(self, table, p, *, single=False):
        genes = np.flatnonzero(np.asarray(table.tested)[p])
        change = np.asarray(table.log2_fold_change, np.float32 if single else None)[p].astype(float)
        with np.errstate(under="ignore"):
            padj = np.exp(np.asarray(table.log_padj)[p])
            padj = padj.astype(np.float32).astype(float) if single else padj
        self.single = single
        self.change = {g: change[g] for g in genes}
        self.padj = {g: padj[g] for g in genes}
        self.log_padj = {g: float(np.asarray(table.log_padj)[p, g]) for g in genes}
        self.log_p = {g: float(np.asarray(table.log_pvalue)[p, g]) for g in genes}
        order = np.arange(padj.size) if table.name_order is None else np.asarray(table.name_order)
        self.name = {g: order[g] for g in genes}
        level = np.float32(0.05) if single else 0.05
        self.called = [g for g in genes if self.padj[g] < level and not math.isclose(self.padj[g], 0.05, rel_tol=1e-9)]

    def size(self, g):
        return -1.0 if math.isnan(self.change[g]) else abs(self.change[g])

    def top(self, k, ties):
        """Membership of the k first of the list, as a dictionary."""
        ranked = sorted(self.called, key=lambda g: (-self.size(g), g))
        if ties == "position" or k >= len(ranked) or k == 0:
            return dict.fromkeys(ranked[:k], 1.0)
        last = self.size(ranked[k - 1])
        inside = [g for g in ranked if self.size(g) > last]
        tied = [g for g in ranked if self.size(g) == last]
        return dict.fromkeys(inside, 1.0) | dict.fromkeys(tied, (k - len(inside)) / len(tied))


def agreement(pred, real, k, ties):
    if k == 0:
        return 0.0
    left, right = pred.top(k, ties), real.top(k, ties)
    return sum(left[g] * right.get(g, 0.0) for g in left) / k


def matthews(both, a, b, universe):
    if min(a, b, universe - a, universe - b) <= 0:
        return math.nan
    return (both * universe - a * b) / math.sqrt(a * b * (universe - a) * (universe - b))


def set_metrics(pred, real, ties):
    s, t = set(real.called), set(pred.called)
    universe = len(set(pred.padj) | set(real.padj))
    a, b, both = len(s), len(t), len(s & t)
    first = pred.top(a, ties)
    values = {
        "nsig_counts_real": a,
        "nsig_counts_pred": b,
        "sig_recall": both / a if a else math.nan,
        "sig_recall_adjusted": both / a - (b - both) / (universe - a) if 0 < a < universe else math.nan,
        "precision_adjusted": both / b - (a - both) / (universe - b) if 0 < b < universe else math.nan,
        "sig_mcc": matthews(both, a, b, universe),
        "overlap_adjusted": matthews(sum(first.get(g, 0) for g in s), a, min(a, b), universe),
    }
    for k in TOPS:
        suffix = "" if k is None else f"_top{k}"
        values[f"overlap{suffix}"] = agreement(pred, real, min(a, k or a), ties)
        values[f"precision{suffix}"] = agreement(pred, real, min(b, k or b), ties)
    return values


def jaccard(pred, real, own):
    s, t = set(real.called) - {own}, set(pred.called) - {own}
    return len(s & t) / len(s | t) if s | t else 1.0


def ranking_metrics(pred, real, floor, smallest):
    score = {}
    for g in real.padj:
        q = pred.log_padj.get(g, 0.0)
        q = 0.0 if math.isnan(q) else q
        if pred.single and g in pred.padj and not math.isnan(pred.padj[g]):
            q = math.log(pred.padj[g]) if pred.padj[g] > 0 else -math.inf
        if floor == "min_nonzero" and q < math.log(5e-324):
            q = smallest
        if floor == "clip":
            q = max(q, math.log(1e-10))
        score[g] = -q
    positive = [g for g in score if g in set(real.called)]
    negative = [g for g in score if g not in set(real.called)]
    if not positive or not negative:
        return {"pr_auc": math.nan, "roc_auc": math.nan}
    precision = [
        sum(score[h] >= score[g] for h in positive) / sum(score[h] >= score[g] for h in score) for g in positive
    ]
    wins = [(score[g] > score[h]) + 0.5 * (score[g] == score[h]) for g in positive for h in negative]
    return {"pr_auc": sum(precision) / len(precision), "roc_auc": sum(wins) / len(wins)}


def rank_correlation(x, y):
    if len(x) < 2 or any(map(math.isnan, [*x, *y])) or len(set(x)) == 1 or len(set(y)) == 1:
        return math.nan
    return float(np.corrcoef(scipy.stats.rankdata(x), scipy.stats.rankdata(y))[0, 1])


def fold_change_metrics(pred, real, own, unknown):
    values = {}
    for suffix, keep in (("", lambda f: True), ("_pos", lambda f: f > 0), ("_neg", lambda f: f < 0)):
        genes = [g for g in real.called if keep(real.change[g])]
        x, y = [pred.change.get(g, 0.0) for g in genes], [real.change[g] for g in genes]
        if unknown == "largest":
            x = [1e301 if math.isnan(f) else max(-1e300, min(1e300, f)) for f in x]
        values[f"lfc_spearman{suffix}"] = rank_correlation(x, y)
    genes = [g for g in real.called if math.isfinite(real.change[g]) and g != own]
    finite = lambda f: f if math.isfinite(f) else 0.0
    total = sum(abs(real.change[g]) for g in genes)
    error = sum(abs(finite(pred.change.get(g, 0.0)) - real.change[g]) for g in genes)
    values["lfc_nmae"] = error / total if len(genes) >= 10 and total > 0 else math.nan
    return values


def sign(f):
    return math.nan if math.isnan(f) else float(np.sign(f))


def same(f, g):
    return sign(f) == sign(g) or (math.isnan(f) and math.isnan(g))


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else math.nan


def has_direction(f):
    return not math.isnan(f) and f != 0


def deepest(pred, real, pool, purity):
    last = lambda x: math.inf if math.isnan(x) else x
    genes = sorted(
        (g for g in pool if g in pred.padj),
        key=lambda g: (
            g not in pred.called,
            last(pred.log_padj[g]),
            last(pred.log_p[g]),
            last(-abs(pred.change[g])),
            pred.name[g],
        ),
    )
    depth = right = best = 0
    for g in genes:
        if has_direction(real.change[g]):
            depth += 1
            right += sign(pred.change[g]) == sign(real.change[g])
            if right / depth >= purity:
                best = depth
    return best


def direction_metrics(pred, real, own):
    shared = set(pred.padj) & set(real.padj)
    values = {
        "direction_match": mean(same(real.change[g], pred.change[g]) for g in real.called if g in shared),
        "model_direction_match": mean(same(real.change[g], pred.change[g]) for g in pred.called if g in shared),
        "direction_sensitivity": math.nan,
        "direction_sensitivity_universe": math.nan,
    }
    judged = [g for g in pred.called if g in shared and has_direction(real.change[g])]
    values["direction_precision"] = mean(sign(pred.change[g]) == sign(real.change[g]) for g in judged)
    if real.called:
        values["direction_sensitivity"] = deepest(pred, real, real.called, 0.975) / len(real.called)
        values["direction_sensitivity_universe"] = deepest(pred, real, shared, 0.975) / len(real.called)
    return values | {f"direction_{name}": value for name, value in without_own(pred, real, own, shared - {own}).items()}


def without_own(pred, real, own, shared):
    s = [g for g in real.called if g != own]
    judged = [g for g in pred.called if g in shared and has_direction(real.change[g])]
    big, n = len(s), len(judged)
    k = sum(sign(pred.change[g]) == sign(real.change[g]) for g in judged)
    up = sum(real.change[g] > 0 for g in s if has_direction(real.change[g]))
    pointed = sum(has_direction(real.change[g]) for g in s)
    q = max(up, pointed - up) / pointed if pointed else math.nan
    d = max(1 - q, 0.05)
    values: dict[str, float] = dict.fromkeys(("coverage", "yield", "yield_raw"), math.nan)
    reaches = ("reach", "reach_raw", "reach_unbounded", "reach_unbounded_raw")
    values |= dict.fromkeys(reaches, math.nan)
    values["fidelity_raw"] = k / n if n else math.nan
    values["fidelity_yield_raw"] = k / max(n, big) if max(n, big) else math.nan
    if not big:
        return values | dict.fromkeys(("fidelity", "fidelity_yield"), 0.0 if n else 1.0)
    values["fidelity"] = (k / n - q) / d if n else math.nan
    values["fidelity_yield"] = min(1, n / big) * (k / n - q) / d if n else q * 0
    values["coverage"], values["yield_raw"], values["yield"] = n / big, k / big, (k - q * n) / (big * d)
    for name, pool in (("reach", s), ("reach_unbounded", shared)):
        raw = deepest(pred, real, pool, 0.9)
        adjusted = deepest(pred, real, pool, q + 0.95 * (1 - q)) if pointed else 0
        values[f"{name}_raw"] = raw / big
        values[name] = adjusted / big if pointed else math.nan
    return values


def metrics_of(pred, real, own, *, ties, floor="none", smallest=math.nan, unknown="undefined"):
    """All per-perturbation metrics of two `Side`s by the end of their names, undefined as NaN."""
    return (
        set_metrics(pred, real, ties)
        | {"sig_jaccard": jaccard(pred, real, own)}
        | ranking_metrics(pred, real, floor, smallest)
        | fold_change_metrics(pred, real, own, unknown)
        | direction_metrics(pred, real, own)
    )


def gated(values, pred, real):
    """The values by the rule of cell-eval2: NaN outside a metric's gate, the worst value for none inside."""
    a, values = len(real.called), dict(values)
    two = a >= 10 and a < len(real.padj)
    changes = lambda keep: [real.change[g] for g in real.called if keep(real.change[g])]
    rankable = lambda keep: len(changes(keep)) >= 10 and len({f for f in changes(keep) if not math.isnan(f)}) > 1
    for name, inside, worst in (
        ("sig_recall", a >= 10, None),
        ("direction_match", a >= 10, 0.0),
        ("direction_sensitivity", a >= 10, None),
        ("direction_sensitivity_universe", a >= 10, None),
        ("sig_recall_adjusted", two, -1.0),
        ("sig_mcc", two, -1.0),
        ("overlap_adjusted", two, -1.0),
        ("precision_adjusted", True, -1.0),
        ("pr_auc", two, None),
        ("roc_auc", two, None),
        ("lfc_spearman", rankable(lambda f: True), -1.0),
        ("lfc_spearman_pos", rankable(lambda f: f > 0), -1.0),
        ("lfc_spearman_neg", rankable(lambda f: f < 0), -1.0),
        ("direction_precision", sum(has_direction(f) for f in real.change.values()) >= 10, 0.0),
        ("model_direction_match", sum(not math.isnan(f) for f in real.change.values()) >= 10, 0.0),
    ):
        if not inside:
            values[name] = math.nan
        elif math.isnan(values[name]) and worst is not None:
            values[name] = worst
    return values
