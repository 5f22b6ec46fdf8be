"""Studies to read, without training."""

from tests.fabricated import fabricator, make, study
from tests.results.stores import alike, combine, pets, shifted, sure, three_sets, trained

__all__ = ["alike", "combine", "fabricator", "make", "pets", "shifted", "study", "sure", "three_sets", "trained"]
