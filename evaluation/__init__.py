"""Predictions scored against dense labels, and models compared with a fully supervised one."""
