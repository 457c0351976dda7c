"""RecurrentPPO with our cores: everything that it does with its own LSTM policies."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import SubprocVecEnv

import srwm_agents.integrations.sb3
from srwm_agents.cores import CORES
from srwm_agents.integrations.sb3.memory import LSTMLikeCore

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SETTINGS = {"hidden_size": 8, "num_layers": 1, "num_heads": 2, "ff_size": 8}
SPACES = {
    "SRWMMlpPolicy": spaces.Box(-1, 1, (3,)),
    "SRWMCnnPolicy": spaces.Box(0, 255, (3, 36, 36), np.uint8),
    "SRWMMultiInputPolicy": spaces.Dict(
        {"obs": spaces.Box(0, 255, (3, 36, 36), np.uint8), "last_reward": spaces.Box(-1, 1, (1,))}
    ),
}
CRITICS = {
    "separate": {},
    "shared": {"shared_lstm": True, "enable_critic_lstm": False},
    "feedforward": {"enable_critic_lstm": False},
}


class Noise(gymnasium.Env):
    """Random observations, episodes of seven steps: enough to see plumbing work."""

    def __init__(self, space: spaces.Space = SPACES["SRWMMlpPolicy"]) -> None:
        self.observation_space, self.action_space = space, spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        return self.observation_space.sample(), float(action), self.steps >= 7, False, {}


def make(policy: str = "SRWMMlpPolicy", core: str = "srwm", envs: int = 2, policy_kwargs=None, **settings) -> Any:
    return RecurrentPPO(
        policy,
        make_vec_env(lambda: Noise(SPACES[policy]), envs, seed=0),
        policy_kwargs={"core": core, "core_settings": SETTINGS, **(policy_kwargs or {})},
        **{"n_steps": 16, "batch_size": 32, "n_epochs": 2, "seed": 0, "device": DEVICE, **settings},
    )


def observe(model, n: int, seed: int = 0):
    model.observation_space.seed(seed)
    return np.stack([model.observation_space.sample() for _ in range(n)])


@pytest.mark.parametrize("core", CORES)
def test_every_core_learns_acts_and_comes_back_from_disk(core: str, tmp_path) -> None:
    model = make(core=core)
    before = {name: p.detach().clone() for name, p in model.policy.named_parameters()}
    model.learn(64)
    changed = {name for name, p in model.policy.named_parameters() if not torch.equal(p, before[name])}
    for memory in ("lstm_actor", "lstm_critic"):
        assert {name for name in before if name.startswith(memory)} <= changed | _idle(core, before)
    model.save(tmp_path / "model.zip")
    loaded: Any = RecurrentPPO.load(tmp_path / "model.zip", device=DEVICE)
    state = other = None
    for step in range(3):
        actions, state = model.predict(observe(model, 4, step), state, deterministic=True)
        others, other = loaded.predict(observe(model, 4, step), other, deterministic=True)
        np.testing.assert_array_equal(actions, others)
        for part, of_other in zip(state, other, strict=True):
            np.testing.assert_array_equal(part, of_other)


def _idle(core: str, names) -> set[str]:
    """The introspective net has connections that no output depends on; dropping the state ends some gradients."""
    return set(names) if core == "introspective" else set()


@pytest.mark.parametrize("critic", CRITICS)
@pytest.mark.parametrize("policy", SPACES)
def test_every_policy_learns_by_its_name_with_every_critic(policy: str, critic: str, tmp_path) -> None:
    model = make(policy, policy_kwargs=CRITICS[critic]).learn(32)
    assert isinstance(model.policy.lstm_actor, LSTMLikeCore)
    assert (model.policy.lstm_critic is not None) == (critic == "separate")
    model.policy.save(tmp_path / "policy.zip")
    loaded = type(model.policy).load(tmp_path / "policy.zip", device=DEVICE)
    assert (loaded.lstm_critic is not None) == (critic == "separate")
    for tensor, other in zip(model.policy.state_dict().values(), loaded.state_dict().values(), strict=True):
        torch.testing.assert_close(tensor, other, rtol=0, atol=0)


@pytest.mark.parametrize("core", ["srwm", "srwm_no_carry", "lstm", "gru", "feedforward"])
def test_a_sequence_with_episode_starts_equals_acting_step_by_step(core: str) -> None:
    """What is learnt from is what was acted on; the odd state of srwm_no_carry and an empty one included."""
    memory = LSTMLikeCore(core, 3, SETTINGS).to(DEVICE)
    generator = torch.Generator(DEVICE).manual_seed(0)
    x = torch.randn(2, 9, 3, generator=generator, device=DEVICE)
    starts = (torch.rand(2, 9, generator=generator, device=DEVICE) < 0.3).float()
    fresh = torch.zeros(1, 2, memory.hidden_size, device=DEVICE)
    out, final = memory(x.flatten(0, 1), (fresh, fresh), starts.flatten())
    states = (fresh, fresh)
    for t in range(9):
        y, states = memory(x[:, t], states, starts[:, t])
        torch.testing.assert_close(y, out.unflatten(0, (2, 9))[:, t], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(states, final, rtol=1e-5, atol=1e-5)


def test_an_episodes_end_costs_no_loop_over_time() -> None:
    """sb3-contrib calls its LSTM once a step as soon as an episode starts anywhere; the core is called once."""
    model = make()
    calls = []
    model.policy.lstm_actor.core.register_forward_hook(lambda _m, args, _o: calls.append(args[0].shape[:2]))
    model.learn(32)
    acting, learning = [c for c in calls if c[1] == 1], [c for c in calls if c[1] > 1]
    assert len(acting) == 16
    assert 1 <= len(learning) <= 2, calls  # one call an update; an epoch is one minibatch here


def test_predict_remembers_and_episode_starts_forget() -> None:
    model = make()
    _, state = model.predict(observe(model, 2), episode_start=np.array([True, True]))
    assert np.abs(state[0]).sum() > 0
    _, carried = model.predict(observe(model, 2, 1), state, np.array([True, False]))
    _, fresh = model.predict(observe(model, 2, 1))
    np.testing.assert_allclose(carried[0][:, 0], fresh[0][:, 0], atol=1e-6)
    assert not np.allclose(carried[0][:, 1], fresh[0][:, 1])
    action, state = model.predict(observe(model, 1)[0])
    assert action.shape == ()
    assert state[0].shape[1] == 1


def test_self_modification_is_trained() -> None:
    model = make()
    model.learn(32)
    for block in ("w_q", "w_k", "w_beta"):
        gradient = model.policy.lstm_actor.core.layers[0].get_parameter(block).grad
        assert gradient is not None
        assert gradient.abs().sum() > 0


def test_evaluation_tensorboard_processes_and_progress(tmp_path) -> None:
    model = make(tensorboard_log=str(tmp_path))
    model.set_env(make_vec_env(Noise, 2, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"}))
    model.learn(32, progress_bar=True)
    model.get_env().close()
    assert list(tmp_path.glob("RecurrentPPO_*/events.out.tfevents.*"))
    mean, _ = evaluate_policy(model, make_vec_env(Noise, 3), n_eval_episodes=4)
    assert isinstance(mean, float)
    assert 0 <= mean <= 7


@pytest.mark.gpu
def test_on_cuda_acting_and_learning_agree_with_the_cpu() -> None:
    model = make(policy_kwargs={"core_settings": {**SETTINGS, "hidden_size": 32}}).learn(64)
    cpu = make(device="cpu", policy_kwargs={"core_settings": {**SETTINGS, "hidden_size": 32}})
    cpu.policy.load_state_dict(model.policy.state_dict())
    state = other = None
    for step in range(5):
        _, state = model.predict(observe(cpu, 4, step), state)
        _, other = cpu.predict(observe(cpu, 4, step), other)
    assert state is not None
    assert other is not None
    np.testing.assert_allclose(state[0], other[0], rtol=1e-4, atol=1e-5)  # float32 sums in another order, five steps


def test_a_saved_model_loads_where_nobody_has_imported_us(tmp_path) -> None:
    make().learn(32).save(tmp_path / "model.zip")
    load = "import sys; from sb3_contrib import RecurrentPPO; assert 'srwm_agents.integrations' not in sys.modules; "
    load += f"print(type(RecurrentPPO.load({str(tmp_path / 'model.zip')!r}, device='cpu').policy).__name__)"
    done = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "SRWMMlpPolicy", done.stderr


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"core": "rnn"}, "unknown core 'rnn', allowed: srwm"),
        ({"core_settings": {"width": 3}}, "unknown core setting 'width', allowed: input_size"),
        ({"core_settings": {"hidden_size": 15}}, "hidden_size is 15, expected a multiple of num_heads = 8"),
        ({"core_settings": {"input_size": 3}}, "core_settings has input_size, which follows from the features"),
        ({"hidden_size": 32}, "hidden_size is a setting of the core: policy_kwargs=dict"),
        ({"lstm_hidden_size": 32}, "lstm_hidden_size is a setting of the LSTM policies; here it is"),
    ],
)
def test_wrong_settings_are_named(kwargs, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        RecurrentPPO("SRWMMlpPolicy", Noise(), policy_kwargs=kwargs, device=DEVICE)
    assert "\n" not in str(raised.value)


def test_wrong_states_and_observations_are_named() -> None:
    model = make()
    _, state = model.predict(observe(model, 2))
    for wrong, message in (
        (tuple(part[:, :1] for part in state), r"state h has shape \[1, 1, 64\], expected \[1, 4, 64\]"),
        (tuple(part[..., :5] for part in state), r"state h has shape \[1, 2, 5\], expected \[1, 4, 64\]"),
        (state[0], r"state is a ndarray, expected the pair \(h, c\)"),
    ):
        with pytest.raises(ValueError, match=message):
            model.predict(observe(model, 4), wrong)
    with pytest.raises(ValueError, match=r"features of 4 steps with 2 episode starts"):
        model.predict(observe(model, 4), None, np.array([True, False]))
    with pytest.raises(ValueError, match=r"observation shape"):
        model.predict(np.zeros((4, 5), np.float32))
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        model.set_env(make_vec_env(lambda: Noise(SPACES["SRWMCnnPolicy"]), 2))


def test_the_names_come_with_one_public_call(monkeypatch) -> None:
    assert set(SPACES) <= set(srwm_agents.integrations.sb3.__all__)
    monkeypatch.setattr(RecurrentPPO, "policy_aliases", {})
    srwm_agents.register("sb3")
    assert set(RecurrentPPO.policy_aliases) == set(SPACES)
    with pytest.raises(ValueError, match="unknown framework 'rllib', allowed: sample_factory, sb3"):
        srwm_agents.register("rllib")
