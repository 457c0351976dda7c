"""Meta-learned few-shot classifiers: a recurrent core reads labelled examples and then answers queries."""

from srwm_agents.fewshot.classifier import (
    ClassifierConfig,
    FewShotClassifier,
    Memory,
    load_classifier,
    save_classifier,
)

__all__ = ["ClassifierConfig", "FewShotClassifier", "Memory", "load_classifier", "save_classifier"]
