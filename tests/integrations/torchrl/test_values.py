"""TorchRL's value estimators with a recurrent critic, against a plain recursion in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import Tensor
from torchrl.modules import set_recurrent_mode
from torchrl.objectives.value import GAE

from srwm_agents.integrations.torchrl import SRWMModule

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
GAMMA, LAMBDA = 0.9375, 0.875  # float32, in which TorchRL keeps them, holds both exactly
SMALL: dict[str, Any] = {"input_size": 5, "hidden_size": 8, "num_layers": 1, "num_heads": 2, "ff_size": 16}
BATCH, STEPS = 4, 12

# How each row's episodes end: T terminated, C cut off (truncated), "." not at all.
EPISODES = ["...T....C...", ".C.....C....", ".....T.....C", "............"]
AFTER_ONE_STEP = ["...T....C..T", "..TC........", "..........C.", "............"]
"""Row 1 has an episode of one step that is cut off, row 2 a last step that is an episode's first."""


def make_critic() -> Any:
    torch.manual_seed(0)
    memory = SRWMModule("srwm", in_key="observation", out_key="embed", **SMALL).double()
    head = TensorDictModule(torch.nn.Linear(8, 1).double(), in_keys=["embed"], out_keys=["state_value"])
    modules: list[Any] = [memory, head]
    return TensorDictSequential(*modules).to(DEVICE)


def make_rollouts(episodes: list[str], state_size: int) -> Any:
    """Rollouts [4, 12] as collectors return them: at an episode's end "next" has its own last observation."""
    g = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(BATCH, STEPS, *shape, generator=g, dtype=torch.float64)

    terminated, truncated = (torch.tensor([[e == end for e in row] for row in episodes])[..., None] for end in "TC")
    done = terminated | truncated
    observation, last = normal(5), normal(5)
    last[:, :-1] = torch.where(done[:, :-1], last[:, :-1], observation[:, 1:])
    state = 0.2 * normal(state_size)
    is_init = torch.cat([torch.tensor([[False], [False], [False], [True]])[..., None], done[:, :-1]], dim=1)
    following = {
        **{"observation": last, "is_init": torch.zeros_like(is_init), "recurrent_state": state.roll(-1, 1)},
        **{"reward": normal(1), "done": done, "terminated": terminated, "truncated": truncated},
    }
    entries = {"observation": observation, "is_init": is_init, "recurrent_state": state, "next": following}
    names: Any = [None, "time"]
    return TensorDict(entries, [BATCH, STEPS], names=names).to(DEVICE)


@torch.no_grad()
def plain_advantages(critic: Any, data: Any) -> Tensor:
    """[B, T], from the definition: one memory that sees each observation of an episode once, in order."""
    core, head = critic[0].core, critic[1].module
    values, next_values, advantages = (torch.zeros(BATCH, STEPS).to(data["observation"]) for _ in range(3))
    state = data["recurrent_state"][:, 0]
    for t in range(STEPS):
        out, state = core(data["observation"][:, t, None], state, data["is_init"][:, t])
        values[:, t] = head(out)[:, 0, 0]
        out, _ = core(data["next", "observation"][:, t, None], state)
        next_values[:, t] = head(out)[:, 0, 0]
    reward, done, terminated = (data["next", name].squeeze(-1) for name in ("reward", "done", "terminated"))
    advantage = torch.zeros(BATCH).to(reward)
    for t in reversed(range(STEPS)):
        delta = reward[:, t] + GAMMA * next_values[:, t] * ~terminated[:, t] - values[:, t]
        advantage = delta + GAMMA * LAMBDA * advantage * ~done[:, t]
        advantages[:, t] = advantage
    return advantages


def advantages_of(critic: Any, data: Any, **settings: Any) -> Tensor:
    with set_recurrent_mode(True):
        estimated = GAE(gamma=GAMMA, lmbda=LAMBDA, value_network=critic, device=DEVICE, **settings)(data.clone())
    return estimated["advantage"].squeeze(-1)


def test_gae_is_exact_with_a_slot_for_each_end() -> None:
    critic = make_critic()
    data = make_rollouts(EPISODES, critic[0].core.state_size)
    true = plain_advantages(critic, data)
    slots = 1 + int(data["next", "done"].sum(1).max())
    exact = advantages_of(critic, data, shifted=True, shifted_budget=slots)
    torch.testing.assert_close(exact, true, rtol=1e-9, atol=1e-9)
    # What the documentation says of the other settings.
    assert (advantages_of(critic, data) - true).abs().max() > 1e-2
    assert (advantages_of(critic, data, shifted=True) - true).abs().max() > 1e-2


def test_where_gae_forgets_the_first_step() -> None:
    """TorchRL (0.14.1) resets the memory before what follows an episode's first step, if that is cut off there."""
    critic = make_critic()
    data = make_rollouts(AFTER_ONE_STEP, critic[0].core.state_size)
    true = plain_advantages(critic, data)
    slots = 1 + int(data["next", "done"].sum(1).max())
    off = (advantages_of(critic, data, shifted=True, shifted_budget=slots) - true).abs() > 1e-6
    assert off.nonzero().tolist() == [[1, 3], [2, 11]]


@pytest.mark.parametrize("shifted", [True, False])
def test_estimators_map_over_the_module(shifted) -> None:
    """Without ``shifted`` TorchRL calls ``vmap`` over the observations and the next ones."""
    critic = make_critic()
    data = make_rollouts(EPISODES, critic[0].core.state_size)
    mapped, looped = (
        advantages_of(critic, data, shifted=shifted, deactivate_vmap=deactivate) for deactivate in (False, True)
    )
    torch.testing.assert_close(mapped, looped, rtol=1e-9, atol=1e-9)


def test_estimators_map_over_an_lstm_core() -> None:
    """PyTorch maps no LSTM; the op that stands in its place where there are resets is mapped."""
    torch.manual_seed(0)
    modules: list[Any] = [
        SRWMModule("lstm", in_key="observation", out_key="embed", input_size=5, hidden_size=8).double(),
        TensorDictModule(torch.nn.Linear(8, 1).double(), in_keys=["embed"], out_keys=["state_value"]),
    ]
    critic: Any = TensorDictSequential(*modules).to(DEVICE)
    data = make_rollouts(EPISODES, critic[0].core.state_size)
    mapped, looped = (advantages_of(critic, data, deactivate_vmap=deactivate) for deactivate in (False, True))
    torch.testing.assert_close(mapped, looped, rtol=1e-9, atol=1e-9)
    slots = 1 + int(data["next", "done"].sum(1).max())
    exact = advantages_of(critic, data, shifted=True, shifted_budget=slots)
    torch.testing.assert_close(exact, plain_advantages(critic, data), rtol=1e-9, atol=1e-9)


def test_an_ensemble_of_modules() -> None:
    """TorchRL's losses map over stacked parameters in this way."""
    critics = [make_critic(), make_critic()]
    with torch.no_grad():
        for parameter in critics[1].parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    data = make_rollouts(EPISODES, critics[0][0].core.state_size)
    parameters: Any = TensorDict.from_modules(*critics, as_module=False)

    def values(data: Any, parameters: Any) -> Any:
        with set_recurrent_mode(True), parameters.to_module(critics[0]):
            return critics[0](data)["state_value"]

    mapped = torch.vmap(values, (None, 0))(data.exclude("next"), parameters)
    for i, critic in enumerate(critics):
        with set_recurrent_mode(True):
            torch.testing.assert_close(mapped[i], critic(data.exclude("next"))["state_value"], rtol=1e-9, atol=1e-9)
