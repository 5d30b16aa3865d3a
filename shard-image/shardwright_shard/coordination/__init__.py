"""What the engine knows of the cluster: `base.py` the Protocol, `kubernetes.py` and `local.py` its implementations."""
