"""SRWMModule: stepwise equals over time, resets, state formats, errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torchrl.collectors import Collector
from torchrl.envs import Transform
from torchrl.modules import set_recurrent_mode
from torchrl.modules.utils import get_primers_from_module

from srwm_agents import load_agent
from srwm_agents.agent import Agent, AgentConfig, save_agent
from srwm_agents.cores import CORES, make_core
from srwm_agents.cores.stack import NoCarryCore
from srwm_agents.integrations.torchrl import SRWMModule, make_actor_critic, make_environment

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SMALL: dict[str, Any] = {
    **{"input_size": 5, "hidden_size": 8, "num_layers": 2, "num_heads": 2, "ff_size": 16},
    "rollout_length": 3,
}
# Step by step and over time the same sums are added in another order: float32's 6e-8, some hundred times.
TOLERANCE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


def sequence(module: SRWMModule, batch: int = 3, steps: int = 7) -> TensorDict:
    """Inputs over time, with a state before the first step and several episode starts."""
    g = torch.Generator().manual_seed(0)
    is_init = torch.rand(batch, steps, 1, generator=g) < 0.25
    specs: Any = module.make_tensordict_primer().primers
    state = {key: 0.1 * torch.randn(batch, steps, *specs[key].shape, generator=g) for key in module.state_keys}
    if isinstance(module.core, NoCarryCore):
        state[module.state_keys[-1]][..., -1] = 0  # where it counts its steps
    x = torch.randn(batch, steps, module.core.input_size, generator=g)
    return TensorDict({"embed": x, "is_init": is_init, **state}, [batch, steps]).to(DEVICE)


@pytest.mark.parametrize("name", CORES)
@pytest.mark.parametrize("state_format", ["flat", "natural"])
def test_stepwise_equals_the_sequence(name, state_format) -> None:
    torch.manual_seed(0)
    module = SRWMModule(name, out_key="out", state_format=state_format, device=DEVICE, **SMALL)
    data = sequence(module)
    with torch.no_grad(), set_recurrent_mode(True):
        whole = module(data.clone())
    with torch.no_grad():
        step: Any = data[:, 0].clone()
        for t in range(data.shape[1]):
            step = module(step)
            torch.testing.assert_close(step["out"], whole["out"][:, t], **TOLERANCE)
            if t + 1 < data.shape[1]:
                following: Any = data[:, t + 1].clone()
                for key in module.state_keys:
                    following[key] = step["next", key]
                step = following
        for key in module.state_keys:
            assert whole["next", key].shape == data[key].shape
            torch.testing.assert_close(step["next", key], whole["next", key][:, -1], **TOLERANCE)


def test_both_state_formats_are_the_same_memory() -> None:
    core = make_core("srwm", **SMALL).to(DEVICE)
    flat, natural = SRWMModule(core, out_key="out"), SRWMModule(core, out_key="out", state_format="natural")
    specs: Any = natural.make_tensordict_primer().primers
    assert [tuple(specs[key].shape) for key in natural.state_keys] == [*core.state_shapes]
    data = sequence(flat)
    parts = {key: part for key, part in sequence(natural).items() if key in natural.state_keys}
    data["recurrent_state"] = torch.cat([part.flatten(2) for part in parts.values()], -1)
    with torch.no_grad(), set_recurrent_mode(True):
        a, b = flat(data.clone()), natural(data.clone().update(parts))
    assert torch.equal(a["out"], b["out"])


def test_is_init_forgets_and_gradients_go_through_time() -> None:
    module = SRWMModule("srwm", out_key="out", device=DEVICE, **SMALL)
    data: Any = sequence(module, steps=4)
    data["is_init"][:] = False
    data["is_init"][0, 2] = True
    data["embed"].requires_grad_()
    with set_recurrent_mode(True):
        module(data)["out"][:, 3].square().sum().backward()
    reached = data["embed"].grad.abs().sum(-1) > 0
    assert reached.tolist() == [[False, False, True, True], [True] * 4, [True] * 4]
    core: Any = module.core
    assert core.layers[0].weights.q.grad.abs().sum() > 0  # what per-step acting could not train


@pytest.fixture
def agent(monkeypatch) -> Agent:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # three digits, and others with other batches
    torch.manual_seed(0)
    settings = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "ff_size": 16}
    return Agent(AgentConfig("srwm", settings, 15, encoder="convnet_impala", encoder_mlp_layers=(16,))).to(DEVICE)


def small_environment():
    return make_environment("starpilot,leaper", 4, num_levels=10, seed=1, num_threads=0)


def carried(policy, environment, **settings: Any) -> Collector:
    """A collector with the policy on the tests' device; Procgen itself is on the CPU."""
    return Collector(environment, policy, policy_device=DEVICE, env_device="cpu", storing_device="cpu", **settings)


def primers_of(policy) -> Transform:
    primers = get_primers_from_module(policy)
    assert primers is not None
    return primers


@pytest.mark.parametrize("with_primers", ["by hand", "by the collector"])
def test_a_collector_carries_the_memory(agent, with_primers) -> None:
    policy = make_actor_critic(agent).get_policy_operator()
    environment = small_environment()
    if with_primers == "by hand":
        environment = environment.append_transform(primers_of(policy))
    collector = carried(
        policy,
        environment,
        frames_per_batch=4 * 100,
        total_frames=800,
        auto_register_policy_transforms=with_primers == "by the collector",
    )
    batches = [batch.clone() for batch in collector]
    data = batches[1]
    assert batches[0]["next", "done"].any()
    assert data["is_init"].any()
    # The state is carried from step to step and from rollout to rollout.
    ended = batches[0]["next", "done"][:, -1]
    last = torch.where(ended, 0, batches[0]["next", "recurrent_state"][:, -1])
    assert torch.equal(data["recurrent_state"][:, 0], last)
    assert data["recurrent_state"][:, 0].abs().sum() > 0
    before, after = data["next", "recurrent_state"][:, :-1], data["recurrent_state"][:, 1:]
    assert torch.equal(after, torch.where(data["next", "done"][:, :-1], 0, before))
    # The learner computes the policy that was acted.
    with torch.no_grad(), set_recurrent_mode(True):
        again = policy.get_dist(data.exclude("logits", "next").to(DEVICE))
    torch.testing.assert_close(again.logits.cpu(), torch.log_softmax(data["logits"], -1), **TOLERANCE)
    collector.shutdown()


def test_a_saved_agent_is_a_policy(agent, tmp_path) -> None:
    loaded = load_agent(save_agent(agent, tmp_path / "agent"), DEVICE)
    policy = make_actor_critic(loaded).get_policy_operator()
    environment = small_environment().append_transform(primers_of(policy))
    observation = environment.reset()
    with torch.no_grad():
        out = policy(observation.clone().to(DEVICE))
    _, state = agent.act({name: observation[name] for name in ("obs", "last_reward")})
    torch.testing.assert_close(out["next", "recurrent_state"], state, **TOLERANCE)
    environment.close()


# Wrong uses ----------------------------------------------------------------------------------------------------------


def test_forgetting_the_primer_is_an_error(agent) -> None:
    policy = make_actor_critic(agent).get_policy_operator()
    environment = small_environment()
    with pytest.raises(KeyError, match=r"'recurrent_state'.*make_tensordict_primer"):
        environment.rollout(3, policy, auto_cast_to_device=True)
    with pytest.raises(KeyError, match=r"'recurrent_state'.*make_tensordict_primer"):
        next(iter(carried(policy, environment, frames_per_batch=8, auto_register_policy_transforms=False)))


def test_forgetting_the_init_tracker_is_an_error(agent) -> None:
    policy = make_actor_critic(agent).get_policy_operator()
    environment = small_environment()
    bare = environment.base_env.append_transform(primers_of(policy))
    with pytest.raises(KeyError, match=r"'is_init'.*InitTracker"):
        bare.rollout(3, policy, auto_cast_to_device=True)


def test_wrong_shapes_are_named() -> None:
    module = SRWMModule("srwm", device=DEVICE, **SMALL)
    size = module.core.state_size
    good = {"embed": torch.zeros(2, 5), "recurrent_state": torch.zeros(2, size), "is_init": torch.zeros(2, 1).bool()}
    good = {key: entry.to(DEVICE) for key, entry in good.items()}
    module(TensorDict(good, [2]))
    with pytest.raises(ValueError, match=rf"'recurrent_state' has shape \[2, 7\], expected \[2, {size}\]"):
        module(TensorDict({**good, "recurrent_state": torch.zeros(2, 7, device=DEVICE)}, [2]))
    with pytest.raises(ValueError, match=r"'embed' has shape \[2, 6\], expected \[2, 5\]"):
        module(TensorDict({**good, "embed": torch.zeros(2, 6, device=DEVICE)}, [2]))
    with pytest.raises(KeyError, match="'embed'"):
        module(TensorDict({"recurrent_state": good["recurrent_state"], "is_init": good["is_init"]}, [2]))
    single = TensorDict({key: entry[0] for key, entry in good.items()}, [])
    module(single)
    with set_recurrent_mode(True), pytest.raises(ValueError, match="time dimension"):
        module(single)


def test_mixed_devices_are_named() -> None:
    module = SRWMModule("srwm", device="meta", **SMALL)
    data = {"embed": torch.zeros(2, 5), "recurrent_state": torch.zeros(2, 9), "is_init": torch.zeros(2, 1).bool()}
    data["recurrent_state"] = torch.zeros(2, module.core.state_size)
    with pytest.raises(ValueError, match=r"'embed' is on cpu, the module's weights are on meta"):
        module(TensorDict(data, [2]))


def test_another_observation_space_is_named(agent) -> None:
    policy = make_actor_critic(agent).get_policy_operator()
    rest = {"recurrent_state": agent.initial_state(2), "is_init": torch.ones(2, 1, device=DEVICE).bool()}
    wrong = {"obs": torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "last_reward": torch.zeros(2, 1), **rest}
    with pytest.raises(ValueError, match=r"'obs' has shape \[2, 3, 32, 32\], expected \[2, 3, 64, 64\]"):
        policy(TensorDict(wrong, [2]).to(DEVICE))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="state_format is 'round', allowed: flat, natural"):
        SRWMModule("srwm", state_format="round", **SMALL)  # pyright: ignore[reportArgumentType]  (what is tested)
    with pytest.raises(ValueError, match="unknown core 'rnn'"):
        SRWMModule("rnn", **SMALL)
    with pytest.raises(ValueError, match="a finished core takes no settings, but hidden_size"):
        SRWMModule(make_core("srwm", **SMALL), hidden_size=8)


def test_it_works_in_a_sequence_of_modules() -> None:
    head = TensorDictModule(torch.nn.Linear(8, 3, device=DEVICE), in_keys=["embed"], out_keys=["logits"])
    module = SRWMModule("lstm", device=DEVICE, **SMALL)
    modules: list[Any] = [module, head]
    policy = TensorDictSequential(*modules)
    primer: Any = get_primers_from_module(policy)
    assert list(primer.primers.keys()) == ["recurrent_state"]
    with torch.no_grad(), set_recurrent_mode(True):
        assert policy(sequence(module))["logits"].shape == (3, 7, 3)
