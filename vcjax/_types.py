"""The argument types that all metrics share."""

from jaxtyping import ArrayLike, Bool, Real


PertsGenes = Real[ArrayLike, "perts genes"]
GeneWeights = Real[ArrayLike, " genes"] | Real[ArrayLike, "perts genes"] | None
GeneMask = Bool[ArrayLike, " genes"] | Bool[ArrayLike, "perts genes"] | None
Reference = Real[ArrayLike, " genes"] | Real[ArrayLike, "perts genes"] | None
