"""Sinks: where events go. `base.py` is the plug-in point, every other module one kind."""
