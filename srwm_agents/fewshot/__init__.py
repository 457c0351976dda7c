"""Few-shot classifiers that learn new classes by rewriting their own weights while they read the examples."""
