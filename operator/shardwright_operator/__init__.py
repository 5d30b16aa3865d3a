"""The operator: plans and keeps Discord gateways on Kubernetes. Entry point: `__main__`; how it decides: `plan_*.py`."""
