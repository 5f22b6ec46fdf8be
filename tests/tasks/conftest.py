"""A way to look at the one problem that a task refuses its data with."""

import pytest

from finetune.core.errors import InputError


@pytest.fixture
def refusal():
    def refused(call, *arguments, **keywords):
        with pytest.raises(InputError) as error:
            call(*arguments, **keywords)
        (problem,) = error.value.problems
        return problem

    return refused
