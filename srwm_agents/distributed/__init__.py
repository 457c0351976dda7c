"""Distributed training: Sample Factory's learner with rollouts from TorchRL's Ray collectors on other machines."""
