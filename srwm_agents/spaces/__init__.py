"""What an agent sees and does: entries of observations, and actions, as networks and saved files have them.

``entries.py`` and ``actions.py`` describe them without any framework, ``distributions.py`` has the policy's
distributions (PyTorch), and ``gymnasium_spaces.py`` makes entries and actions of gymnasium's spaces.
"""
