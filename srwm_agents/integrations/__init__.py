"""Plug-ins for frameworks; each folder is the only place that imports its framework."""
