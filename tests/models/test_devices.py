"""Where a model's arithmetic runs, and in which type."""

import pytest
import torch

from finetune.core.errors import InputError
from finetune.models import ModelOptions, choose_device


def options(source, **more):
    return ModelOptions(source=str(source), **more)


def refusal(call, *arguments, **keywords):
    with pytest.raises(InputError) as error:
        call(*arguments, **keywords)
    (problem,) = error.value.problems
    return problem


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "mps", "meta", ""])
def test_a_device_that_does_not_exist_is_refused(device):
    problem = refusal(choose_device, options("x", device=device))
    assert problem.path == "model.device" and "cuda:N" in problem.advice


def test_a_cuda_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "sees no CUDA device" in refusal(choose_device, options("x", device="cuda")).found
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert "there are 2 CUDA devices" in refusal(choose_device, options("x", device="cuda:2")).found
    assert choose_device(options("x", device="cuda:1")) == torch.device("cuda", 1)


def test_each_process_of_a_launcher_has_its_own_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_device(options("x")) == torch.device("cuda", 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(options("x")) == torch.device("cpu")


def test_a_cuda_device_has_a_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_device(options("x", device="cuda")) == torch.device("cuda", 3)
