"""The untuned base model's score, once for a study."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from finetune.core.run_dir import StudyDir
from finetune.runner.resources import Resources
from finetune.runner.result import summary
from finetune.runner.run import score_untuned
from finetune.runner.session import Session
from finetune.study.provenance import same_weights
from finetune.study.sharing import Claims

if TYPE_CHECKING:
    from finetune.recipe import ResolvedRecipe, Variant


def before_stages(recipe: ResolvedRecipe, name: str) -> Variant:
    """Give the variant of that name as the recipe has it."""
    return next(each for each in recipe.variants if each.name == name)


@dataclass
class Untuned:
    """Scores the untuned base model of a study's first variant, when it is first asked, and in one process."""

    recipe: ResolvedRecipe
    folder: StudyDir
    resources: Resources
    claims: Claims
    result: dict[str, Any] | None = None

    def scores(self, variant: Variant, session: Session) -> dict[str, float] | None:
        """Give the scores beside which a variant's runs stand; None where they mean nothing, as for a variant with
        another base than the first one's."""
        first = self.recipe.variants[0].recipe
        if variant.recipe.stages:  # what comes before the task is not the base model's
            variant = before_stages(self.recipe, variant.name)
            base = self.resources.base(variant.recipe.model, session.data.task, variant.recipe.compute.attention)
            session = replace(session, recipe=variant.recipe, base=base)
        if session.base.new or not variant.recipe.scoring.base or variant.recipe.model != first.model:
            return None
        if "split" in self.recipe.vary:
            # Every seed is scored on other examples then, and one score of the base could stand beside none of them.
            return None
        if self.result is None:
            with self.claims.alone("base", "scoring the base model"):
                self.result = self._read_or_score(variant, session)
        return dict(self.result["scores"])

    def _read_or_score(self, variant: Variant, session: Session) -> dict[str, Any]:
        known = self.folder.base.read_result()
        if known is not None:
            same_weights(known, session.base.digest, "the untuned base model's score")
            return known
        runtime = session.runtime.at("base model", session.runtime.dtype)
        found = score_untuned(variant, replace(session, runtime=runtime), self.folder.base)
        runtime.progress.say(summary("base model, untuned", found, variant.recipe.task.metrics[0]))
        return found
