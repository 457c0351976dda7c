"""Sample Factory's learner, with the updates of :mod:`srwm_agents.learning`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from gymnasium import spaces
from sample_factory.algo.learning.learner import Learner
from sample_factory.algo.learning.learner_worker import LearnerWorker
from sample_factory.algo.utils.misc import LEARNER_ENV_STEPS
from sample_factory.algo.utils.tensor_dict import TensorDict, shallow_recursive_copy
from sample_factory.utils.attr_dict import AttrDict
from sample_factory.utils.utils import log
from torch import Tensor

from srwm_agents.agent import save_agent
from srwm_agents.averaging import IntervalMean, update_average
from srwm_agents.experiment_folders import check_present
from srwm_agents.integrations.sample_factory.checkpoint import (
    CheckpointError,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from srwm_agents.integrations.sample_factory.config import CONTENTS, experiment_folder, game_discounts
from srwm_agents.integrations.sample_factory.dropped import DroppedUpdates
from srwm_agents.integrations.sample_factory.environment import EXPLORING_ENTRY, GAME_ENTRY
from srwm_agents.integrations.sample_factory.in_process.streams import wait_for_stream
from srwm_agents.integrations.sample_factory.in_process.weights import WeightsHandover, tensors_of
from srwm_agents.integrations.sample_factory.learning_settings import LinearFrameDecay, optimizer_of, update_of
from srwm_agents.integrations.sample_factory.model import export_agent
from srwm_agents.learning import GameScales, ReturnScales, Rollout, UpdateResult
from srwm_agents.learning.optimizers import regrouped, set_capturable, set_learning_rate
from srwm_agents.learning.pooling import SINGLE, Pool

AGENT_FOLDERS = {"checkpoint": "agent", "best": "agent_best"}
"""Folder of the portable agent of each kind of checkpoint, in the experiment's folder."""
AVERAGE_FOLDER = "agent_average"
"""Folder of the average of the agents that were saved as "checkpoint"."""
ENDS, SIGNALS = 1, 128
"""What a stop flag is: 1 at an end that no signal asked for, else 128 + the number of the signal."""


class SRWMLearner(Learner):
    """Sample Factory's learner around :class:`srwm_agents.learning.Update`, with safe checkpoints and portable agents.

    With ``--with_vtrace=False`` training is Sample Factory's own (GAE and PPO).
    """

    game_scales: GameScales | None = None
    """With ``--balance_games``."""
    return_scales: ReturnScales | None = None
    """With ``--reward_treatment=return_norm``."""
    pool: Pool = SINGLE
    """The learners that make each update together, the main one of which saves. Each has a batch of its own."""
    handover: WeightsHandover | None = None
    """With ``--in_process``: where the actor thread gets its weights."""
    stop_flag: Tensor | None = None
    """uint8 in shared memory, not zero once training is to stop (see :data:`ENDS`): the
    rest of a batch is then left out. Of several learners each sets its own, and :meth:`agree_to_stop` all of them."""
    _stop_agreed = False
    _mean: IntervalMean | None = None
    """Of the weights after each training iteration since the last checkpoint; with the main learner."""

    def init(self) -> Any:
        # Learner.init knows two optimisers and refuses any other name. It also loads the checkpoint; before that,
        # load_from_checkpoint below makes the requested optimiser.
        requested = self.cfg.optimizer
        self.cfg.optimizer = requested if requested in ("adam", "lamb") else "adam"
        self._requested_optimizer = requested
        schedule = self.cfg.lr_schedule
        self.cfg.lr_schedule = "constant" if schedule == "linear_decay" else schedule
        try:
            model_data = super().init()
        finally:
            self.cfg.optimizer, self.cfg.lr_schedule = requested, schedule
        if schedule == "linear_decay":
            self.lr_scheduler = LinearFrameDecay(self)
            self.curr_lr = self.lr_scheduler.update(0.0, [])
            self._apply_lr(self.curr_lr)
        assert self.actor_critic is not None
        self._refuse_another_beginning()
        self.pool.broadcast(self.actor_critic)
        if self.pool.is_main:
            if self.env_steps > 0:
                self._export("checkpoint")  # a kill between checkpoint and agent must not leave them apart
            self._mean = IntervalMean(self.actor_critic)
        self._publish_weights()
        return model_data

    def _refuse_another_beginning(self) -> None:
        """Raise :class:`CheckpointError` if another learner has loaded a later checkpoint than this one."""
        furthest = self.pool.largest(self.env_steps)
        if furthest != self.env_steps:
            raise CheckpointError(
                f"here training would begin at {self.env_steps:,} frames, but at {furthest:,} in another process of "
                f"torchrun: --train_dir must be one folder for all, as {self.cfg.train_dir!r} is not"
            )

    def load_from_checkpoint(self, policy_id: int, load_progress: bool = True) -> None:
        assert self.actor_critic is not None
        assert self.device is not None
        if not self.is_initialized:
            model: Any = self.actor_critic
            if self._requested_optimizer != "lamb":
                self.optimizer = optimizer_of(self.cfg, model, self._requested_optimizer)
            assert self.optimizer is not None
            discounts = torch.tensor(game_discounts(self.cfg), dtype=torch.float64, device=self.device)
            self.discounts = discounts.float()
            if self.cfg.balance_games:
                self.game_scales = GameScales(len(discounts), self.device)
            if self.cfg.reward_treatment == "return_norm":
                self.return_scales = ReturnScales(discounts)
            self.dropped = DroppedUpdates()
            self.update = update_of(self.cfg, model, self.optimizer, self.game_scales, self.pool)
        super().load_from_checkpoint(policy_id, load_progress)

    def _load_state(self, checkpoint_dict: dict[str, Any], load_progress: bool = True) -> None:
        assert self.optimizer is not None
        if self._requested_optimizer != "lamb":
            assert self.actor_critic is not None
            # Before the critic had a learning rate of its own, all parameters were one group.
            saved = regrouped(checkpoint_dict["optimizer"], self.optimizer, self.actor_critic.parameters())
            checkpoint_dict = {**checkpoint_dict, "optimizer": saved}
        super()._load_state(checkpoint_dict, load_progress)
        if self._requested_optimizer != "lamb":
            set_capturable(self.optimizer, captured=self.cfg.cuda_graphs)
        if self.game_scales is not None and "game_scales" in checkpoint_dict:
            self.game_scales.load(*checkpoint_dict["game_scales"])
        if self.return_scales is not None:
            self.return_scales.load(*checkpoint_dict["return_scales"])

    @staticmethod
    def get_checkpoints(checkpoints_dir: str, pattern: str = "checkpoint_*") -> list[str]:
        """Checkpoint files, oldest first; Sample Factory's also lists its temporary file, and would load it."""
        return [str(file) for file in list_checkpoints(checkpoints_dir, pattern.removesuffix("_*"))]

    @staticmethod
    def load_checkpoint(checkpoints: list[str], device: torch.device) -> dict[str, Any] | None:
        """Load the latest checkpoint; one that does not load ends the run, where Sample Factory starts from scratch."""
        return load_checkpoint(Path(checkpoints[-1]), device) if checkpoints else None

    def _get_checkpoint_dict(self) -> dict[str, Any]:
        checkpoint = super()._get_checkpoint_dict()
        # The runner's metric is a NumPy scalar, which torch.load(weights_only=True) refuses.
        checkpoint["best_performance"] = float(checkpoint["best_performance"])
        checkpoint["curr_lr"] = float(checkpoint["curr_lr"])
        for group in checkpoint["optimizer"]["param_groups"]:
            group["lr"] = float(group["lr"])
        if self.game_scales is not None:
            checkpoint["game_scales"] = (self.game_scales.mean_square, self.game_scales.weight)
        if self.return_scales is not None:
            checkpoint["return_scales"] = (self.return_scales.moments, self.return_scales.count)
        return checkpoint

    def _save_impl(self, name_prefix: str, name_suffix: str, keep_checkpoints: int, verbose: bool = True) -> bool:
        if not self.is_initialized or not self.pool.is_main:
            return False
        check_present(experiment_folder(self.cfg), CONTENTS)
        folder = experiment_folder(self.cfg) / f"checkpoint_p{self.policy_id}"
        file = folder / f"{name_prefix}_{self.train_step:09d}_{self.env_steps}{name_suffix}.pth"
        save_checkpoint(self._get_checkpoint_dict(), file)
        if verbose:
            log.info("Saved %s", file)
        for outdated in list_checkpoints(folder, name_prefix)[: -max(1, keep_checkpoints)]:
            outdated.unlink(missing_ok=True)
        # Making an agent draws weights. In serial mode actions come from the same generator, and would depend on when
        # the clock lets a run save. Threads share it too, but there actions are drawn meanwhile: it cannot be put back.
        with torch.random.fork_rng(devices=[], enabled=self.handover is None):
            self._export(name_prefix)
        return True

    def save_milestone(self) -> None:
        if not self.pool.is_main:
            return
        check_present(experiment_folder(self.cfg), CONTENTS)
        folder = experiment_folder(self.cfg) / f"checkpoint_p{self.policy_id}" / "milestones"
        save_checkpoint(self._get_checkpoint_dict(), folder / f"checkpoint_{self.train_step:09d}_{self.env_steps}.pth")

    def _export(self, kind: str) -> None:
        assert self.actor_critic is not None
        training = {
            "experiment": self.cfg.experiment,
            "frames": self.env_steps,
            "updates": self.train_step,
            "seed": self.cfg.seed,
        }
        space = cast(spaces.Dict, self.env_info.obs_space)
        agent = export_agent(self.cfg, self.actor_critic, space, training)
        suffix = "" if self.policy_id == 0 else f"_p{self.policy_id}"
        folder = experiment_folder(self.cfg)
        save_agent(agent, folder / (AGENT_FOLDERS[kind] + suffix))
        if kind == "checkpoint":
            if self._mean is not None and self._mean.count > 0:
                agent = export_agent(self.cfg, self._mean.module, space, training)
                self._mean.restart()
            update_average(folder / (AVERAGE_FOLDER + suffix), agent)

    def train(self, batch: TensorDict) -> dict[str, Any] | None:
        # One update may take as long as a stop may last: a batch that has not begun by then is left out as a whole.
        if self.agree_to_stop():
            return None
        before = self.env_steps
        stats = super().train(batch)
        if self._mean is not None:
            self._mean.add()
        self.env_steps = before + (self.env_steps - before) * self.pool.world_size
        return stats if stats is None else {**stats, LEARNER_ENV_STEPS: self.env_steps}

    def agree_to_stop(self, mine: int = 0) -> bool:
        """Whether training stops here, in all learners or in none: before each batch, and once more at the end.

        Each learner calls it before each of its batches, until it returns True; one that has to stop without another
        batch calls it as well. So all stop after the same update, whichever is asked to, and none waits for another.

        Args:
            mine: as :attr:`stop_flag`, for a learner that has to stop.
        """
        if not self._stop_agreed:
            asked = 0 if self.stop_flag is None else int(self.stop_flag)
            agreed = self.pool.largest(max(mine, asked))
            if agreed and self.stop_flag is not None and self.pool.world_size > 1:
                self.stop_flag.fill_(agreed)
            self._stop_agreed = agreed > 0
        return self._stop_agreed

    @property
    def _stops_at_once(self) -> bool:
        """Whether to leave out the rest of a batch; several learners make the same number of updates, and do not."""
        return self.pool.world_size == 1 and self.stop_flag is not None and bool(self.stop_flag)

    def _prepare_batch(self, batch: TensorDict) -> tuple[Any, int, int]:
        """Convert Sample Factory's buffers to a :class:`Rollout`; also the numbers of all and of invalid steps."""
        if not self.cfg.with_vtrace:
            return super()._prepare_batch(batch)
        assert self.actor_critic is not None
        with torch.no_grad():
            buff: Any = shallow_recursive_copy(batch)
            fresh = self.train_step - buff["policy_version"] < self.cfg.max_policy_lag
            own = valids = (buff["policy_id"] == self.policy_id) & fresh
            if EXPLORING_ENTRY in buff["obs"]:
                valids = own & (buff["obs"][EXPLORING_ENTRY][:, :-1, 0] == 0)
            self.actor_critic.train()
            rewards = buff["rewards"]
            games = buff["obs"][GAME_ENTRY][:, 0, 0].long()
            discounts = self.discounts[games][:, None]
            if self.return_scales is not None:
                self.return_scales.update(rewards, buff["dones"], games, self.pool)
                rewards = self.return_scales.normalise(rewards, games)
            if self.cfg.value_bootstrap:  # as Sample Factory: bootstrap where an episode ran out of time
                ended_by_time = buff["time_outs"] * buff["dones"]
                rewards = rewards + discounts * buff["values"][:, :-1] * ended_by_time
            rollout = Rollout(
                observations=dict(cast(Any, self._prepare_and_normalize_obs(buff["obs"]))),
                state=buff["rnn_states"][:, 0],
                rewards=rewards,
                dones=buff["dones"],
                discounts=discounts * (~buff["dones"]),
                # Invalid steps may hold anything, also NaN; the losses leave them out.
                actions=torch.where(valids[..., None], buff["actions"].view(*valids.shape, -1), 0),
                log_probs=torch.where(valids, buff["log_prob_actions"], -1),
                logits=buff["action_logits"],
                games=games,
                valids=valids,
                versions=buff["policy_version"],
            )
            # Sample Factory scales the step size by the share of valid steps. Random steps are not counted as invalid
            # there, and learners that share a batch must take the same step.
            own_steps = int(self.pool.mean(own.sum().float()).round())
            return rollout, own.numel(), own.numel() - own_steps

    def _train(self, gpu_buffer: Any, batch_size: int, experience_size: int, num_invalids: int) -> AttrDict | None:
        if not self.cfg.with_vtrace:
            return super()._train(gpu_buffer, batch_size, experience_size, num_invalids)
        assert self.actor_critic is not None
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        assert self.curr_lr is not None
        with_summaries = self._should_save_summaries()
        valid_fraction = (experience_size - num_invalids) / experience_size
        kls: list[float] = []
        summaries: AttrDict | None = None
        step, left_out = self.train_step, self.update.gradients_left_out.clone()
        iteration = step // (self.cfg.num_batches_per_epoch * self.cfg.num_epochs)
        with_critic = iteration % self.cfg.critic_every == 0
        for epoch in range(self.cfg.num_epochs):
            for minibatch in self.minibatches(gpu_buffer):
                if self._stops_at_once:
                    break
                policy_version = self.train_step
                self._apply_lr(self.curr_lr * valid_fraction)
                with self.timing.add_time("update"), self.param_server.policy_lock:
                    result = self.update(minibatch, with_critic=with_critic)
                self._after_optimizer_step()
                if self.cfg.lr_schedule.startswith("kl_adaptive"):
                    kls.append(float(result.losses.kl))
                if self.lr_scheduler.invoke_after_each_minibatch():
                    self.curr_lr = self.lr_scheduler.update(self.curr_lr, kls)
                if with_summaries and epoch == self.cfg.num_epochs - 1 and summaries is None:
                    summaries = self._summaries(result, minibatch, policy_version)
            if kls and self.lr_scheduler.invoke_after_each_epoch():
                self.curr_lr = self.lr_scheduler.update(self.curr_lr, kls)
        assert self.device is not None
        # Once for all minibatches: a host sync after each would leave the device idle.
        wait_for_stream(self.device)
        self.dropped.add(self.train_step - step, int(self.update.gradients_left_out - left_out), gpu_buffer)
        self._publish_weights()
        return summaries

    def _publish_weights(self) -> None:
        """Make the current weights available to the actors."""
        self.policy_versions_tensor[self.policy_id] = self.train_step
        if self.handover is not None:
            assert self.actor_critic is not None
            self.handover.put(tensors_of(self.actor_critic), self.train_step)

    def _apply_lr(self, lr: float) -> None:
        assert self.optimizer is not None
        set_learning_rate(self.optimizer, lr)

    def minibatches(self, rollout: Rollout) -> Iterator[Rollout]:
        """Minibatches of whole trajectories, in order or (``--shuffle_minibatches``) at random."""
        return rollout.minibatches(self.cfg.batch_size // self.cfg.rollout, shuffle=self.cfg.shuffle_minibatches)

    def _summaries(self, result: UpdateResult, minibatch: Rollout, policy_version: int) -> AttrDict:
        assert self.actor_critic is not None
        losses, valids = result.losses, minibatch.valids
        values: dict[str, Any] = {
            "lr": self.curr_lr,
            **self.actor_critic.summaries(),
            "valids_fraction": valids.float().mean(),
            "grad_norm": result.grad_norm,
            "gradients_left_out": self.update.gradients_left_out,
            "state_max": minibatch.state.abs().max(),
            "loss": losses.total,
            "policy_loss": losses.policy,
            "value_loss": losses.value,
            "exploration_loss": losses.exploration,
            "kl_loss": losses.behaviour_kl,
            "advantage_loss": losses.advantage,
            "consistency_loss": losses.consistency,
            "entropy": losses.entropy,
            "kl_divergence": losses.kl,
        }
        if valids.any():  # random starts can fill a whole minibatch
            ratios = losses.ratios[valids]
            lag = (policy_version - minibatch.versions)[valids].float()
            values |= {
                "value": losses.values[valids].mean(),
                "target": losses.targets[valids].mean(),
                "adv_std": losses.advantages[valids].std(),
                "adv_mean": losses.advantages[valids].mean(),
                "ratio_mean": ratios.mean(),
                "ratio_min": ratios.min(),
                "ratio_max": ratios.max(),
                "version_diff_avg": lag.mean(),
                "version_diff_min": lag.min(),
                "version_diff_max": lag.max(),
            }
        self.last_summary_time = time.monotonic()
        return AttrDict({name: float(value) for name, value in [*values.items(), *self._game_summaries()]})

    def _game_summaries(self) -> Iterator[tuple[str, Tensor]]:
        """Per-game statistics of return normalisation and PopArt, where these are on."""
        popart = cast(Any, self.actor_critic).popart
        statistics = {
            "return_deviation": None if self.return_scales is None else self.return_scales.deviation,
            "popart_mean": None if popart is None else popart.mean,
            "popart_deviation": None if popart is None else popart.deviation,
        }
        for name, of_games in statistics.items():
            if of_games is not None:
                yield from zip((f"{name}/{game}" for game in self.cfg.tasks), of_games, strict=True)


class SRWMLearnerWorker(LearnerWorker):
    """Sample Factory's learner worker with an :class:`SRWMLearner`."""

    def __init__(
        self,
        evt_loop: Any,
        cfg: Any,
        env_info: Any,
        buffer_mgr: Any,
        batcher: Any,
        policy_id: int,
        stop_flag: Tensor | None = None,
        pool: Pool = SINGLE,
    ) -> None:
        super().__init__(evt_loop, cfg, env_info, buffer_mgr, batcher, policy_id)
        self.learner = SRWMLearner(cfg, env_info, buffer_mgr.policy_versions, policy_id, self.param_server)
        self.learner.stop_flag, self.learner.pool = stop_flag, pool

    def init(self) -> None:
        if self.cfg.threads is not None:
            torch.set_num_threads(self.cfg.threads)  # Sample Factory gives each of its processes one
        super().init()

    def on_stop(self, *args: Any) -> None:
        cast(SRWMLearner, self.learner).agree_to_stop(ENDS)
        super().on_stop(*args)

    def _cleanup_cache(self) -> None:
        """Do nothing: Sample Factory's frees PyTorch's cached memory every 30 seconds, which stalls the device."""
