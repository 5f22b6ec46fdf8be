"""From a recipe file to its variants: read, extend, override, validate, resolve, digest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from finetune.core.compute import ComputeOptions
from finetune.core.errors import InputError, Problem, did_you_mean
from finetune.core.randomness import Streams
from finetune.recipe.evaluation import completed
from finetune.recipe.explain import Mistake, describe
from finetune.recipe.files import UNNAMED, Source, read, read_mapping, read_text
from finetune.recipe.idle import idle_steps
from finetune.recipe.options import NAME, STUDY_KEYS, Recipe, SeedsUntil
from finetune.recipe.overrides import Override, apply, parse_overrides
from finetune.recipe.paths import anchored
from finetune.recipe.private import private
from finetune.recipe.tree import COMMAND_LINE, Node, Origin, dotted, merge, shown
from finetune.recipe.validate import by_place, check, located, problems_of
from finetune.recipe.yaml_text import dump

RESERVED = frozenset(
    {"base", "baselines", "examples", "launch", "mlflow", "report", "stages", "tensorboard", "wandb"}
    | {"recipe.yaml", "resolved.yaml", "environment.json", "data.json", "speed.json", "diagnosis.json"}
)
"""Names of other things in a study's folder."""

RESCORING_KEYS = ("evaluate", "lm_eval", "scoring", "baselines", "mix", "tracking")
"""What may be changed about runs that are already trained."""


@dataclass(frozen=True)
class Variant:
    """One variant: its complete recipe, and a digest that changes when any of its options does."""

    name: str
    recipe: Recipe
    digest: str


@dataclass(frozen=True)
class ResolvedRecipe:
    """A valid recipe with everything filled in: what a study runs."""

    path: Path
    name: str
    seeds: list[int]
    """Every seed that may run: all of them do, unless there is a rule."""
    until: SeedsUntil | None
    """The rule by which seeds are added, where there is one."""
    vary: frozenset[str]
    variants: list[Variant]
    digest: str
    text: str
    """The recipe file as it was written."""
    shared: Node = field(repr=False)
    """What was written for all variants."""
    trees: Mapping[str, Node] = field(repr=False)
    """What was written for each variant, laid over what they share."""
    source: Source = field(default=UNNAMED, repr=False)
    """What it was read from."""
    crossed: bool = False
    """Whether this is a crossed design, whose seeds spell those of the streams."""

    @property
    def mix(self) -> frozenset[str]:
        """Give the names of what may differ between runs of the study."""
        return frozenset(self.variants[0].recipe.mix)

    def streams(self, seed: int) -> Streams:
        """The random streams of the runs under ``seed``."""
        return Streams.spelled(seed) if self.crossed else Streams(seed, self.vary)

    def again(self, overrides: Sequence[str]) -> ResolvedRecipe:
        """Read the recipe again, with other ``overrides``."""
        return load(self.source, overrides)

    def locate(self, dotted_path: str, variant: str | None = None, exact: bool = False) -> str | None:
        """``file:line`` or ``command line``: where the value at ``dotted_path`` was set.

        A value that was not set takes the place of the section around it, so that an error still says where to
        look; None when that section is not written either. ``exact``: None for every value that was not set.
        """
        keys = dotted_path.split(".")
        if variant is None and keys[0] == "variants" and len(keys) > 1 and keys[1] in self.trees:
            variant, keys = keys[1], keys[2:]
        tree = self.trees.get(variant or "", self.shared)
        node = tree.find(keys) if exact else tree.nearest(keys)
        return None if node is None or node is tree else node.origin.where

    def to_yaml(self) -> str:
        """The text of ``resolved.yaml``: every value of every variant, paths absolute."""
        variants = {
            variant.name: {
                "digest": variant.digest,
                "recipe": variant.recipe.model_dump(mode="json", exclude=set(STUDY_KEYS)),
            }
            for variant in self.variants
        }
        seeds = self.seeds if self.until is None else self.until.model_dump(mode="json")
        study = {"name": self.name, "digest": self.digest, "seeds": seeds, "vary": sorted(self.vary)}
        mix = {"mix": sorted(self.mix)} if self.mix else {}
        mix |= {"silence": silent} if (silent := self.variants[0].recipe.silence) else {}
        study |= {"baselines": self.variants[0].recipe.baselines.model_dump(mode="json"), **mix}
        return dump({**study, **({"crossed": True} if self.crossed else {}), "variants": variants})


def load(source: Source, overrides: Sequence[str] = ()) -> ResolvedRecipe:
    """Read and resolve a recipe: a file by its path, its YAML text (of more than one line), or a mapping like it.

    Overrides have the last word: ``train.epochs=1`` also wins over variants that set ``train.epochs``, and
    ``variants.lora.train.epochs=2`` over that, for the one variant.

    Raises:
        InputError: with every problem, ordered by file and line; those of a mapping by their path alone.
    """
    written_as = read(source)
    path, root, problems = written_as.path, written_as.root, written_as.problems
    assignments, wrong = parse_overrides(overrides)
    problems += wrong
    written = _variant_names(root)
    for override in assignments:
        if override.variant is not None and override.variant not in written:
            found = f"there is no variant called '{override.variant}'"
            problems.append(
                Problem(found, did_you_mean(override.variant, written), dotted(override.keys), COMMAND_LINE)
            )
    assignments = [o for o in assignments if o.variant is None or o.variant in written]
    root = apply(root, assignments, problems)
    if root.child("name") is None:
        root = merge(Node({"name": Node(path.stem, Origin(shown(path)))}, root.origin), root)
    shared, trees = _spread(root, assignments, problems)
    resolved = replace(_resolve(path, written_as.text, shared, trees, problems), source=source)
    if idle := list(
        idle_steps(path, shared, resolved.trees, {variant.name: variant.recipe for variant in resolved.variants})
    ):
        raise InputError(sorted(idle, key=by_place))
    return resolved


def _variant_names(root: Node) -> list[str]:
    variants = root.child("variants")
    return list(variants.children()) if variants is not None else []


def _spread(root: Node, overrides: list[Override], problems: list[Problem]) -> tuple[Node, dict[str, Node]]:
    """Split the tree into what the variants share, and the tree of each one (none when the recipe has no variants)."""
    shared, variants = root.without("variants"), root.child("variants")
    if variants is None or variants.content is None:
        return shared, {}
    if not variants.is_mapping:
        found = f"is {describe(variants.plain())}; it must be a section"
        problems.append(Problem(found, "write variants: {name: {...}, ...}", "variants", variants.origin.where))
        return shared, {}
    problems += _bad_names(variants)
    ignored: list[Problem] = []  # an override that fits no list has been reported for the recipe already
    trees = {}
    for name, said in variants.children().items():
        if not (said.is_mapping or said.content is None):
            found = f"is {describe(said.plain())}; it must be a section with what differs in this variant"
            problems.append(
                Problem(found, f"write {name}: {{}} to change nothing", f"variants.{name}", said.origin.where)
            )
        problems += _study_keys(name, said)
        tree = merge(shared, Node(said.without(*STUDY_KEYS, "variants", "extends").children(), said.origin))
        tree = apply(tree, [override for override in overrides if override.keys[0] != "variants"], ignored)
        # An override of the variant as a whole has changed what it says already.
        own = [override.inner for override in overrides if override.variant == name and override.inner.keys]
        trees[name] = apply(tree, own, ignored)
    return shared, trees


def _bad_names(variants: Node) -> list[Problem]:
    problems = []
    lowered: dict[str, str] = {}
    for name, said in variants.children().items():
        advice = "choose another name; it becomes a folder"
        if not re.fullmatch(NAME, name):
            found = f"'{name}' cannot be a variant's name"
            advice = "begin with a letter or digit, and use only letters, digits, '_', '.' and '-', at most 200 in all"
        elif name.lower() in RESERVED:
            found = f"a variant cannot be called '{name}'; finetune keeps its own files under this name"
        elif name.lower() in lowered:
            found = f"'{name}' and '{lowered[name.lower()]}' differ in upper and lower case only"
        else:
            lowered[name.lower()] = name
            continue
        problems.append(Problem(found, advice, f"variants.{name}", said.origin.where))
    return problems


def _study_keys(name: str, said: Node) -> list[Problem]:
    return [
        Problem(
            f"a variant cannot set '{key}'", "set it for the whole recipe", f"variants.{name}.{key}", node.origin.where
        )
        for key, node in said.children().items()
        if key in (*STUDY_KEYS, "variants", "extends")
    ]


def _resolve(path: Path, text: str, shared: Node, trees: dict[str, Node], problems: list[Problem]) -> ResolvedRecipe:
    """Validate the recipe and its variants together, and fill them in."""
    shared, trees = completed(shared), {name: completed(tree) for name, tree in trees.items()}
    if trees:
        checked = {name: check(tree) for name, tree in trees.items()}
        results: dict[str, tuple[Node, list[Mistake]]] = {n: (trees[n], wrong) for n, (_, wrong) in checked.items()}
        problems += problems_of(shared, results)
        recipes = {name: recipe for name, (recipe, _) in checked.items() if recipe}
    else:
        recipe, mistakes = check(shared)
        problems += located(shared, mistakes)
        recipes = {recipe.strategy.type: recipe} if recipe else {}
        trees = {name: shared for name in recipes}
    problems += [*_baselines(recipes, trees), *private([shared, *trees.values()])]
    if problems:
        raise InputError(sorted(problems, key=by_place))
    variants = [Variant(name, anchored(said, trees[name]), digest_of(said)) for name, said in recipes.items()]
    study = variants[0].recipe
    said = study.seeds
    seeds, until = (list(range(said.at_most)), said) if isinstance(said, SeedsUntil) else (said, None)
    return ResolvedRecipe(
        path=path,
        name=study.name,
        seeds=seeds,
        until=until,
        vary=frozenset(study.vary),
        variants=variants,
        digest=_digest({"name": study.name, "variants": {variant.name: variant.digest for variant in variants}}),
        text=text,
        shared=shared,
        trees=trees,
    )


def _baselines(recipes: Mapping[str, Recipe], trees: Mapping[str, Node]) -> Iterator[Problem]:
    """Refuse baselines that are none of the variants, or not the same for all: there is one for the study."""
    told = set()
    first = next(iter(recipes.values()), None)
    for name, recipe in recipes.items():
        baseline, node = recipe.scoring.baseline, trees[name].nearest(("scoring", "baseline"))
        where = node.origin.where
        if baseline not in (None, *recipes):
            found, advice = f"there is no variant called '{baseline}'", did_you_mean(str(baseline), list(recipes))
        elif first is not None and baseline != first.scoring.baseline:
            found, advice = "is not the same for all variants", "say it once, outside `variants`"
        else:
            continue
        if where not in told:
            told.add(where)
            yield Problem(found, advice, "scoring.baseline", where)


def digest_of(recipe: Recipe) -> str:
    """16 hex digits over every option of a variant that decides its scores, with paths as they are written.

    The study's name and the list of seeds are left out: the same variant under more seeds is the same variant. Without
    tasks of the harness, or arithmetic other than usual, it is the digest that it was before there were such.
    """
    usual = recipe.compute.identifying() == ComputeOptions().identifying()
    left_out = ("name", "seeds", *([] if recipe.lm_eval else ["lm_eval"]), *(["compute"] if usual else []))
    return _digest({key: value for key, value in recipe.identifying().items() if key not in left_out})


def _digest(content: Any) -> str:
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def read_resolved(path: Path, overrides: Sequence[str] = ()) -> ResolvedRecipe:
    """The variants back from a study's ``resolved.yaml``, with the digests they were trained under.

    ``overrides`` may change only how trained runs are scored (:data:`RESCORING_KEYS`), for all variants or for one.
    """
    path = Path(path)
    text = read_text(path)
    root, problems = read_mapping(path, text, None)
    assignments, wrong = parse_overrides(overrides)
    problems += wrong + [problem for override in assignments if (problem := _not_rescoring(override, root))]
    study = {key: node for key, node in root.children().items() if key in STUDY_KEYS}
    entries = root.child("variants")
    trees, digests = {}, {}
    for name, entry in entries.children().items() if entries else ():
        said, digest = entry.child("recipe"), entry.child("digest")
        if said is None or digest is None:
            raise InputError(
                Problem("this variant is incomplete", "run the recipe again", f"variants.{name}", entry.origin.where)
            )
        tree = merge(Node(study, root.origin), said)
        own = [o.inner for o in assignments if o.variant == name and o.inner.keys]
        trees[name] = apply(tree, [*(o for o in assignments if o.variant is None), *own], problems)
        digests[name] = str(digest.content)
    digest = root.child("digest")
    if not trees or digest is None:
        raise InputError(Problem(f"{shown(path)} is not the resolved recipe of a study", "name a study's folder"))
    resolved = _resolve(path, text, Node(study, root.origin), trees, problems)
    variants = [Variant(v.name, v.recipe, digests[v.name]) for v in resolved.variants]
    kept = {"variants": variants, "digest": str(digest.content), "crossed": root.child("crossed") is not None}
    return ResolvedRecipe(**{**vars(resolved), **kept})


def _not_rescoring(override: Override, root: Node) -> Problem | None:
    keys = override.inner.keys
    names = _variant_names(root)
    if override.variant is not None and override.variant not in names:
        found = f"there is no variant called '{override.variant}'"
        return Problem(found, did_you_mean(override.variant, names), dotted(override.keys), COMMAND_LINE)
    if not keys or keys[0] not in RESCORING_KEYS:
        advice = f"only {', '.join(RESCORING_KEYS)} can be; for anything else, run the recipe again"
        return Problem("cannot be changed after training", advice, dotted(override.keys), COMMAND_LINE)
    return None
