"""Sample Factory's model with our encoders, cores and critics, and its export as a portable agent."""

from __future__ import annotations

from typing import Any, cast

import torch
from gymnasium import spaces
from sample_factory.algo.utils.context import global_model_factory
from sample_factory.algo.utils.tensor_dict import TensorDict
from sample_factory.model.actor_critic import ActorCriticSharedWeights
from sample_factory.model.encoder import Encoder
from sample_factory.utils.attr_dict import AttrDict
from torch import Tensor, nn

from srwm_agents.agent import Agent, AgentConfig
from srwm_agents.encoders import IMAGE_KEY, ImageEncoder, ObservationEncoder
from srwm_agents.graphs import Graphed
from srwm_agents.integrations.sample_factory.core import core_settings
from srwm_agents.integrations.sample_factory.environment import BOOKKEEPING, GAME_ENTRY, choices_of
from srwm_agents.integrations.sample_factory.request import PROCGEN
from srwm_agents.integrations.sample_factory.suites import suite_of
from srwm_agents.learning import Evaluation, Observations, PopArtCritic
from srwm_agents.spaces.actions import ActionSpec
from srwm_agents.spaces.distributions import make_distribution
from srwm_agents.spaces.entries import Entry


class SampleFactoryEncoder(Encoder):
    """An :class:`ObservationEncoder` behind Sample Factory's interface; images stay uint8 up to the device."""

    def __init__(self, cfg: Any, obs_space: spaces.Dict) -> None:
        super().__init__(cfg)
        entries = entries_of(obs_space)

        def image(entry: Entry) -> ImageEncoder:
            layers = tuple(cfg.encoder_conv_mlp_layers)
            return ImageEncoder(cfg.encoder_conv_architecture, entry.shape, layers, cfg.nonlinearity)

        images = {name: image(entry) for name, entry in entries.items() if entry.kind == "image"}
        self.observation = ObservationEncoder(
            images.pop(IMAGE_KEY, None),
            {name: entry.width for name, entry in entries.items() if entry.kind == "vector"},
            more_images=images,
            categories={name: entry.sizes for name, entry in entries.items() if entry.kind == "categories"},
            mlp_layers=tuple(cfg.encoder_mlp_layers),
            nonlinearity=cfg.nonlinearity,
        )
        # Procgen's images are normalised on request; other environments' keep their bytes.
        normalised = cfg.normalize_input and cfg.env == PROCGEN
        untouched = not normalised and cfg.obs_subtract_mean == 0 and cfg.obs_scale == 1
        self._types = {
            name: _input_type(entry, obs_space[name].dtype, untouched or name != IMAGE_KEY)
            for name, entry in entries.items()
        }
        self._mixed = cfg.mixed_precision == "bf16" and cfg.device == "gpu"
        if cfg.compile:
            for encoder in self.observation.image_encoders():
                encoder.compile()

    def get_out_size(self) -> int:
        return self.observation.output_size

    def type_for_input_tensor(self, input_tensor_name: str) -> torch.dtype:
        return self._types.get(input_tensor_name, torch.float32)

    def forward(self, obs_dict: dict[str, Tensor]) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=self._mixed):
            images = self.observation.images(obs_dict)
        # Numbers need their digits: only convolutions are computed with fewer.
        return self.observation.join([image.float() for image in images], obs_dict)


def _input_type(entry: Entry, dtype: Any, as_bytes: bool) -> torch.dtype:
    """Of an entry of the network's input."""
    if entry.kind == "categories":
        return torch.int64
    return torch.uint8 if entry.kind == "image" and dtype == "uint8" and as_bytes else torch.float32


class PolicyHead(nn.Module):
    """The last layer of the policy, from features to the parameters of its distributions."""

    def __init__(self, features: int, actions: ActionSpec) -> None:
        super().__init__()
        self.distribution_linear = nn.Linear(features, actions.parameters)
        self._actions = actions

    def forward(self, features: Tensor) -> tuple[Tensor, Any]:
        """features [N, F] -> parameters [N, A] and their distributions."""
        parameters = self.distribution_linear(features)
        return parameters, make_distribution(self._actions, parameters)


class DetachedCritic(nn.Module):
    """A value network on the policy core's output, without gradient into it.

    Source: the single network of PPG (Cobbe et al., ICML 2021, arXiv:2009.04416, section 3.5). Deviations: there a
    second phase lets values change the features; here the critic has two hidden layers in its place.
    """

    hidden_size = 256

    def __init__(self, core_output_size: int) -> None:
        super().__init__()
        width = self.hidden_size
        self.value_head = nn.Sequential(
            nn.Linear(core_output_size, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )

    def forward(self, observations: dict[str, Tensor], core_output: Tensor) -> Tensor:
        """core_output [N, features] -> values [N]."""
        return self.value_head(core_output.detach()).squeeze(-1)


class SeparateCritic(nn.Module):
    """A value network with an encoder of its own, whose gradient does not reach the policy network.

    Source: DAAC (Raileanu & Fergus, ICML 2021, arXiv:2102.10330), where sharing one network is found to hurt the policy
    in Procgen. Deviations: the value also reads the policy core's output, without gradient, so that one memory serves
    both; both networks are trained once on the same minibatches, where DAAC's critic makes up to nine passes.
    """

    def __init__(self, encoder: Encoder, core_output_size: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.value_head = nn.Linear(encoder.get_out_size() + core_output_size, 1)

    def forward(self, observations: dict[str, Tensor], core_output: Tensor) -> Tensor:
        """Entries [N, …] and core_output [N, features] -> values [N]."""
        return self.value_head(torch.cat([self.encoder(observations), core_output.detach()], dim=-1)).squeeze(-1)


class SampleFactoryActorCritic(ActorCriticSharedWeights):
    """Sample Factory's actor-critic with a small initial policy head, PopArt and separate critics.

    The policy head is scaled by ``cfg.policy_head_scale`` at initialisation: with an orthogonal head of gain 1, large
    features make the first policy almost deterministic. A last layer 100 times smaller is among the few choices that
    Andrychowicz et al., ICLR 2021 (arXiv:2006.05990), found to matter.

    With ``cfg.popart`` the critic has one normalised output a game; acting still returns one value a step, that of the
    game being played, in units of the reward.

    With ``cfg.critic`` "detached" or "separate" the learner's values come from a critic above. Acting still returns
    those of the policy network's own head, whose gradient into the features is multiplied by
    ``cfg.value_gradient_scale``, and an additional head predicts an advantage for each action, with gradient into
    them. (DAAC's value head has no such gradient: a factor of 0. PPG's auxiliary value head has one, in phases of its
    own: Cobbe et al., ICML 2021, arXiv:2009.04416. DAAC's is one linear layer on features and the
    action's one-hot code, so features change the advantages of all actions alike.)
    """

    def __init__(self, obs_space: Any, action_space: Any, cfg: Any) -> None:
        self.actions = choices_of(action_space)
        if cfg.normalize_input and cfg.env != PROCGEN and cfg.normalize_input_keys is None:
            numbers = [name for name, entry in entries_of(obs_space).items() if entry.kind == "vector"]
            cfg = AttrDict({**cfg, "normalize_input_keys": numbers})
        super().__init__(global_model_factory(), obs_space, action_space, cfg)
        with torch.no_grad():
            for parameter in self.action_parameterization.parameters():
                parameter.mul_(cfg.policy_head_scale)
        if cfg.popart:
            self.critic_linear = PopArtCritic(self.decoder.get_out_size(), len(cfg.tasks), cfg.popart_step_size)
            self.critic_linear.apply(self.initialize_weights)
        self.value_gradient_scale: float = cfg.value_gradient_scale
        self.critic = make_critic(cfg, obs_space, self.core.get_out_size())
        if self.critic is not None:
            self.advantage_head = nn.Linear(self.decoder.get_out_size(), self.actions.parameters)
            for module in (self.critic, self.advantage_head):
                module.apply(self.initialize_weights)
        self._act = Graphed(self._forward) if cfg.cuda_graphs else self._forward

    def get_action_parameterization(self, decoder_output_size: int) -> PolicyHead:  # type: ignore[override]
        """Sample Factory's hook for the policy's last layer."""
        return PolicyHead(decoder_output_size, self.actions)

    @property
    def popart(self) -> PopArtCritic | None:
        """The PopArt critic, or None; with one, the values of ``forward_tail`` are its outputs, [N, games]."""
        return self.critic_linear if isinstance(self.critic_linear, PopArtCritic) else None

    def networks(self) -> list[list[nn.Parameter]]:
        """Parameters of the policy network, then of the critic if it is separate or detached."""
        if self.critic is None:
            return [list(self.parameters())]
        critic = [*self.critic.parameters(), *self.critic_linear.parameters()]
        in_critic = set(critic)
        return [[parameter for parameter in self.parameters() if parameter not in in_critic], critic]

    def distribution(self, logits: Tensor) -> Any:
        """The policy's distributions with parameters ``logits`` [N, A]."""
        return make_distribution(self.actions, logits)

    def evaluate(self, observations: Observations, state: Tensor, resets: Tensor) -> Evaluation:
        """Run over time; see :class:`srwm_agents.learning.ActorCritic`."""
        batch, length = resets.shape
        flat = {name: entry.flatten(0, 1) for name, entry in observations.items()}
        core_out = self.core.sequence(self.forward_head(flat).unflatten(0, (batch, length)), state, resets)[0]
        features = self.decoder(core_out.flatten(0, 1)).unflatten(0, (batch, length))
        acted_on = features[:, :-1]
        logits = self.action_parameterization(acted_on.flatten(0, 1))[0].unflatten(0, (batch, length - 1))
        if self.critic is None:
            values = self.critic_linear(features)
            return Evaluation(acted_on, logits, values if self.popart is not None else values.squeeze(-1))
        values = self.critic(flat, core_out.flatten(0, 1)).view(batch, length)
        policy_values = self.critic_linear(_scale_gradient(acted_on, self.value_gradient_scale)).squeeze(-1)
        return Evaluation(acted_on, logits, values, policy_values, self.advantage_head(acted_on))

    def forward_tail(self, core_output: Tensor, values_only: bool, sample_actions: bool) -> TensorDict:
        """As Sample Factory's, without the value head's gradient into the features where there is a critic."""
        features = self.decoder(core_output)
        result = TensorDict(values=self.critic_linear(features if self.critic is None else features.detach()).squeeze())
        if not values_only:
            result["action_logits"], self.last_action_distribution = self.action_parameterization(features)
            self._maybe_sample_actions(sample_actions, result)
        return result

    def forward(self, normalized_obs_dict: Any, rnn_states: Tensor, values_only: bool = False) -> TensorDict:
        inputs = {"observations": normalized_obs_dict, "state": rnn_states}
        if values_only or self.training or torch.is_grad_enabled():
            return self._forward(inputs, values_only)
        return TensorDict(self._act(inputs))  # a new dict: Sample Factory adds to it

    def step(self, observations: Any, state: Tensor) -> TensorDict:
        """One step of acting as ordinary launches, for a caller that captures them among others in a graph."""
        return self._forward({"observations": observations, "state": state})

    def _forward(self, inputs: dict[str, Any], values_only: bool = False) -> TensorDict:
        result: Any = super().forward(inputs["observations"], inputs["state"], values_only)
        if self.popart is not None:
            games = inputs["observations"][GAME_ENTRY][:, 0].long()
            result["values"] = self.popart.values(result["values"], games)[:, 0]
        return result


def _scale_gradient(x: Tensor, scale: float) -> Tensor:
    """``x`` itself, whose gradient is multiplied by ``scale``."""
    return x.detach() if scale == 0 else torch.lerp(x.detach(), x, scale)


def entries_of(obs_space: spaces.Dict) -> dict[str, Entry]:
    """What the network sees of an environment's observations, by name: arrays with three dimensions are images, whole
    numbers are categories, and the rest are numbers."""
    entries = {}
    for name, space in obs_space.spaces.items():
        assert isinstance(space, spaces.Box)
        if name in BOOKKEEPING:
            continue
        if len(space.shape) == 3:
            entries[name] = Entry("image", tuple(space.shape))
        elif space.dtype == "int64":
            entries[name] = Entry("categories", tuple(space.shape), tuple(int(high) + 1 for high in space.high))
        else:
            entries[name] = Entry("vector", tuple(space.shape))
    return entries


def make_encoder(cfg: Any, obs_space: Any) -> Encoder:
    """Encoder factory."""
    return SampleFactoryEncoder(cfg, obs_space)


def make_critic(cfg: Any, obs_space: Any, core_output_size: int) -> DetachedCritic | SeparateCritic | None:
    """Critic factory, by ``--critic``; None for "shared", where the policy network's value head is the critic."""
    if cfg.critic == "shared":
        return None
    if cfg.critic == "detached":
        return DetachedCritic(core_output_size)
    return SeparateCritic(make_encoder(cfg, obs_space), core_output_size)


def make_actor_critic(cfg: Any, obs_space: Any, action_space: Any) -> SampleFactoryActorCritic:
    """Actor-critic factory."""
    return SampleFactoryActorCritic(obs_space, action_space, cfg)


_PREFIXES = {
    "encoder.observation.": "encoder.",
    "core.core.": "core.",
    "decoder.mlp.": "decoder.",
    "action_parameterization.distribution_linear.": "policy_head.",
    "critic_linear.": "value_head.",
}
_STATISTICS = "obs_normalizer.running_mean_std.running_mean_std."
_NORMALIZER = "normalizer."


def portable_weights(actor_critic: nn.Module) -> dict[str, Tensor]:
    """The weights of a Sample Factory model under an :class:`Agent`'s names, on the CPU.

    The model must be made by the factories above. An agent has one value and no game index, so a PopArt critic becomes
    the mean over the games' values, in units of the reward; with one game that is the value itself.
    """
    weights: dict[str, Tensor] = {}
    for name, tensor in actor_critic.state_dict().items():
        tensor = tensor.detach().cpu()
        if name.startswith(_STATISTICS):
            entry, statistic = name[len(_STATISTICS) :].split(".")
            if statistic in ("running_mean", "running_var"):
                weights[f"{_NORMALIZER}{entry}_{statistic.removeprefix('running_')}"] = tensor.float()
        else:
            for prefix, ours in _PREFIXES.items():
                if name.startswith(prefix):
                    weights[ours + name.removeprefix(prefix)] = tensor
    critic = getattr(actor_critic, "popart", None)
    if critic is not None:
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith("value_head.")}
        weights["value_head.weight"], weights["value_head.bias"] = (tensor.cpu() for tensor in critic.merged())
    return weights


def export_agent(cfg: Any, actor_critic: nn.Module, obs_space: spaces.Dict, training: dict[str, Any]) -> Agent:
    """A portable agent with the weights of a Sample Factory model, which must be made by the factories above.

    Raises:
        ValueError: Procgen's action space is not discrete.
    """
    weights = portable_weights(actor_critic)
    running = {
        name.removeprefix(_NORMALIZER).removesuffix("_mean"): tuple(mean.shape)
        for name, mean in weights.items()
        if name.startswith(_NORMALIZER) and name.endswith("_mean")
    }
    actions = suite_of(cfg).actions(cfg, cast(spaces.Space[Any], actor_critic.action_space))
    entries = entries_of(obs_space)
    images = {name: entry.shape for name, entry in entries.items() if entry.kind == "image"}
    agent = Agent(
        AgentConfig(
            core=cfg.core,
            core_settings=core_settings(cfg),
            num_actions=actions.parameters,
            actions={} if actions == ActionSpec.discrete(actions.parameters) else actions.to_json(),
            image_shape=images.pop(IMAGE_KEY, ()),
            images=images,
            extras={name: entry.width for name, entry in entries.items() if entry.kind == "vector"},
            categories={name: entry.sizes for name, entry in entries.items() if entry.kind == "categories"},
            encoder=cfg.encoder_conv_architecture,
            encoder_mlp_layers=tuple(cfg.encoder_conv_mlp_layers),
            vector_mlp_layers=tuple(cfg.encoder_mlp_layers),
            nonlinearity=cfg.nonlinearity,
            decoder_mlp_layers=tuple(cfg.decoder_mlp_layers),
            subtract_mean=cfg.obs_subtract_mean,
            scale=cfg.obs_scale,
            running=running,
            environment=suite_of(cfg).record(cfg),
            training=training,
        )
    )
    agent.load_state_dict(weights)
    return agent.eval()
