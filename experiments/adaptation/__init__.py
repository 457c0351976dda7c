"""In-context adaptation: how fast memories learn new bandits and tabular MDPs, beside algorithms that know the prior."""
