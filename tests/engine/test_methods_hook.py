"""When a training calls a method, and what becomes of its losses and its state."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import toy_method
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.runner import get_priority
from torch import distributed, nn

from sparsevit.engine.hooks import MethodsHook, RandomSparsityHook


class Model(BaseModel):
    """A loss of 1, so that all else is of the method; ``fc`` takes no part in a forward."""

    def __init__(self):
        super().__init__()
        self.backbone = toy_method.ToyBackbone((2, 2, 2, 2))
        self.fc = nn.Linear(2, 2)
        self.times = 1.0

    def forward(self, inputs, mode):
        maps = self.backbone(inputs)
        return {"loss_task": self.times * maps[0].mean()} if mode == "loss" else maps


class Method(toy_method.Toy):
    """Its loss is of what the forward does not use, and it notes the steps taken."""

    def __init__(self, model):
        super().__init__(model)
        self.taken = []

    def extra_loss(self):
        return {"fc": self.model.fc.weight.square().sum()}

    def after_optimizer_step(self, step, optimizer):
        assert any(p.grad is not None for group in optimizer.param_groups for p in group["params"])
        self.taken.append(step)


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(toy_method.ToyBackbone, "sparsity_method", Method)
    return Model()


def runner_of(model, wrapper, **more):
    return SimpleNamespace(
        model=model, optim_wrapper=wrapper, iter=0, max_iters=8, seed=0, _resume=False, **more
    )


def run(runner, iterations=4):
    hook = MethodsHook(seed=0)
    hook.before_train(runner)
    logged = []
    for runner.iter in range(iterations):
        hook.before_train_iter(runner, runner.iter)
        data = {"inputs": torch.randn(1, 3, 64, 64)}
        logged.append(runner.model.train_step(data, runner.optim_wrapper))
    return hook, logged


def sgd(model, **how):
    return torch.optim.SGD(model.parameters(), lr=0.1, **how)


def test_its_losses_are_logged_summed_and_reach_the_optimiser(model):
    before = model.fc.weight.detach().clone()
    _, logged = run(runner_of(model, OptimWrapper(sgd(model))), 1)
    assert logged[0]["loss_toy_fc"] == before.square().sum()
    assert logged[0]["loss"] == logged[0]["loss_task"] + logged[0]["loss_toy_fc"]
    torch.testing.assert_close(model.fc.weight, before - 0.1 * 2 * before)


def test_other_forwards_than_those_of_training_are_left_alone(model):
    run(runner_of(model, OptimWrapper(sgd(model))), 1)
    inputs = torch.randn(1, 3, 64, 64)
    assert isinstance(model(inputs, mode="tensor"), tuple)
    assert set(model.eval()(inputs, mode="loss")) == {"loss_task"}


def test_accumulated_gradients_are_one_step(model):
    wrapper = OptimWrapper(sgd(model), accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 4)
    hook, _ = run(runner_of(model, wrapper))
    assert hook.methods[0].seen == [0, 1, 2, 3]
    assert hook.methods[0].taken == [1, 3]


@pytest.mark.parametrize("fused", [False, True])
def test_an_overflow_of_mixed_precision_is_no_step(model, fused):
    optimizer, scaler = sgd(model, fused=fused), torch.amp.GradScaler("cpu")
    runner = runner_of(model, OptimWrapper(optimizer))
    hook, _ = run(runner, 0)
    for runner.iter, model.times in enumerate((1.0, float("inf"), 1.0)):
        losses = model(torch.randn(1, 3, 64, 64), mode="loss")
        scaler.scale(sum(losses.values())).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert hook.methods[0].taken == [0, 2]


def test_losses_of_what_the_forward_leaves_out_train_in_several_processes_too(model, tmp_path):
    before = model.fc.weight.detach().clone()
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        wrapped = MMDistributedDataParallel(
            model, find_unused_parameters=True, broadcast_buffers=False
        )
        hook, logged = run(runner_of(wrapped, OptimWrapper(sgd(model))), 2)
    finally:
        distributed.destroy_process_group()
    assert hook.methods[0].taken == [0, 1]
    assert all("loss_toy_fc" in row for row in logged)
    torch.testing.assert_close(model.fc.weight, before * 0.8**2)


def test_a_second_training_of_a_model_calls_its_methods_once(model):
    wrapper = OptimWrapper(sgd(model))
    for _ in range(2):
        hook, logged = run(runner_of(model, wrapper), 2)
        hook.after_train(None)
    assert hook.methods[0].taken == [0, 1]
    assert not model._forward_hooks
    assert "loss_toy_fc" in logged[0]


def test_a_method_finds_the_configuration_of_the_iteration_set():
    # mmengine calls hooks of a lower number first
    first, then = (get_priority(hook.priority) for hook in (RandomSparsityHook, MethodsHook))
    assert first < then


def test_state_comes_back_on_resume_alone(model):
    wrapper = OptimWrapper(sgd(model))
    hook, checkpoint = MethodsHook(seed=0), {}
    hook.before_train(runner_of(model, wrapper))
    hook.methods[0].steps = 5
    hook.before_save_checkpoint(None, checkpoint)
    assert checkpoint["sparsity"]["toy"]["steps"] == 5
    for resumed in (True, False):
        runner = runner_of(model, wrapper)
        runner._resume = resumed
        hook = MethodsHook(seed=0)
        hook.after_load_checkpoint(runner, checkpoint)
        hook.before_train(runner)
        assert hook.methods[0].steps == (5 if resumed else 0)
        assert hook.methods[0].iterations == 8


def test_methods_without_state_leave_a_checkpoint_as_it_was(model, monkeypatch):
    monkeypatch.setattr(Method, "state_dict", lambda self: {})
    hook, checkpoint = MethodsHook(seed=0), {"state_dict": {}}
    hook.before_train(runner_of(model, OptimWrapper(sgd(model))))
    hook.before_save_checkpoint(None, checkpoint)
    assert checkpoint == {"state_dict": {}}
