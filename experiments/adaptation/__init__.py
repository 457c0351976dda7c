"""How fast memories learn new bandits and tabular MDPs in context, beside algorithms that know the prior."""
