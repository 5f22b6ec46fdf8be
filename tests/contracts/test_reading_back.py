"""Options are the same when they are read back with everything said, as a study reads its `resolved.yaml`."""

import json

import pytest

from finetune.core.registry import MITIGATIONS, STRATEGIES, TASKS
from tests.contracts.battery import plugin
from tests.examples import examples_of

EVERY = [(registry, example) for registry in (TASKS, STRATEGIES, MITIGATIONS) for example in examples_of(registry)]


@pytest.mark.parametrize("registry, example", EVERY, ids=[f"{each.kind}-{example}" for each, example in EVERY])
def test_options_that_say_all_are_what_they_were(registry, example):
    said = plugin(registry, example).options
    assert type(said).model_validate(json.loads(said.model_dump_json())) == said
