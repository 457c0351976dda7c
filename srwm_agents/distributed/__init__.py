"""Training on many machines: Sample Factory's learner, fed by TorchRL's Ray collectors."""
