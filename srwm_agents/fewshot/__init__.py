"""Few-shot classifiers that learn new classes by rewriting their own weights while they read the examples."""

from srwm_agents.fewshot.classifier import (
    ClassifierConfig,
    FewShotClassifier,
    Memory,
    load_classifier,
    save_classifier,
)

__all__ = ["ClassifierConfig", "FewShotClassifier", "Memory", "load_classifier", "save_classifier"]
